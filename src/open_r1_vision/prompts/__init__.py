# SPDX-License-Identifier: Apache-2.0
"""Prompt texts, one file each, named by a recipe without the `.txt` or by a path of the user's own.

A template holds placeholders such as `{problem}`.
"""

import re
from pathlib import Path

_FOLDER = Path(__file__).parent


def load_prompt(name: str) -> str:
    """Read a prompt, without the blanks around it.

    Args:
        name: a packaged prompt such as `visionary_r1`, or the path of a text file.

    Raises:
        ValueError: neither exists.
    """
    for path in (_FOLDER / f"{name}.txt", Path(name)):
        if path.is_file():
            return path.read_text(encoding="utf-8").strip()
    packaged = ", ".join(sorted(path.stem for path in _FOLDER.glob("*.txt")))
    raise ValueError(f"There is no prompt {name!r}: give the path of a text file or one of {packaged}.")


def load_template(name: str, *placeholders: str) -> str:
    """Read a prompt that has placeholders.

    Raises:
        ValueError: there is no such prompt, or it lacks one of the placeholders.
    """
    template = load_prompt(name)
    missing = [f"{{{placeholder}}}" for placeholder in placeholders if f"{{{placeholder}}}" not in template]
    if missing:
        raise ValueError(
            f"The prompt {name!r} lacks {' and '.join(missing)}, where the text of a row goes: write it in, or name "
            "another prompt."
        )
    return template


def fill_prompt(template: str, **values: str) -> str:
    """Replace each `{name}` by its value, once: a value that holds `{problem}` itself stays as it is.

    Raises:
        ValueError: the template lacks one of the placeholders.
    """
    for name in values:
        if f"{{{name}}}" not in template:
            raise ValueError(f"The template {template!r:.100} has no {{{name}}}: write it in where that text goes.")
    pattern = "|".join(re.escape(f"{{{name}}}") for name in values)
    return re.sub(pattern, lambda match: values[match[0][1:-1]], template)
