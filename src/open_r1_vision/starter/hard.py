# SPDX-License-Identifier: Apache-2.0
"""Pages of digits that the shipped policy never gets right: all of 8 samples were wrong before any RL.

The list belongs to the shipped checkpoint; `local_scripts/find_hard_rows.py` makes it anew.
"""

import json
from importlib import resources

from datasets import Dataset

from open_r1_vision.starter import digits

LIST_FILE = "hard_rows.json"


def rows(split: str = "train", count: int | None = None) -> Dataset:
    """Hard rows of the digits task, with every column of the row schema.

    Args:
        split: `train`; the rows of other splits were not tried.
        count: the first so many; all by default.

    Raises:
        ValueError: another split, or more rows than there are.
    """
    if split != "train":
        raise ValueError(f"There are hard rows of the split train, not of {split!r}: set the split to train.")
    found = read_list()
    indices = found["indices"]
    if count is not None and not 1 <= count <= len(indices):
        raise ValueError(
            f"{count} hard rows were asked for, but there are {len(indices)}: set `count` to at most that."
        )
    return digits.rows("train", found["tried"]).select(indices[:count])


def read_list() -> dict:
    """What is known about the hard rows: `indices` among the first `tried` training rows of seed 0, how they were
    sampled, and the SHA-256 of the `weights` that were tried.
    """
    file = resources.files("open_r1_vision.starter") / LIST_FILE
    return json.loads(file.read_text(encoding="utf-8"))
