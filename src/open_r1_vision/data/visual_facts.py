# SPDX-License-Identifier: Apache-2.0
"""Visual facts from reference reasoning: which rows, what a text model is asked, and what becomes of its replies.

Perception-R1 (arXiv 2506.07218) made its facts so, with a step that it did not publish. :mod:`annotate` runs this.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset, Features, List, Value, concatenate_datasets

from open_r1_vision.data.asking import ask_rows, list_schema
from open_r1_vision.data.checks import check_columns
from open_r1_vision.data.conversion import Conversion, image_fault
from open_r1_vision.data.images import ImageLimits
from open_r1_vision.data.replies import ReplyFile
from open_r1_vision.data.rows import IMAGE_MARKER, count_images
from open_r1_vision.reasoners import ReasonerConfig
from open_r1_vision.reasoners.fencing import fence, harmless
from open_r1_vision.rewards.answers import extract_answer, score_answer
from open_r1_vision.rewards.facts import facts_to_state

#: What a reply must be.
SCHEMA = list_schema("facts")


@dataclass(frozen=True)
class Task:
    """A row to annotate.

    Attributes:
        index: its place in the data set.
        row_id: its id.
        problem: its question.
        reasoning: its reference reasoning, as one text.
        kind: why it is taken.
    """

    index: int
    row_id: str
    problem: str
    reasoning: str
    kind: str


def select_tasks(
    dataset: Dataset,
    reasoning_column: str = "reasoning_steps",
    answer_column: str | None = None,
    keep_unanswered: bool = False,
) -> tuple[list[Task], Conversion]:
    """The rows whose reference reasoning can be relied on, and the others by reason.

    Args:
        dataset: in the row schema.
        reasoning_column: a list of texts, or one text.
        answer_column: where the answer stands that a reasoning without a final answer comes to.
        keep_unanswered: take rows without any such answer, too.

    Raises:
        ValueError: a column is missing.
    """
    extra = [reasoning_column, *([answer_column] if answer_column else [])]
    check_columns(dataset, {"annotate": extra})
    names = list(dict.fromkeys(["id", "problem", "solution", "problem_type", *extra]))
    tasks: list[Task] = []
    conversion, seen = Conversion(), set[str]()
    num_images, raw_images = count_images(dataset), dataset.select_columns(["images"]).with_format("arrow")
    for index, row in enumerate(dataset.select_columns(names).to_list()):
        reasoning = _as_text(row[reasoning_column])
        kind, reason = _judge_answer(row, reasoning, answer_column, keep_unanswered)
        if row["id"] in seen:
            reason = "an earlier row has the same id"
        elif not num_images[index]:
            reason = "no image"
        elif not reasoning:
            reason = "no reasoning"
        seen.add(row["id"])
        if reason is None:
            reason = image_fault(raw_images[index]["images"].to_pylist()[0], ImageLimits())
        if reason:
            conversion.drop(reason, row["id"])
        else:
            tasks.append(Task(index, row["id"], row["problem"], reasoning, kind))
    return tasks, conversion


def extraction_chat(problem: str, reasoning: str, system_prompt: str) -> list[dict[str, str]]:
    """The chat that asks for the visual facts of a row. Both texts stand in fences, so that neither can end itself."""
    problem = problem.replace(IMAGE_MARKER, " ").strip()
    parts = [
        fence(problem, "question", beside=harmless(reasoning)),
        f"{fence(reasoning, 'solution', beside=harmless(problem))} List the facts of the image, as JSON alone.",
    ]
    return [{"role": "system", "content": system_prompt}, {"role": "user", "content": "\n\n".join(parts)}]


def ask(
    tasks: Sequence[Task], system_prompt: str, replies: ReplyFile, config: ReasonerConfig
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Facts as the reasoner lists them, and why there are none, by row id; see :func:`asking.ask_rows`."""
    chats = {task.row_id: extraction_chat(task.problem, task.reasoning, system_prompt) for task in tasks}
    return ask_rows(chats, "facts", replies, config, "Listing facts")


def add_facts(
    dataset: Dataset,
    tasks: Sequence[Task],
    facts: Mapping[str, list[str]],
    failures: Mapping[str, str],
    conversion: Conversion,
    max_facts: int = 8,
) -> tuple[Dataset, str]:
    """The rows that have facts, with the column `visual_facts`, and what became of all rows and facts.

    Raises:
        ValueError: no row has facts.
    """
    num_listed = num_told = 0
    for task in tasks:
        if task.row_id in failures:
            conversion.drop(f"no reply: {failures[task.row_id].partition(':')[0]}", task.row_id)
            continue
        listed = [" ".join(fact.split()) for fact in facts[task.row_id]]
        state = facts_to_state([fact for fact in listed if fact], task.problem)
        num_listed, num_told = num_listed + len(listed), num_told + len(state)
        if state:
            conversion.kept[task.kind] += 1
            conversion.rows.append({"index": task.index, "visual_facts": state[:max_facts]})
        else:
            conversion.drop("no facts" if not listed else "no facts but those of the question", task.row_id)
    if not conversion.rows:
        raise ValueError(f"No row has visual facts.\n{conversion.report()}")
    num_kept = sum(len(row["visual_facts"]) for row in conversion.rows)
    report = (
        f"{conversion.report()}\n{num_kept} facts, {num_kept / len(conversion.rows):.1f} a row. Left out: "
        f"{num_listed - num_told} that repeat others or the question, "
        f"{num_told - num_kept} over max_facts {max_facts}."
    )
    column = Dataset.from_dict(
        {"visual_facts": [row["visual_facts"] for row in conversion.rows]},
        features=Features({"visual_facts": List(Value("string"))}),
    )
    kept = dataset.select([row["index"] for row in conversion.rows])
    if "visual_facts" in kept.column_names:
        kept = kept.remove_columns("visual_facts")
    return concatenate_datasets([kept, column], axis=1), report


def _judge_answer(
    row: Mapping[str, Any], reasoning: str, answer_column: str | None, keep_unanswered: bool
) -> tuple[str, str | None]:
    """As what a row is kept, or why it is not."""
    answer, place = extract_answer(reasoning) or extract_answer(reasoning, "boxed"), "its reasoning"
    if answer is None and answer_column is not None:
        text = _as_text(row[answer_column])
        answer, place = extract_answer(text) or extract_answer(text, "boxed") or text or None, f"`{answer_column}`"
    if answer is None:
        return "no answer, unchecked", None if keep_unanswered else "no answer"
    is_right = score_answer(answer, row["solution"] or "", row["problem_type"], problem=row["problem"]) == 1
    return f"{place} has the right answer", None if is_right else f"{place} has a wrong answer"


def _as_text(value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(str(item) for item in value).strip()
    return "" if value is None else str(value).strip()
