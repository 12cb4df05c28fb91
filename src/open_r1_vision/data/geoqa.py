# SPDX-License-Identifier: Apache-2.0
r"""The GeoQA test set of R1-V and Hint-GRPO (arXiv 2503.23905): 754 lines of `image_path`, `question`, `ground_truth`.

The file is `geoqa_test_prompts.jsonl` of R1-V, the images are Geo170K's, at `./Geo170K/images/test/0.png`. A recipe
has:

    eval_dataset: open_r1_vision.data.geoqa.rows
    eval_dataset_options: {path: geoqa_test_prompts.jsonl, images: Geo170K}

The golds are numbers (`140°`, `3cm`, `9米`, `5cm^2^`) and constants (`8√{3}`, `65π`, `2√{2}-2`, `\frac{10√{3}}{3}m`),
with units in English or Chinese that the questions mostly do not ask for: see `rewards/numbers.py` and
`rewards/math_answers.py` for how they are compared. math-verify alone reads 60 of them as their first number and 17 as
nothing. An evaluation set has no row to spare, so a row that can't be read is an error.
"""

from pathlib import Path
from typing import Any

from datasets import Dataset

from open_r1_vision.data.loading import read_json
from open_r1_vision.data.rows import rows_from_list
from open_r1_vision.rewards.answers import infer_problem_type

_KEYS = ("image_path", "question", "ground_truth")
_ROOT = "Geo170K"


def rows(split: str = "test", *, path: str, images: str | None = None) -> Dataset:
    """The rows of a file in this layout, for `dataset` or `eval_dataset` in a recipe; ids are `geoqa-0`, `geoqa-1`, …

    Args:
        split: the file is whatever split is asked for.
        path: the JSONL file.
        images: the folder that holds `Geo170K`, or `Geo170K` itself; by default that of the file.

    Raises:
        FileNotFoundError: there is no such file, or an image is missing.
        ValueError: a line lacks one of the three keys, or its value is empty.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(
            f"There is no file {path!r} (looked at {str(file.absolute())!r}): set `path` to geoqa_test_prompts.jsonl."
        )
    folder = Path(images).expanduser() if images is not None else file.parent
    records = read_json(file)
    for number, record in enumerate(records):
        empty = [key for key in _KEYS if record.get(key) is None or not str(record[key]).strip()]
        if empty:
            raise ValueError(
                f"{path!r}, row {number}: {' and '.join(map(repr, empty))} must hold a text, but the row has "
                f"{', '.join(map(repr, record)) or 'no keys'}. Give a file in the layout of geoqa_test_prompts.jsonl."
            )
    paths = [str(record["image_path"]) for record in records]
    places = [_locate(path, folder) for path in paths]
    missing = [str(folder / path) for path, place in zip(paths, places, strict=True) if place is None]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of the {len(records)} images of {path!r} are missing, the first is {missing[0]!r}. Set "
            f"`images` (it is {images!r}) to the folder that holds {_ROOT}, or to {_ROOT} itself."
        )
    return rows_from_list(
        [_row(record, place, number) for number, (record, place) in enumerate(zip(records, places, strict=True))],
        "geoqa",
    )


def _locate(image_path: str, folder: Path) -> str | None:
    """The image where its published path leads from the folder, or from the one around it."""
    _, root, rest = image_path.rpartition(f"{_ROOT}/")
    candidates = [folder / image_path, *([folder / rest] if root else [])]
    return next((str(place) for place in candidates if place.is_file()), None)


def _row(record: dict[str, Any], image: str | None, number: int) -> dict[str, Any]:
    gold = str(record["ground_truth"]).strip()
    return {
        "id": f"geoqa-{number}",
        "images": [image],
        "problem": str(record["question"]).strip(),
        "solution": gold,
        "problem_type": infer_problem_type(gold),
        "source": "geoqa",
    }
