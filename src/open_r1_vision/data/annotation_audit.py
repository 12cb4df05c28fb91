# SPDX-License-Identifier: Apache-2.0
"""How many visual facts are right: a sample for people to label, and the share with its interval.

`audit.jsonl` has one fact a line, with an empty `label` to fill in; `audit.md` shows the same to read, beside the
images. A fact is right if the image shows it. Facts of one row are not independent, so that the true interval is
somewhat wider than the one that is given.
"""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from open_r1_vision.reasoners.audit import read_labels
from open_r1_vision.statistics import Proportion, wilson_interval

LABELS_FILE = "audit.jsonl"
READABLE_FILE = "audit.md"
IMAGES_FOLDER = "audit_images"

_RIGHT = ("1", "1.0", "true", "right", "yes", "y")
_WRONG = ("0", "0.0", "false", "wrong", "no", "n")


def write_sample(
    dataset: Dataset, reasonings: Mapping[str, str], folder: Path, size: int, seed: int, overwrite: bool = False
) -> str:
    """Draw rows and write their facts to label; a file with labels in it stays.

    Args:
        dataset: rows with `visual_facts`.
        reasonings: by row id.
        folder: where the files go.
        size: how many rows.
        seed: of the draw.
        overwrite: replace labels, too.

    Returns:
        What was done, in a line.
    """
    path = folder / LABELS_FILE
    if path.exists() and not overwrite and read_labels(path):
        return f"{path} has labels in it and stays as it is."
    chosen = sorted(random.Random(seed).sample(range(len(dataset)), min(size, len(dataset))))
    (folder / IMAGES_FOLDER).mkdir(exist_ok=True)
    lines, pages = [], []
    for index in chosen:
        row = dataset[index]
        places = []
        for number, image in enumerate(row["images"]):
            places.append(f"{IMAGES_FOLDER}/{index}-{number}.png")
            image.convert("RGB").save(folder / places[-1])
        shown = {"problem": row["problem"], "reasoning": reasonings[row["id"]], "images": places}
        lines += [
            {"id": f"{row['id']}#{number}", "label": "", "fact": fact, **shown}
            for number, fact in enumerate(row["visual_facts"], start=1)
        ]
        pages.append(_page(row, shown))
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    (folder / READABLE_FILE).write_text("\n".join(pages), encoding="utf-8")
    return f"{path}: {len(lines)} facts of {len(chosen)} rows to label (1 right, 0 wrong); {READABLE_FILE} shows them."


def measure_labels(path: str | Path) -> Proportion:
    """The share of facts that are labelled as right.

    Args:
        path: a JSONL or CSV file with `id` and `label`; facts without a label are left out.

    Raises:
        ValueError: the file can't be read, holds no label, or one that is neither right nor wrong.
    """
    labels = {key: str(label).strip().casefold() for key, label in read_labels(path).items()}
    unknown = {key: label for key, label in labels.items() if label not in (*_RIGHT, *_WRONG)}
    if unknown:
        key, label = next(iter(unknown.items()))
        raise ValueError(
            f"{len(unknown)} labels of {str(path)!r} can't be read, the first is {label!r} of {key!r}: write 1 where "
            "the fact is right, 0 where it is wrong."
        )
    if not labels:
        raise ValueError(
            f"{str(path)!r} has no labels yet: write 1 into `label` where the fact is right, 0 where it is wrong."
        )
    return wilson_interval([float(label in _RIGHT) for label in labels.values()])


def _page(row: Mapping[str, Any], shown: Mapping[str, Any]) -> str:
    facts: Sequence[str] = row["visual_facts"]
    return "\n\n".join(
        [
            f"## {row['id']}",
            *(f"![image]({place})" for place in shown["images"]),
            shown["problem"],
            f"Answer: {row['solution']}",
            shown["reasoning"],
            "\n".join(f"{number}. {fact}" for number, fact in enumerate(facts, start=1)),
            "",
        ]
    )
