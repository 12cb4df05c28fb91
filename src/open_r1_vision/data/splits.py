# SPDX-License-Identifier: Apache-2.0
"""Rows by difficulty: the splits that `python -m open_r1_vision.split` writes, as the data set of a recipe.

dataset: open_r1_vision.data.splits.rows
dataset_split: easy
dataset_options: {path: runs/splits}

A split is a list of ids; rows and images stay where they are.
"""

import json
from pathlib import Path
from typing import Any

from datasets import Dataset

SPLITS_FILE = "splits.json"
#: Every row is in exactly one of them.
SPLITS = ("easy", "medium", "hard", "incomplete")


def rows(split: str, path: str) -> Dataset:
    """The rows of one split, in the order of the data set that was sampled, with all of its columns.

    Args:
        split: `easy`, `medium`, `hard` or `incomplete`; several are joined by `+`, as in `medium+hard`.
        path: folder that `open_r1_vision.split` wrote.

    Raises:
        ValueError: no such folder or split, a split without rows, or a data set that has changed.
    """
    from open_r1_vision.data.loading import load_rows

    ids = set(read_split(split, path))
    source = read_splits(path)["source"]
    dataset = load_rows(source["dataset"], source["dataset_split"], **source["dataset_options"])
    places = [place for place, row_id in enumerate(dataset["id"]) if row_id in ids]
    if len(places) != len(ids):
        raise ValueError(
            f"{len(ids)} rows of {source['dataset']!r} are in the split {split!r} of {path!r}, but the data set has "
            f"{len(places)} of their ids: it has changed since it was sampled. Sample and split it again."
        )
    return dataset.select(places)


def read_split(split: str, path: str | Path) -> list[str]:
    """The ids of a split, without loading any row; arguments and errors as of :func:`rows`."""
    found = read_splits(path)
    names = split.split("+")
    unknown = [name for name in names if name not in SPLITS]
    if unknown:
        raise ValueError(
            f"{str(path)!r} has no split {unknown[0]!r}: set dataset_split to one of {', '.join(SPLITS)}, or to "
            "several, joined by +."
        )
    ids = [row_id for name in dict.fromkeys(names) for row_id in found["splits"][name]]
    if not ids:
        raise ValueError(
            f"The split {split!r} of {str(path)!r} is empty: {' '.join(_why_empty(found, n) for n in names)}"
        )
    return ids


def read_splits(path: str | Path) -> dict[str, Any]:
    """What `open_r1_vision.split` wrote into a folder.

    Raises:
        ValueError: it wrote nothing there.
    """
    file = Path(path).expanduser() / SPLITS_FILE
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{str(path)!r} holds no splits ({error}): set `path` to the output_dir of open_r1_vision.split."
        ) from error


def _why_empty(found: dict[str, Any], name: str) -> str:
    """Which threshold left nothing for a split."""
    easy_from, hard_up_to, n = found["easy_from"], found["hard_up_to"], found["num_samples"]
    rates = [right / n for right, count in enumerate(found["histogram"]) if count]
    if name == "incomplete":
        return f"every row has its {n} samples."
    if not rates:
        return f"no row has all of its {n} samples with a score."
    asked = (
        f"scorer ({found['scorer']}), answer_form ({found['answer_form']}) and right_from ({found['right_from']:g})"
    )
    if max(rates) == 0 and name != "hard":
        return f"no sample of any row is right. If the model does answer, check {asked} of the split."
    if min(rates) == 1 and name != "easy":
        return f"every sample of every row is right. If it should not be, check {asked} of the split."
    if name == "easy":
        return f"the highest pass rate is {max(rates):.3g}, below easy_from {easy_from:g}: lower easy_from."
    if name == "hard":
        return f"the lowest pass rate is {min(rates):.3g}, above hard_up_to {hard_up_to:g}: raise hard_up_to."
    return (
        f"no pass rate lies between hard_up_to {hard_up_to:g} and easy_from {easy_from:g}: raise easy_from or lower "
        "hard_up_to, or draw more samples of each row."
    )
