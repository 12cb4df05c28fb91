# SPDX-License-Identifier: Apache-2.0
"""Lessons of the starter's warm-up: easy pages with their captions and reasoning, and lessons without an image.

Half of the lessons have no image. In some of them the page is typed into the question, and the answer has the form of
an answer to a real page. In the others the model plays the reader of captions: it answers from a caption, or says
"Not a description" where the caption goes further than the page. Both are as long as hard pages and longer, so that
the model learns to reason over more objects than it has seen on a page; what is left to RL is to see that many.
"""

import random

from datasets import Dataset, concatenate_datasets

from open_r1_vision.prompts import load_prompt
from open_r1_vision.reasoners.captions import NOT_A_DESCRIPTION, reader_messages
from open_r1_vision.starter import digits, figures
from open_r1_vision.starter.page import LONGEST_CAPTION, Question, draw_cells, write_steps

#: Of the lessons; the others show a page.
READING_SHARE = 0.3
TYPED_SHARE = 0.2
#: Of the pages; the others are digits.
FIGURES_SHARE = 1 / 3
#: Of the reading lessons; the others have an answer.
NOT_A_DESCRIPTION_SHARE = 0.3


def rows(split: str = "train", count: int = 24000, seed: int = 0) -> Dataset:
    """Prompt-completion rows for TRL's SFTTrainer: columns `images`, `prompt`, `completion`.

    Args:
        split: `train`, or `test` for other lessons of the same kind.
        count: number of rows.
        seed: another seed gives other lessons.
    """
    if split not in ("train", "test"):
        raise ValueError(f"Unknown split {split!r} of the warm-up: choose train or test.")
    seed = 2 * seed + (split == "test")
    num_reading, num_typed = int(count * READING_SHARE), int(count * TYPED_SHARE)
    num_pages = count - num_reading - num_typed
    num_figures = int(num_pages * FIGURES_SHARE)
    pages = concatenate_datasets(
        [digits.rows("warm_up", num_pages - num_figures, seed), figures.rows("warm_up", num_figures, seed)]
    )
    pages = pages.map(_page_lesson, remove_columns=[name for name in pages.column_names if name != "images"])
    rng = random.Random(f"text-{seed}")
    texts = [_reading_lesson(rng) for _ in range(num_reading)] + [_typed_lesson(rng) for _ in range(num_typed)]
    return concatenate_datasets([pages, Dataset.from_list(texts).cast(pages.features)]).shuffle(seed=seed)


def write_completion(caption: str, steps: list[str], solution: str) -> str:
    """What the policy should say about a page."""
    return f"{' '.join(write_steps(caption, steps))}</think> <answer> {solution}</answer>"


def write_answer(steps: list[str], solution: str) -> str:
    """What the policy should say when it reads a caption instead of seeing the page."""
    return f"<think> {' '.join(steps)}</think> <answer> {solution}</answer>"


def draw_caption(rng: random.Random) -> tuple[str, Question]:
    """The caption of a page that nobody drew, up to twice as long as those of the warm-up's pages, and a question."""
    cells = draw_cells(rng, rng.randint(2, LONGEST_CAPTION))
    if rng.random() < 0.6:
        numbers = [rng.randint(0, 9) for _ in cells]
        return " ; ".join(digits.describe(numbers, cells)), digits.ask(rng, numbers)
    shapes = [(rng.choice(tuple(figures.COLOURS)), rng.choice(figures.SHAPES)) for _ in cells]
    return " ; ".join(figures.describe(shapes, cells)), figures.ask(rng, shapes)


def _page_lesson(row: dict) -> dict:
    return {
        "prompt": policy_prompt({"type": "image", "text": None}, row["problem"]),
        "completion": [assistant(write_completion(row["caption"], row["reasoning_steps"], row["solution"]))],
    }


def _typed_lesson(rng: random.Random) -> dict:
    caption, question = draw_caption(rng)
    completion = write_completion(caption, question.steps, question.solution)
    return {
        "images": [],
        "prompt": policy_prompt(text_part(f" {caption}\n"), question.problem),
        "completion": [assistant(completion)],
    }


def _reading_lesson(rng: random.Random) -> dict:
    caption, question = draw_caption(rng)
    reply = write_answer(question.steps, question.solution)
    if rng.random() < NOT_A_DESCRIPTION_SHARE:
        reply = NOT_A_DESCRIPTION
        steps = " ".join(question.steps)
        caption = rng.choice(
            (
                f"{caption} {steps}",
                f"{caption} = {question.solution}",
                f"{caption} answer {question.solution}",
                steps,
                question.solution,
            )
        )
    prompt = reader_messages(caption, question.problem, load_prompt("starter_reader"))
    return {"images": [], "prompt": prompt, "completion": [assistant(reply)]}


def policy_prompt(page: dict, problem: str, prompt: str = "starter") -> list[dict]:
    """What the policy is shown: the packaged system prompt of this name, a page, and a question about it."""
    return [
        {"role": "system", "content": [text_part(load_prompt(prompt))]},
        {"role": "user", "content": [page, text_part(problem)]},
    ]


def text_part(text: str) -> dict:
    """A message's part."""
    return {"type": "text", "text": text}


def assistant(text: str) -> dict:
    """The policy's message."""
    return {"role": "assistant", "content": [text_part(text)]}
