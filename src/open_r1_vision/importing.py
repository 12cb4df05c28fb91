# SPDX-License-Identifier: Apache-2.0
"""Dotted paths in recipes: `package.module.function` names a Python callable."""

import difflib
import importlib
import re
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
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


def describe_error(error: BaseException) -> str:
    """What a message says about an error that may come from code which a recipe names.

    A message that was written for users stands for itself. Of any other one, and of all that a user's own file raised,
    the type is said too, and where it was raised.
    """
    own = isinstance(error, ValueError | OSError | ImportError)
    while not own and error.__cause__ is not None:  # that a data set can't be made says nothing, why does
        error = error.__cause__
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if _is_users(frame.filename)]
    if own and not theirs and str(error):
        return str(error)
    text = ": ".join(filter(None, [type(error).__name__, str(error)]))
    place = (theirs or frames)[-1:] if not isinstance(error, SyntaxError) else []  # which names its own
    return text + "".join(f" ({Path(frame.filename).name}, line {frame.lineno})" for frame in place)


def _is_users(file: str) -> bool:
    """Whether a file is neither of this package, nor of an installed one, nor of Python."""
    paths = sysconfig.get_paths()
    folders = [Path(__file__).parent, *(Path(paths[name]) for name in ("stdlib", "platstdlib", "purelib", "platlib"))]
    return not file.startswith("<") and not any(Path(file).is_relative_to(folder) for folder in folders)
