# SPDX-License-Identifier: Apache-2.0
r"""Lessons of the starter's text reasoners: a caption and a question, answered in `<think>` and `\boxed{}`.

In some lessons a tentative response stands beside the caption, as in RACRO's three-step inference. As often as not it
is about another page, and what is taught goes by the caption.
"""

import random

from datasets import Dataset

from open_r1_vision.prompts import fill_prompt, load_prompt
from open_r1_vision.starter.warm_up import draw_caption, write_completion

#: Of the lessons; the others have a caption and a question only.
TENTATIVE_SHARE = 0.15
WRONG_SHARE = 0.5


def rows(split: str = "train", count: int = 40000, seed: int = 0) -> Dataset:
    """Prompt-completion rows for TRL's SFTTrainer: columns `prompt`, `completion`.

    Args:
        split: `train`, or `test` for other lessons of the same kind.
        count: number of rows.
        seed: another seed gives other lessons.
    """
    if split not in ("train", "test"):
        raise ValueError(f"Unknown split {split!r} of the reading lessons: choose train or test.")
    rng = random.Random(f"reading-{split}-{seed}")
    return Dataset.from_list([_lesson(rng) for _ in range(count)])


def corpus() -> list[str]:
    """What the tokenizer is trained on: prompts, every number up to 99, and lessons."""
    rng = random.Random(0)
    prompts = [load_prompt(name) for name in ("assistant", "racro_reader", "racro_joint")]
    numbers = [f" {number}" for number in range(100)]
    lessons = [message["content"] for _ in range(3000) for part in _lesson(rng).values() for message in part]
    return 50 * (prompts + numbers) + lessons


def _lesson(rng: random.Random) -> dict:
    caption, question = draw_caption(rng)
    if rng.random() < TENTATIVE_SHARE:
        seen, asked = draw_caption(rng) if rng.random() < WRONG_SHARE else (caption, question)
        response = write_completion(seen, asked.steps, asked.solution)
        text = fill_prompt(load_prompt("racro_joint"), caption=caption, problem=question.problem, response=response)
    else:
        text = fill_prompt(load_prompt("racro_reader"), caption=caption, problem=question.problem)
    reply = f"<think> {' '.join(question.steps)}</think> \\boxed{{{question.solution}}}"
    return {
        "prompt": [
            {"role": "system", "content": load_prompt("assistant")},
            {"role": "user", "content": text},
        ],
        "completion": [{"role": "assistant", "content": reply}],
    }
