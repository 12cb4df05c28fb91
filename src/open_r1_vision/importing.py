# SPDX-License-Identifier: Apache-2.0
"""Dotted paths in recipes: `package.module.function` names a Python callable."""

import difflib
import importlib
import re
from collections.abc import Callable
from typing import Any

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def is_dotted_path(name: str) -> bool:
    """Whether `name` could name a callable: identifiers joined by dots, no slash."""
    return _DOTTED.fullmatch(name) is not None


def import_callable(path: str) -> Callable[..., Any]:
    """Import the callable at a dotted path.

    Raises:
        ValueError: not a dotted path, no such module, no such attribute, or not callable.
    """
    if not is_dotted_path(path):
        raise ValueError(f"{path!r} is not a dotted path of the form `package.module.function`.")
    module_name, _, attribute = path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there, something that it imports is not
        raise ValueError(
            f"{path!r} can't be imported: there is no module {error.name!r}. Check the spelling, or install the "
            "package that holds it."
        ) from error
    if not hasattr(module, attribute):
        public = [name for name in dir(module) if not name.startswith("_")]
        near = difflib.get_close_matches(attribute, public, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"It has: {', '.join(public)}."
        raise ValueError(f"{path!r} can't be imported: module {module_name!r} has no {attribute!r}. {hint}")
    target = getattr(module, attribute)
    if not callable(target):
        raise ValueError(f"{path!r} is a {type(target).__name__}, but something callable is needed.")
    return target
