# SPDX-License-Identifier: Apache-2.0
r"""Geometry3K's published layout (arXiv 2105.04165): a folder for each problem in `train`, `val` and `test`.

    geometry3k/train/11/data.json         problem_text, annotat_text, compact_choices, answer (a letter), ...
    geometry3k/train/11/img_diagram.png
    geometry3k/train/11/logic_form.json   text_logic_form, diagram_logic_form

By default a question becomes one to fill in, whose gold is the right option's text, as in the parquet file that
Perception-R1 and others train on (which :mod:`open_r1_vision.data.perception_r1` reads, with facts or without). In a
recipe:

    dataset: open_r1_vision.data.geometry3k.rows
    dataset_options: {path: data/geometry3k, facts: true}

`facts` takes what the annotators read from the diagram, such as `Equals(LengthOf(Line(A, B)), 5)`, as `visual_facts`.
They are formal, so that a rule finds them in no response: a `fact_judge` has to read them.
"""

import json
import logging
from pathlib import Path
from typing import Any

from datasets import Dataset

from open_r1_vision.data.conversion import Conversion, Unusable, find_image
from open_r1_vision.data.images import ImageLimits
from open_r1_vision.data.rows import rows_from_list
from open_r1_vision.rewards.answers import gold_is_consistent, infer_problem_type, unwrap

logger = logging.getLogger(__name__)

#: Folders by the name of a split.
SPLITS = {"train": "train", "val": "val", "validation": "val", "test": "test"}
CHOICES = ("fill-in", "keep")
_DATA, _LOGIC = "data.json", "logic_form.json"
_IMAGE = "img_diagram.png"
#: The question, best first: with mathematics between dollars, without blanks within names of lines, as it was scanned.
_TEXTS = ("annotat_text", "compact_text", "problem_text")
_LETTERS = "ABCD"


def rows(
    split: str = "train", *, path: str, choices: str = "fill-in", facts: bool = False, check_images: bool = True
) -> Dataset:
    """The rows of a split, for `dataset` or `eval_dataset` in a recipe; what was kept and dropped goes to the log.

    Args:
        split: train, val (or validation), or test.
        path: the folder that holds them.
        choices: `fill-in` asks for the right option's text and shows no options; `keep` shows them and asks for the
            letter.
        facts: read `visual_facts` from the diagrams' annotations.
        check_images: open each image, and drop the rows of those that can't be used.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: no such split, another `choices`, a file that is no JSON, or no question becomes a row.
    """
    if split not in SPLITS:
        raise ValueError(f"Geometry3K has no split {split!r}: set dataset_split to {', '.join(SPLITS)}.")
    if choices not in CHOICES:
        raise ValueError(f"`choices` is {choices!r}: set it to {' or '.join(CHOICES)}.")
    folder = Path(path).expanduser() / SPLITS[split]
    if not folder.is_dir():
        raise FileNotFoundError(
            f"There is no folder {str(folder)!r} (looked at {str(folder.absolute())!r}): set `path` to the one that "
            "holds Geometry3K's train, val and test."
        )
    conversion = convert(folder, choices=choices, facts=facts, limits=ImageLimits() if check_images else None)
    logger.warning("%s: %s", folder, conversion.report())
    return rows_from_list(conversion.rows, "geometry3k")


def convert(
    folder: Path, *, choices: str = "fill-in", facts: bool = False, limits: ImageLimits | None = None
) -> Conversion:
    """Turn a split's folder into rows, in the order of the problems' numbers; see :func:`rows`.

    Raises:
        ValueError: a file that is no JSON, or no question becomes a row.
    """
    result = Conversion()
    candidates: list[tuple[dict[str, Any], str]] = []
    problems = [path for path in folder.iterdir() if (path / _DATA).is_file()]
    for problem in sorted(problems, key=lambda path: (not path.name.isdecimal(), path.name.zfill(12))):
        row_id = f"geometry3k-{problem.name}"
        try:
            candidates.append(_read_problem(problem, row_id, choices, facts))
        except Unusable as reason:
            result.drop(str(reason), row_id)
    result.add(candidates, limits)
    if not result.rows:
        raise ValueError(
            f"No question of {str(folder)!r} became a row: give a folder with one folder for each problem, with "
            f"{_DATA} and {_IMAGE} in it.\n{result.report()}"
        )
    return result


def _read_problem(folder: Path, row_id: str, choices: str, facts: bool) -> tuple[dict[str, Any], str]:
    """A row whose image is not opened yet, and as what it is kept."""
    record = _read_json(folder / _DATA)
    problem = next((text for key in _TEXTS if (text := str(record.get(key) or "").strip())), "")
    if not problem:
        raise Unusable("no question")
    options = record.get("compact_choices") or record.get("choices") or []
    letter = str(record.get("answer") or "").strip()
    if letter not in list(_LETTERS[: len(options)]):
        raise Unusable("the answer is none of the options")
    gold = unwrap(str(options[_LETTERS.index(letter)]))
    if choices == "keep":
        listed = [f"{name}. {option}" for name, option in zip(_LETTERS, options, strict=False)]
        problem, gold, problem_type = "\n".join([problem, *listed]), letter, "choice"
    else:
        problem_type = infer_problem_type(gold, problem)
    if not gold_is_consistent(gold, problem_type, problem):
        raise Unusable("the answer does not equal itself")
    row = {
        "id": row_id,
        "images": [find_image(_IMAGE, folder, None)],
        "problem": problem,
        "solution": gold,
        "problem_type": problem_type,
        "source": "geometry3k",
    }
    if not facts:
        return row, problem_type
    found = _read_json(folder / _LOGIC).get("diagram_logic_form") if (folder / _LOGIC).is_file() else None
    read = list(dict.fromkeys(text for fact in found or [] if (text := str(fact).strip())))
    return {**row, "visual_facts": read}, problem_type + ("" if read else "; no visual facts")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{str(path)!r} can't be read as JSON ({error}): fetch Geometry3K anew.") from error
    if not isinstance(loaded, dict):
        raise ValueError(f"{str(path)!r} holds a {type(loaded).__name__}, not an object: fetch Geometry3K anew.")
    return loaded
