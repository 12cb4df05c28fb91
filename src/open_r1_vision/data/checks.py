# SPDX-License-Identifier: Apache-2.0
"""Checks of a data set before training: one pass over the rows, each failure attributed to its row.

| check | what is wrong with the row |
|---|---|
| `empty column` | a column that this recipe needs holds nothing |
| `duplicate id` | an earlier row has the same id |
| `image unreadable` | missing, corrupt or truncated image |
| `image too small` | a side is shorter than `min_side` |
| `image too large` | more than `max_pixels`: a decompression bomb, or close to one |
| `image too narrow` | sides in a ratio that processors refuse |
| `image markers` | the `<image>` markers are not as many as the images |
| `image token` | the text spells the model's own image or video token, which then lacks an image |
| `prompt refused` | the processor raises an error on the prompt |
| `prompt too long` | more tokens than `max_prompt_tokens`, image tokens counted |
| `problem type` | not one of the types that rewards can grade |
| `gold markup` | the gold holds answer tags or a box |
| `gold fails itself` | the gold, given as the answer, does not earn full marks |
"""

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import PIL.Image
from datasets import Dataset
from tqdm import tqdm

from open_r1_vision.data.images import Finding, ImageLimits, open_images
from open_r1_vision.data.rows import OPTIONAL_COLUMNS, to_messages
from open_r1_vision.rewards.answers import PROBLEM_TYPES, gold_is_consistent

_SCHEMA = ("id", "images", "problem", "solution", "problem_type")
_MARKUP = re.compile(r"</?(?:answer|think|info)>|\\(?:boxed|fbox)\b")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with one row.

    Attributes:
        row_id: the row's id.
        check: name of the check, see the module's table.
        message: what was found.
        index: position of the row, for rows whose id is not unique.
    """

    row_id: str
    check: str
    message: str
    index: int


@dataclass
class Inspection:
    """What a pass over a data set found.

    Attributes:
        problems: in the order of the rows.
        num_rows: rows seen.
        images_per_row: one count per row.
        prompt_tokens: one length per row whose prompt could be built; empty without a processor.
    """

    problems: list[Problem] = field(default_factory=list)
    num_rows: int = 0
    images_per_row: list[int] = field(default_factory=list)
    prompt_tokens: list[int] = field(default_factory=list)

    def good_rows(self) -> list[int]:
        """Positions of the rows without a problem."""
        bad = {problem.index for problem in self.problems}
        return [index for index in range(self.num_rows) if index not in bad]


def check_rows(dataset: Dataset, **options: Any) -> list[Problem]:
    """The problems of a data set in the row schema; the options are those of :func:`inspect_rows`."""
    return inspect_rows(dataset, **options).problems


def inspect_rows(
    dataset: Dataset,
    *,
    processor: Any = None,
    system_prompt: str | None = None,
    user_prompt: str | None = None,
    max_prompt_tokens: int | None = None,
    required_columns: Iterable[str] = (),
    limits: ImageLimits | None = None,
) -> Inspection:
    """Check every row; a broken image is a finding, never an error.

    Args:
        dataset: in the row schema.
        processor: the model's own, to count prompt tokens; without it prompts are not counted.
        system_prompt: what the recipe puts before each problem.
        user_prompt: the recipe's template around each problem.
        max_prompt_tokens: longest prompt, image tokens included; None counts without refusing.
        required_columns: what the recipe needs beyond `id`, `images`, `problem`, `solution` and `problem_type`.
        limits: which images are refused.

    Raises:
        ValueError: a column is missing altogether.
    """
    columns = tuple(dict.fromkeys((*_SCHEMA, *required_columns)))
    check_columns(dataset, {"the recipe": columns})
    result, first_seen = Inspection(), {}  # type: Inspection, dict[str, int]
    for index, row in enumerate(_iterate_raw(dataset, columns, "Checking rows")):
        findings = [("empty column", f"`{name}` is empty") for name in columns if _is_empty(name, row[name])]
        if first_seen.setdefault(row["id"], index) != index:
            findings.append(("duplicate id", f"row {first_seen[row['id']]} has this id too"))
        findings += _check_gold(row)
        images, image_findings = open_images(row["images"] or [], limits or ImageLimits())
        findings += image_findings
        try:
            prompt = to_messages({**row, "problem": row["problem"] or ""}, system_prompt, user_prompt)
        except ValueError as error:
            findings.append(("image markers", str(error)))
        else:
            if processor is not None and not image_findings:
                tokens, prompt_findings = check_prompt(prompt, images, processor, max_prompt_tokens)
                findings += prompt_findings
                result.prompt_tokens += [tokens] if tokens is not None else []
        result.problems += [Problem(row["id"], check, message, index) for check, message in findings]
        result.images_per_row.append(len(row["images"] or []))
        result.num_rows += 1
    return result


def check_columns(dataset: Dataset, required: Mapping[str, Iterable[str]]) -> None:
    """Refuse a data set that lacks a column, or has an optional one in which every row's list is empty.

    Args:
        dataset: images are not read.
        required: who needs columns (a reward's or trainer's name), and which.

    Raises:
        ValueError: names the columns that are missing, who needs them, and the columns that are there.
    """
    names = set(dataset.column_names)
    missing = {user: [name for name in columns if name not in names] for user, columns in required.items()}
    if any(missing.values()):
        lacks = "; ".join(
            f"{user} needs {', '.join(map(repr, columns))}" for user, columns in missing.items() if columns
        )
        raise ValueError(
            f"The data set lacks columns: {lacks}. It has {', '.join(map(repr, dataset.column_names))}. Rename a "
            "column, take a data set that has it, or drop from the recipe what needs it."
        )
    for user, columns in required.items():
        for name in columns:
            if name in OPTIONAL_COLUMNS and len(dataset) and not any(dataset[name]):
                raise ValueError(
                    f"{user} needs {name!r}, which is empty in each of the {len(dataset)} rows: take a data set that "
                    "has it, or drop from the recipe what needs it."
                )


def count_prompt_tokens(prompt: list[dict[str, Any]], images: list[PIL.Image.Image], processor: Any) -> int:
    """The length of a prompt after the processor has expanded its images, counted as TRL tokenizes it."""
    from trl.data_utils import prepare_multimodal_messages

    tokenized = processor.apply_chat_template(
        conversation=[prepare_multimodal_messages(prompt, images)],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
    )
    return len(tokenized["input_ids"][0])


def _iterate_raw(dataset: Dataset, columns: Sequence[str], title: str) -> Iterator[dict[str, Any]]:
    """The rows with their images as `{"bytes", "path"}`, under a progress bar."""
    batches = dataset.select_columns(list(columns)).with_format("arrow").iter(batch_size=32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)  # the limit is ours
        yield from tqdm((row for batch in batches for row in batch.to_pylist()), title, len(dataset), disable=None)


def _is_empty(name: str, value: Any) -> bool:
    if name in ("images", *OPTIONAL_COLUMNS):
        return False  # a row may be text only, and a reward leaves rows without facts or key words out
    return value is None or value == [] or (isinstance(value, str) and not value.strip())


def _check_gold(row: Mapping[str, Any]) -> Iterator[Finding]:
    gold, problem_type = row["solution"] or "", row["problem_type"]
    if problem_type not in PROBLEM_TYPES:
        yield "problem type", f"{problem_type!r} is not one of {', '.join(PROBLEM_TYPES)}"
    elif _MARKUP.search(gold):
        yield "gold markup", f"the gold {gold[:60]!r} holds tags or a box: store the plain answer"
    elif gold.strip() and not gold_is_consistent(gold, problem_type, row["problem"] or ""):
        yield "gold fails itself", f"{gold[:60]!r} as the answer does not earn full marks as a {problem_type!r} gold"


def check_prompt(
    prompt: list[dict[str, Any]], images: list[PIL.Image.Image], processor: Any, max_prompt_tokens: int | None
) -> tuple[int | None, list[Finding]]:
    """The length of a prompt, where it could be measured, and what is wrong with it."""
    text = "".join(part.get("text") or "" for message in prompt for part in message["content"])
    for token in (getattr(processor, name, None) for name in ("image_token", "video_token")):
        if token and token in text:
            return None, [("image token", f"the text holds the model's token {token!r}: write it in another way")]
    try:
        tokens = count_prompt_tokens(prompt, images, processor)
    except (ValueError, TypeError, RuntimeError, StopIteration) as error:
        return None, [("prompt refused", f"the processor raises {type(error).__name__}: {error}")]
    if max_prompt_tokens is None or tokens <= max_prompt_tokens:
        return tokens, []
    return tokens, [("prompt too long", f"{tokens} tokens, images included; max_prompt_tokens is {max_prompt_tokens}")]
