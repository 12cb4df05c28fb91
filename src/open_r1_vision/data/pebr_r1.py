# SPDX-License-Identifier: Apache-2.0
"""PeBR-R1's published layout (arXiv 2509.13031): a JSON list of `qid`, `problem`, `answer`, `images`, `key_words`.

`images` are paths in a folder; `problem` marks their places with `<image>`. `key_words` need not be there: they are
not published, and `open_r1_vision.data.key_words` makes them. In a recipe:

    dataset: open_r1_vision.data.pebr_r1.rows
    dataset_options: {path: dataset/grpo/pebr_grpo_dataset.json, images: dataset/grpo}
"""

import logging
from pathlib import Path
from typing import Any

from datasets import Dataset

from open_r1_vision.data.conversion import Conversion, Unusable, find_image, repair_markers
from open_r1_vision.data.images import ImageLimits
from open_r1_vision.data.loading import read_json
from open_r1_vision.data.rows import rows_from_list

logger = logging.getLogger(__name__)

_KEYS = ("qid", "problem", "answer")


def rows(split: str = "train", *, path: str, images: str | None = None, check_images: bool = True) -> Dataset:
    """The rows of a file in this layout, for `dataset` in a recipe; what was kept and dropped goes to the log.

    Args:
        split: the file is whatever split is asked for.
        path: the JSON or JSONL file.
        images: the folder in which the images' paths start; by default that of the file.
        check_images: whether every image is opened; false only looks whether its file is there.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a row lacks a key, its key words are no strings, or no row is left.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(
            f"There is no file {path!r} (looked at {str(file.absolute())!r}): set `path` to PeBR-R1's JSON file."
        )
    folder = Path(images).expanduser() if images is not None else file.parent
    conversion = Conversion()
    candidates = []
    for number, record in enumerate(read_json(file)):
        try:
            candidates.append(_row(record, folder, f"{path!r}, row {number}"))
        except Unusable as reason:
            conversion.drop(str(reason), str(record["qid"]))
    conversion.add(candidates, ImageLimits() if check_images else None)
    if not conversion.rows:
        raise ValueError(
            f"No row of {path!r} is left. Set `images` (it is {images!r}) to the folder in which the images' paths "
            f"start.\n{conversion.report()}"
        )
    logger.warning("%s: %s", path, conversion.report())
    return rows_from_list(conversion.rows, "pebr_r1")


def _row(record: dict[str, Any], folder: Path, place: str) -> tuple[dict[str, Any], str]:
    empty = [key for key in _KEYS if record.get(key) is None or not str(record[key]).strip()]
    if empty:
        raise ValueError(
            f"{place}: {' and '.join(map(repr, empty))} must hold a text, but the row has "
            f"{', '.join(map(repr, record)) or 'no keys'}. Give a file in PeBR-R1's layout."
        )
    key_words = record.get("key_words") or []
    if not isinstance(key_words, list) or not all(isinstance(word, str) for word in key_words):
        raise ValueError(f"{place}: `key_words` is {key_words!r:.100}, but it must be a list of texts.")
    listed = record.get("images") or []
    paths = [find_image(image, folder, None) for image in ([listed] if isinstance(listed, str) else listed)]
    problem, kind = repair_markers(str(record["problem"]), len(paths))
    return {
        "id": str(record["qid"]),
        "images": paths,
        "problem": problem,
        "solution": str(record["answer"]).strip(),
        "key_words": key_words,
        "source": "pebr_r1",
    }, kind
