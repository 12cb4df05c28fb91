# SPDX-License-Identifier: Apache-2.0
"""Lessons that teach the starter's policy PeBR-R1's form of answers: sections under `###` headers.

Their pages are those of the warm-up, with 2 to 5 digits. In some lessons a longer page is typed into the question, so
that the form holds for pages that the policy has yet to learn to read.
"""

import random

from datasets import Dataset, concatenate_datasets

from open_r1_vision.starter import digits
from open_r1_vision.starter.page import LONGEST_CAPTION, draw_cells
from open_r1_vision.starter.warm_up import assistant, policy_prompt, text_part

PROMPT = "starter_sections"
#: Of the lessons; the others show a page.
TYPED_SHARE = 0.3


def rows(split: str = "train", count: int = 12800, seed: int = 0) -> Dataset:
    """Prompt-completion rows for TRL's SFTTrainer: columns `images`, `prompt`, `completion`.

    Args:
        split: `train`, or `test` for other lessons of the same kind.
        count: number of rows.
        seed: another seed gives other lessons.

    Raises:
        ValueError: there is no such split.
    """
    if split not in ("train", "test"):
        raise ValueError(f"Unknown split {split!r} of the lessons in sections: choose train or test.")
    seed = 2 * seed + (split == "test")
    num_typed = int(count * TYPED_SHARE)
    # another stream than that of the warm-up, which showed the policy its first pages
    pages = digits.rows("warm_up", count - num_typed, seed, objects=(2, 5))
    pages = pages.map(_page_lesson, remove_columns=[name for name in pages.column_names if name != "images"])
    rng = random.Random(f"sections-{seed}")
    typed = Dataset.from_list([_typed_lesson(rng) for _ in range(num_typed)]).cast(pages.features)
    return concatenate_datasets([pages, typed]).shuffle(seed=seed)


def write_sections(caption: str, problem: str, steps: list[str], solution: str) -> str:
    """What the policy should say about a page; the rationale names what is asked for."""
    asked = problem.removeprefix("What is the").removeprefix("How many").rstrip("?")
    return (
        f"### Image Description: {caption}\n### Rationales:{asked}\n### Step 1: {' '.join(steps)}\n"
        f"### The final answer is: {solution}"
    )


def _page_lesson(row: dict) -> dict:
    completion = write_sections(row["caption"], row["problem"], row["reasoning_steps"], row["solution"])
    return {
        "prompt": policy_prompt({"type": "image", "text": None}, row["problem"], PROMPT),
        "completion": [assistant(completion)],
    }


def _typed_lesson(rng: random.Random) -> dict:
    cells = draw_cells(rng, rng.randint(2, LONGEST_CAPTION))
    numbers = [rng.randint(0, 9) for _ in cells]
    caption, question = " ; ".join(digits.describe(numbers, cells)), digits.ask(rng, numbers)
    completion = write_sections(caption, question.problem, question.steps, question.solution)
    return {
        "images": [],
        "prompt": policy_prompt(text_part(f" {caption}\n"), question.problem, PROMPT),
        "completion": [assistant(completion)],
    }
