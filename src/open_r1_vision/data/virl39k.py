# SPDX-License-Identifier: Apache-2.0
r"""ViRL39K's published layout (arXiv 2504.08837), the training data of RACRO (arXiv 2506.04559).

One `39Krelease.parquet` of 38,870 rows: `question`, `answer` (`\boxed{A}`), `image` (a list of paths like
`images/<qid>-0.jpg`), `qid`, `source`, `category`, and how often two models were right, `PassRate_7BBase` and
`PassRate_32BTrained`. `images.zip` has to be unpacked beside it. In a recipe:

    dataset: open_r1_vision.data.virl39k.rows
    dataset_options: {path: ViRL39K/39Krelease.parquet}

Markers that are not as many as the images are removed, so that the images come first: RACRO's code puts one more in
front of them, which is right only where one is missing. As there, the text-only rows of DeepScaleR are left out; the
pass rates are not used unless asked for.
"""

import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from open_r1_vision.data.conversion import Conversion, Unusable, find_image, read_parquet, repair_markers
from open_r1_vision.data.images import ImageLimits
from open_r1_vision.data.rows import VIDEO_MARKER, rows_from_list
from open_r1_vision.rewards.answers import gold_is_consistent, infer_problem_type, unwrap
from open_r1_vision.rewards.boxes import extract_boxed
from open_r1_vision.rewards.choices import parse_options, same_choice

logger = logging.getLogger(__name__)

TEXT_ONLY_SOURCE = "DeepScaleR"
PASS_RATES = ("PassRate_7BBase", "PassRate_32BTrained")

_COLUMNS = ("question", "answer", "image", "qid", "source", "category", *PASS_RATES)
_IMAGES_FOLDER = "images/"
_BOX = "\\boxed"


def rows(
    split: str = "train",
    *,
    path: str,
    images: str | None = None,
    text_only_source: str = "drop",
    category: str | Sequence[str] | None = None,
    pass_rate: str = PASS_RATES[0],
    min_pass_rate: float | None = None,
    max_pass_rate: float | None = None,
    max_images: int | None = 8,
    check_images: bool = True,
) -> Dataset:
    """The rows of the published file, for `dataset` in a recipe; what was kept and dropped goes to the log.

    Args:
        split: the file is whatever split is asked for.
        path: the parquet file.
        images: the folder that holds `images`, or `images` itself; by default that of the file.
        text_only_source: see :func:`convert`, as for the other options.
        category: of which categories.
        pass_rate: the column that the next two limit.
        min_pass_rate: least pass rate.
        max_pass_rate: greatest pass rate.
        max_images: most images of a row.
        check_images: open each image, and drop the rows of those that can't be used; else a missing file alone is
            noticed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not in the layout, no question becomes a row, or an option can't be.
    """
    conversion = convert(
        read_parquet(path, _COLUMNS, layout="the 39Krelease.parquet of ViRL39K"),
        images or Path(path).expanduser().parent,
        text_only_source=text_only_source,
        category=category,
        pass_rate=pass_rate,
        min_pass_rate=min_pass_rate,
        max_pass_rate=max_pass_rate,
        max_images=max_images,
        limits=ImageLimits() if check_images else None,
    )
    logger.warning("%s: %s", path, conversion.report())
    return rows_from_list(conversion.rows, "virl39k")


def convert(
    records: Iterable[Mapping[str, Any]],
    images: str | Path,
    *,
    text_only_source: str = "drop",
    category: str | Sequence[str] | None = None,
    pass_rate: str = PASS_RATES[0],
    min_pass_rate: float | None = None,
    max_pass_rate: float | None = None,
    max_images: int | None = 8,
    limits: ImageLimits | None = None,
) -> Conversion:
    """Turn records of the published layout into rows.

    Args:
        records: the rows of the file.
        images: the folder in which the images' published paths start, or its subfolder `images`.
        text_only_source: `drop` leaves out the source DeepScaleR, as the authors do; `keep` keeps it.
        category: one or several of the file's categories; None takes all.
        pass_rate: one of `PASS_RATES`.
        min_pass_rate: least pass rate, in [0, 1]; a row that has none (or one below 0) is dropped if this or the
            next is set.
        max_pass_rate: greatest pass rate, in [0, 1].
        max_images: most images of a row; the authors' limit is 8, None sets none.
        limits: with it images are opened, and those that it refuses drop their row; else a missing file alone is
            noticed.

    Raises:
        ValueError: an option can't be what it is set to, a record is not in the layout, or no question becomes a row.
    """
    _check_options(text_only_source, pass_rate, min_pass_rate, max_pass_rate, max_images)
    wanted = None if category is None else {category} if isinstance(category, str) else set(category)
    low = 0.0 if min_pass_rate is None else min_pass_rate
    high = math.inf if max_pass_rate is None else max_pass_rate
    has_rate_limit = min_pass_rate is not None or max_pass_rate is not None
    folder = Path(images).expanduser()
    result, seen, categories = Conversion(), set[str](), Counter[str]()
    candidates: list[tuple[dict[str, Any], str]] = []
    for number, record in enumerate(records):
        row_id = str(record.get("qid") or f"virl39k-{number}")
        categories[str(record.get("category"))] += 1
        try:
            if row_id in seen:
                raise Unusable("an earlier row has the same id")
            seen.add(row_id)
            if text_only_source == "drop" and record.get("source") == TEXT_ONLY_SOURCE:
                raise Unusable(f"text only, of the source {TEXT_ONLY_SOURCE}")
            if wanted is not None and record.get("category") not in wanted:
                raise Unusable("of another category")
            if has_rate_limit:
                _check_rate(record.get(pass_rate), low, high)
            candidates.append(_read_record(record, row_id, number, folder, max_images))
        except Unusable as reason:
            result.drop(str(reason), row_id)
    result.add(candidates, limits)
    if not result.rows:
        raise ValueError(
            f"No question became a row. Unpack images.zip, set `images` (it is {str(images)!r}) to the folder in "
            f"which the images' paths start, and `category` (it is {category!r}) to some of those that the file has: "
            f"{', '.join(categories) or 'none'}.\n{result.report()}"
        )
    return result


def _check_options(
    text_only_source: str, pass_rate: str, low: float | None, high: float | None, max_images: int | None
) -> None:
    if text_only_source not in ("drop", "keep"):
        raise ValueError(f"`text_only_source` is {text_only_source!r}: set it to drop or keep.")
    if pass_rate not in PASS_RATES:
        raise ValueError(f"`pass_rate` is {pass_rate!r}: set it to one of {', '.join(PASS_RATES)}.")
    if not 0 <= (0 if low is None else low) <= (1 if high is None else high) <= 1:
        raise ValueError(
            f"`min_pass_rate` is {low} and `max_pass_rate` {high}, but pass rates lie in [0, 1]: set both within it, "
            "the first not above the second."
        )
    if max_images is not None and max_images < 1:
        raise ValueError(f"`max_images` is {max_images}: set at least 1, or null for no limit.")


def _check_rate(value: float | None, low: float, high: float) -> None:
    if value is None or not value >= 0:  # NaN is none
        raise Unusable("no pass rate")
    if not low <= value <= high:
        raise Unusable("pass rate out of range")


def _read_record(
    record: Mapping[str, Any], row_id: str, number: int, folder: Path, max_images: int | None
) -> tuple[dict[str, Any], str]:
    """A row whose images are not opened yet, and as what it is kept."""
    paths = record.get("image") if record.get("image") is not None else []
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise ValueError(
            f"Row {number} (qid {record.get('qid')!r}): `image` is {paths!r:.80}, but it must be a list of paths. "
            "Give a file in the layout of ViRL39K's 39Krelease.parquet."
        )
    if max_images is not None and len(paths) > max_images:
        raise Unusable(f"more than {max_images} images")
    problem, kind = repair_markers(str(record.get("question") or ""), len(paths))
    if not problem:
        raise Unusable("no question")
    if VIDEO_MARKER in problem:
        raise Unusable("a video marker in the question")
    solution, problem_type = _read_gold(str(record.get("answer") or ""), problem)
    row = {
        "id": row_id,
        "images": [_find(path, folder) for path in paths],
        "problem": problem,
        "solution": solution,
        "problem_type": problem_type,
        "source": record.get("source") or "virl39k",
        "category": record.get("category"),
        **{name: record.get(name) for name in PASS_RATES},
    }
    return row, kind


def _read_gold(answer: str, problem: str) -> tuple[str, str]:
    """The plain gold, of a choice its letter, and its problem type."""
    gold = unwrap(answer)
    if _BOX in gold:
        if gold.count(_BOX) > 1:
            raise Unusable("several boxes in the answer")
        gold = unwrap(extract_boxed(gold) or "")
    if not gold:
        raise Unusable("no answer")
    problem_type = infer_problem_type(gold, problem)
    if problem_type == "choice":
        options = parse_options(problem)
        letters = [letter for letter in options if same_choice(gold, letter, options)] or [gold.strip("().: ")]
        if options and letters[0] not in options:
            raise Unusable("the answer is none of the options")
        gold = letters[0]
    if not gold_is_consistent(gold, problem_type, problem):
        raise Unusable("the answer does not equal itself")
    return gold, problem_type


def _find(image: str, folder: Path) -> str:
    """The image where its published path leads from the folder, or from the one around it."""
    try:
        return find_image(image, folder, None)
    except Unusable:
        return find_image(image.removeprefix(_IMAGES_FOLDER), folder, None)
