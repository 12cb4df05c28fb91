# SPDX-License-Identifier: Apache-2.0
"""Prompt texts, one file each, named by a recipe without the `.txt` or by a path of the user's own."""

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
