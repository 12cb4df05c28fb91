# SPDX-License-Identifier: Apache-2.0
"""LLaVA-CoT-100k's published layout (arXiv 2411.10440), the training data of Hint-GRPO (arXiv 2503.23905).

Each line of its JSONL file has an `id`, an `image`, and `conversations` of turns with a `value`, in which every
question is followed by a reply in the sections SUMMARY, CAPTION, REASONING and CONCLUSION. Each such pair becomes a
row: the reasoning its `reasoning_steps` (see :mod:`open_r1_vision.data.steps`), the conclusion its gold, the first
folder of the image its `source`. In a recipe:

    dataset: open_r1_vision.data.llava_cot.rows
    dataset_options: {path: LLaVA-CoT-100k/train.jsonl, images: LLaVA-CoT-100k}

A multiple-choice question becomes one to fill in where nothing can be lost by it: the conclusion is an option's
letter, its letter and text, or its text; that option is a number or a constant like `8√{3}`; the options end the
question, but for an instruction to answer by letter; and the question does not speak of them ("which of the
following"). Else the row stays a choice. Hint-GRPO's code takes any reply with one capital A to D for a letter ("The
angle A is 40") and cuts the question at the first such letter before a full stop ("…, find AB.").
"""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from datasets import Dataset

from open_r1_vision.data.conversion import Conversion, Unusable, find_image
from open_r1_vision.data.images import ImageLimits
from open_r1_vision.data.loading import read_json
from open_r1_vision.data.rows import IMAGE_MARKER, rows_from_list
from open_r1_vision.data.steps import check_way, split_steps
from open_r1_vision.rewards.answers import gold_is_consistent, infer_problem_type, unwrap
from open_r1_vision.rewards.choices import is_letter, same_choice, split_options
from open_r1_vision.rewards.math_answers import is_constant
from open_r1_vision.rewards.numbers import parse_number
from open_r1_vision.rewards.tags import extract_section

logger = logging.getLogger(__name__)

#: The parts that Hint-GRPO trains on.
GEOMETRY = ("geoqa+", "CLEVR_v1.0")
CHOICES = ("fill-in", "keep")

_ROLES = ({"human", "user"}, {"gpt", "assistant"})
_ANNOUNCED = re.compile(
    r"(?:(?:so|thus|hence|therefore),?\s+)?(?:the\s+)?(?:correct\s+|right\s+|final\s+)?(?:answer|option|choice)"
    r"(?:\s+is|\s*:)\s*:?\s*(?:option\s+|choice\s+)?(.+)",
    re.IGNORECASE,
)
_OPTION_LIKE = re.compile(r"\([A-Z]\)|[A-Z][).:]\s")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")
_HAS_NUMBER = re.compile(r"\d|π|\\pi|√|\\sqrt")

_HINT = re.compile(r"\s*Hint:[^\n]*\b(?:option|choice|letter)\b[^\n]*\n\s*(?:Question:)?", re.IGNORECASE)
_HEADER = re.compile(
    r"(?:^|\n|(?<=[.?!:)])\s)\s*(?:the\s+)?(?:answer\s+)?(?:choices|options)(?:\s+are)?\s*[:：]?\s*$", re.IGNORECASE
)
_INSTRUCTION = re.compile(
    r"\s*(?:please\s+)?(?:answer|respond|reply|provide|give|write|output|select|choose|pick)\b[^\n]*"
    r"\b(?:letter|directly|(?:given|correct|right)\s+(?:option|choice|answer))\b[^\n]*",
    re.IGNORECASE,
)
#: A question that has one answer only among its options.
_SPEAKS_OF_OPTIONS = re.compile(
    r"\b(?:which|what|one|any|none|all|some) of (?:the following|these|those|the (?:above|options|choices))"
    r"|\b(?:following|given|below)\s+(?:four\s+)?(?:options?|choices?|statements?|conclusions?|propositions?|judg\w+"
    r"|values?|numbers?|answers?|expressions?|formulas?|equations?|relations?\w*|conditions?)"
    r"|\b(?:among|from) the following|\b(?:option|choice|statement|proposition|letter)s?\b|\bmultiple.choice"
    r"|\b(?:in)?correct (?:one|answer)|\bclosest to\b"
    r"|\b(?:can|can ?not|could|may|might)(?: not)?(?: only)? be(?: equal to)?\s*:?\s*(?:[(_?（]|$)",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.?!:)）。？：]\s*$")


class _Answer(NamedTuple):
    problem: str
    solution: str
    problem_type: str
    kept_as: str


def rows(
    split: str = "train",
    *,
    path: str,
    images: str | None = None,
    parts: str | Sequence[str] = GEOMETRY,
    steps: str = "auto",
    choices: str = "fill-in",
    numbers_only: bool = True,
) -> Dataset:
    """The rows of a published file, for `dataset` in a recipe; what was kept and dropped goes to the log.

    Args:
        split: the file is whatever split is asked for.
        path: the JSONL file.
        images: the folder in which the images' published paths start; by default that of the file.
        parts: see :func:`convert`, as for the other options.
        steps: how the reasoning is split.
        choices: what becomes of multiple-choice questions.
        numbers_only: whether an answer has to hold a number.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not in the layout, no question becomes a row, or an option is not known.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(
            f"There is no file {path!r} (looked at {str(file.absolute())!r}): set `path` to the train.jsonl of "
            "LLaVA-CoT-100k."
        )
    conversion = convert(
        read_json(file), images or file.parent, parts=parts, steps=steps, choices=choices, numbers_only=numbers_only
    )
    logger.warning("%s: %s", path, conversion.report())
    return rows_from_list(conversion.rows, "llava_cot")


def convert(
    records: Iterable[Mapping[str, Any]],
    images: str | Path,
    *,
    parts: str | Sequence[str] = GEOMETRY,
    steps: str = "auto",
    choices: str = "fill-in",
    numbers_only: bool = True,
    limits: ImageLimits | None = None,
) -> Conversion:
    """Turn records of the published layout into rows.

    Args:
        records: the objects of the file.
        images: the folder in which the images' published paths start.
        parts: first folders of the images whose records are read, or `all`.
        steps: how the reasoning is split, see :func:`open_r1_vision.data.steps.split_steps`.
        choices: `fill-in` makes questions to fill in where that is safe, `keep` leaves all as they are.
        numbers_only: drop a question whose answer holds no number, unless it stays a choice.
        limits: with it images are opened, and those that it refuses dropped; else a missing file alone is noticed.

    Raises:
        ValueError: an option has a value that is not known, a record is not in the layout, or no question becomes a
            row.
    """
    check_way(steps)
    if choices not in CHOICES:
        raise ValueError(f"`choices` is {choices!r}: set it to one of {', '.join(CHOICES)}.")
    wanted = None if parts == "all" else {parts} if isinstance(parts, str) else set(parts)
    folder = Path(images).expanduser()
    result, used, seen_parts = Conversion(), Counter[str](), Counter[str]()
    for number, record in enumerate(records):
        part = _part(record, number)
        for question, reply in _pairs(record):
            row_id = _unique(str(record.get("id") or f"llava_cot-{number}"), used)
            seen_parts[part] += 1
            try:
                if wanted is not None and part not in wanted:
                    raise Unusable("of another part")
                answer, reasoning = _read_pair(question, reply, choices == "fill-in", numbers_only)
                image = find_image(record["image"], folder, limits)
            except Unusable as reason:
                result.drop(str(reason), row_id)
                continue
            result.kept[answer.kept_as] += 1
            result.rows.append(
                {
                    "id": row_id,
                    "images": [image],
                    "problem": answer.problem,
                    "solution": answer.solution,
                    "problem_type": answer.problem_type,
                    "source": part,
                    "reasoning_steps": split_steps(reasoning, steps),
                }
            )
    if not result.rows:
        raise ValueError(
            f"No question became a row. Set `images` (it is {str(images)!r}) to the folder in which the images' paths "
            f"start, and `parts` (it is {parts!r}) to some of those that the file holds: "
            f"{', '.join(seen_parts) or 'none'}.\n{result.report()}"
        )
    return result


def _part(record: Mapping[str, Any], number: int) -> str:
    image, turns = record.get("image"), record.get("conversations")
    if not isinstance(image, str) or not isinstance(turns, list):
        raise ValueError(
            f"Record {number} (id {record.get('id')!r}) has the keys {', '.join(map(repr, record))}, but `image` must "
            "be a path and `conversations` a list of turns. Give a file in the layout of LLaVA-CoT-100k's train.jsonl."
        )
    return image.removeprefix("./").partition("/")[0]


def _pairs(record: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    """Each question with its reply; None where the turns don't alternate."""
    turns = record["conversations"]
    for position in range(0, len(turns), 2):
        pair = turns[position : position + 2]
        in_order = len(pair) == 2 and all(
            turn.get("from") is None or turn["from"] in roles for turn, roles in zip(pair, _ROLES, strict=True)
        )
        yield str(pair[0].get("value") or ""), str(pair[1].get("value") or "") if in_order else None


def _unique(name: str, used: Counter[str]) -> str:
    """The record's own id for its first question, then `name-2`, `name-3`, …, also where records share an id."""
    row_id = name
    while row_id in used:
        used[name] += 1
        row_id = f"{name}-{used[name]}"
    used[row_id] = 1
    return row_id


def _read_pair(question: str, reply: str | None, fill_in: bool, numbers_only: bool) -> tuple[_Answer, str]:
    if reply is None:
        raise Unusable("no reply follows the question")
    question = question.strip().removeprefix(IMAGE_MARKER).removesuffix(IMAGE_MARKER).strip()
    if not question:
        raise Unusable("no question")
    reasoning, conclusion = extract_section(reply, "REASONING"), extract_section(reply, "CONCLUSION")
    if reasoning is None or conclusion is None:
        raise Unusable(f"no {'REASONING' if reasoning is None else 'CONCLUSION'} section")
    answer = _read_answer(question, conclusion, fill_in, numbers_only)
    if not gold_is_consistent(answer.solution, answer.problem_type, answer.problem):
        raise Unusable("the answer does not equal itself")
    return answer, reasoning


def _read_answer(question: str, conclusion: str, fill_in: bool, numbers_only: bool) -> _Answer:
    before, options, behind = split_options(question)
    gold = _plain_answer(conclusion, options)
    letter = next((letter for letter in options if same_choice(gold, letter, options)), None)
    if letter is not None:
        why_not = _why_not_fill_in(before, options, behind, letter) if fill_in else "as asked"
        if why_not:
            return _Answer(question, letter, "choice", f"choice: {why_not}")
        value = unwrap(options[letter]).rstrip(" .;")
        return _Answer(_without_frame(before), value, _type_of_constant(value), "fill-in, made from a choice")
    if is_constant(gold):
        if options:
            raise Unusable("the answer is none of the options")
        return _Answer(question, gold, _type_of_constant(gold), "number or constant")
    if is_letter(gold) or _OPTION_LIKE.match(gold):
        if options:
            raise Unusable("the answer is none of the options")
        return _Answer(question, gold, "choice", "choice: the question lists no options")
    if numbers_only and not _HAS_NUMBER.search(gold):
        raise Unusable("no number in the answer")
    kind = "text" if len(_WORD.findall(gold)) > 1 else infer_problem_type(gold)
    return _Answer(question, gold, kind, "a sentence, compared as text" if kind == "text" else kind)


def _plain_answer(conclusion: str, options: Mapping[str, str]) -> str:
    """The conclusion without "the answer is", where a letter, an option or a number follows; else as it is."""
    text = unwrap(conclusion)
    match = _ANNOUNCED.fullmatch(text)
    for candidate in (text, unwrap(match[1].rstrip(" .")) if match else ""):
        plain = candidate.rstrip(" .")
        names_option = any(same_choice(candidate, letter, dict(options)) for letter in options)
        if plain and (names_option or is_constant(plain) or is_letter(plain)):
            return plain
    return text


def _type_of_constant(text: str) -> str:
    return "number" if parse_number(text) is not None else "math"


def _why_not_fill_in(before: str, options: Mapping[str, str], behind: str, letter: str) -> str | None:
    """Why a choice can't become a question to fill in; None where it can."""
    if not is_constant(unwrap(options[letter]).rstrip(" .;")):
        return "its option is no number"
    if not all(_INSTRUCTION.fullmatch(line) for line in behind.splitlines() if line.strip()):
        return "more words follow the options"
    question = _without_frame(before)
    if not question:
        return "no words before the options"
    if _SPEAKS_OF_OPTIONS.search(question):
        return "the question speaks of its options"
    is_block = before.rstrip(" \t").endswith("\n")
    if not is_block and not (_SENTENCE_END.search(before) and all(map(is_constant, options.values()))):
        return "its options stand within a sentence"
    return None


def _without_frame(before: str) -> str:
    """The question itself, without a header of its options or a hint to answer by letter."""
    hint = _HINT.match(before)
    return _HEADER.sub("", before[hint.end() :] if hint else before).strip()
