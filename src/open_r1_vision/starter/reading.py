# SPDX-License-Identifier: Apache-2.0
r"""Lessons of the starter's text reasoner: a caption and a question, answered in `<think>` and `\boxed{}`.

In some lessons a tentative response stands beside the caption, as in RACRO's three-step inference. As often as not it
is about another page, and what is taught goes by the caption.
"""

import random

from datasets import Dataset

from open_r1_vision.prompts import fill_prompt, load_prompt
from open_r1_vision.reasoners.captions import reader_messages
from open_r1_vision.starter.warm_up import draw_caption, write_completion

#: Of the lessons; the others have a caption and a question only.
TENTATIVE_SHARE = 0.2
WRONG_SHARE = 0.5


def rows(split: str = "train", count: int = 20000, seed: int = 0) -> Dataset:
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


def _lesson(rng: random.Random) -> dict:
    caption, question = draw_caption(rng)
    system, user = (
        message["content"][0]["text"]
        for message in reader_messages(caption, question.problem, load_prompt("starter_reader"))
    )
    if rng.random() < TENTATIVE_SHARE:
        seen, asked = draw_caption(rng) if rng.random() < WRONG_SHARE else (caption, question)
        response = write_completion(seen, asked.steps, asked.solution)
        user = fill_prompt(load_prompt("starter_joint"), caption=caption, problem=question.problem, response=response)
    # the blank makes the answer the token that it was in the steps
    reply = f"<think> {' '.join(question.steps)}</think> \\boxed{{ {question.solution}}}"
    return {
        "prompt": [{"role": "system", "content": system}, {"role": "user", "content": user}],
        "completion": [{"role": "assistant", "content": reply}],
    }
