# SPDX-License-Identifier: Apache-2.0
"""Mulberry-SFT's published layout (arXiv 2412.18319), the warm-up data of PeBR-R1 (arXiv 2509.13031).

A JSON list of objects with `messages`, turns of `role` and `content` with `<image>` markers in them, and `images`,
paths in a folder (a single one may stand without a list). Each reply becomes a lesson: the turns before it are its
`prompt`, itself the `completion`. In a recipe of `open_r1_vision.sft`:

    dataset: open_r1_vision.data.mulberry.rows
    dataset_options: {path: mulberry_sft.json, images: Mulberry-SFT}

As PeBR-R1's filter does, it drops conversations in which a reply takes a step back ("let me rethink it"), those whose
image is missing or can't be opened, and those with an image under 28 pixels wide or high. Lessons without an image
stay. What was kept and dropped, and why, goes to the log.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Image, List, Value

from open_r1_vision.data.conversion import Conversion, Unusable, find_image, repair_markers
from open_r1_vision.data.images import ImageLimits, encode_images
from open_r1_vision.data.loading import read_json
from open_r1_vision.data.rows import IMAGE_MARKER, VIDEO_MARKER, to_messages
from open_r1_vision.rewards.headers import has_sections_in_order

logger = logging.getLogger(__name__)

#: What a reply says that corrects itself.
REFLECTION = "let me rethink it"
_MESSAGES = List({"role": Value("string"), "content": List({"type": Value("string"), "text": Value("string")})})
#: Columns of lessons.
FEATURES = Features(
    {
        "id": Value("string"),
        "images": List(Image()),
        "prompt": _MESSAGES,
        "completion": _MESSAGES,
        "source": Value("string"),
    }
)


def rows(
    split: str = "train",
    *,
    path: str,
    images: str | None = None,
    source: str = "mulberry",
    drop_reflective: bool = True,
    check_sections: bool = False,
    check_images: bool = True,
    min_side: int = 28,
) -> Dataset:
    """The lessons of a file in this layout, for `dataset` in a recipe of `open_r1_vision.sft`.

    Args:
        split: the file is whatever split is asked for.
        path: the JSON or JSONL file.
        images: the folder in which the images' paths start; by default that of the file.
        source: names the lessons, and the ids of those that have none.
        drop_reflective: see :func:`convert`.
        check_sections: see :func:`convert`.
        check_images: whether every image is opened; false only looks whether its file is there.
        min_side: images with a shorter side drop their conversation; only with `check_images`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not in the layout, or nothing in it becomes a lesson.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(
            f"There is no file {path!r} (looked at {str(file.absolute())!r}): set `path` to the JSON file of "
            "Mulberry-SFT, or of another set in its layout."
        )
    conversion = convert(
        read_json(file),
        images or file.parent,
        source=source,
        drop_reflective=drop_reflective,
        check_sections=check_sections,
        limits=ImageLimits(min_side=min_side) if check_images else None,
    )
    logger.warning("%s: %s", path, conversion.report())
    return build_dataset(conversion.rows)


def convert(
    records: Iterable[Mapping[str, Any]],
    images: str | Path,
    *,
    source: str = "mulberry",
    drop_reflective: bool = True,
    check_sections: bool = False,
    limits: ImageLimits | None = None,
) -> Conversion:
    """Lessons from conversations, with the paths of their images.

    Args:
        records: objects of the file.
        images: the folder in which the images' paths start.
        source: names the lessons, and the ids of those that have none.
        drop_reflective: whether conversations with a reply that rethinks are dropped.
        check_sections: whether replies must keep to the sections that `sections_format_reward` asks for.
        limits: which images are refused; None only looks whether their files are there.

    Raises:
        ValueError: a record has no messages, or no record becomes a lesson.
    """
    folder = Path(images).expanduser()
    conversion = Conversion()
    candidates = []
    for index, record in enumerate(records):
        row_id = str(record["id"]) if record.get("id") is not None else f"{source}-{index}"
        messages = _messages(record, row_id)
        try:
            if drop_reflective and any(REFLECTION in text.lower() for role, text in messages if role == "assistant"):
                raise Unusable("reply rethinks")
            paths = [find_image(image, folder, None) for image in _images(record, row_id)]
            for number, (lesson, kind) in enumerate(_lessons(messages, paths, check_sections), start=1):
                lesson_id = row_id if number == 1 else f"{row_id}-{number}"
                candidates.append(({"id": lesson_id, "source": source, **lesson}, kind))
        except Unusable as reason:
            conversion.drop(str(reason), row_id)
    conversion.add(candidates, limits)
    if not conversion.rows:
        raise ValueError(
            f"No conversation became a lesson. Set `images` (it is {str(images)!r}) to the folder in which the "
            f"images' paths start.\n{conversion.report()}"
        )
    return conversion


def build_dataset(lessons: list[dict[str, Any]]) -> Dataset:
    """Lessons with the paths of their images as a data set."""
    columns = {name: [lesson[name] for lesson in lessons] for name in FEATURES}
    columns["images"] = [encode_images(paths, ".") for paths in columns["images"]]
    return Dataset.from_dict(columns, features=FEATURES)


def _messages(record: Mapping[str, Any], row_id: str) -> list[tuple[str, str]]:
    messages = record.get("messages")
    if not isinstance(messages, list) or not all(
        isinstance(turn, dict) and isinstance(turn.get("content"), str) for turn in messages
    ):
        raise ValueError(
            f"The conversation {row_id!r} has the keys {', '.join(map(repr, record))}, but `messages` must be a list "
            "of turns with `role` and `content`, which is a text. Give a file in the layout of Mulberry-SFT."
        )
    return [(str(turn.get("role")), turn["content"]) for turn in messages]


def _images(record: Mapping[str, Any], row_id: str) -> list[str]:
    images = record.get("images")
    listed = [images] if isinstance(images, str) else images or []
    if not isinstance(listed, list) or not all(isinstance(image, str) for image in listed):
        raise ValueError(f"The conversation {row_id!r} has the images {images!r:.80}: give a list of paths.")
    return listed


def _lessons(
    messages: list[tuple[str, str]], paths: list[str], check_sections: bool
) -> Iterator[tuple[dict[str, Any], str]]:
    """A lesson for each reply, and what was done to its image markers.

    Raises:
        Unusable: there is no reply that could be learned.
    """
    if any(VIDEO_MARKER in text for _, text in messages):
        raise Unusable("video")
    roles = [role for role, _ in messages if role != "system"]
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
        raise Unusable("turns out of order")
    if any(not text.strip() for role, text in messages if role == "assistant"):
        raise Unusable("empty reply")
    if check_sections and not all(has_sections_in_order(text) for role, text in messages if role == "assistant"):
        raise Unusable("reply not in sections")
    questions = [text for role, text in messages if role == "user"]
    counts = [question.count(IMAGE_MARKER) for question in questions]
    _, kind = repair_markers(" ".join(questions), len(paths))
    if sum(counts) != len(paths):
        questions = [repair_markers(question, 0)[0] for question in questions]
        counts = [len(paths)] + [0] * (len(questions) - 1)
    prompt: list[dict[str, Any]] = []
    num_images = turn = 0
    for role, text in messages:
        if role == "user":
            num_images += counts[turn]
            prompt = prompt + to_messages({"problem": questions[turn], "images": [None] * counts[turn]})
            turn += 1
        else:
            message = {"role": role, "content": [{"type": "text", "text": text.strip()}]}
            if role == "assistant":
                yield {"images": paths[:num_images], "prompt": prompt, "completion": [message]}, kind
            prompt = [*prompt, message]
