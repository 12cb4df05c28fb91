# SPDX-License-Identifier: Apache-2.0
"""Reading a caption: what a reader is asked, what it may reply, and the interface that every reader has.

Visionary-R1 (arXiv 2505.14677) grades a caption by whether its question can be answered from it alone. The reader sees
caption and question, never the image. It replies with an answer, or says that the text is not a description because it
already reasons or answers; such a caption earns nothing.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from open_r1_vision.prompts import fill_prompt
from open_r1_vision.rewards.answers import extract_answer

NOT_A_DESCRIPTION = "Not a description"
#: Visionary-R1's published prompt asks for this verdict instead.
_VERDICTS = (NOT_A_DESCRIPTION.lower(), "hacking sample")
#: What VLMEvalKit adds to a question. Whoever is to think step by step must not read it.
SHORT_ANSWER_PHRASE = "Please try to answer the question with short words or phrases if possible."
#: What is no part of a question for someone who sees no image: its place, and that phrase.
_NOT_FOR_READERS = re.compile(rf"<image>\s*|\s*{re.escape(SHORT_ANSWER_PHRASE)}")


@dataclass(frozen=True)
class Reading:
    """A reader's reply to one caption.

    Attributes:
        reply: what the reader wrote; empty when it was not asked.
        answer: the answer in the reply, None when there is none.
        is_description: False when the reader rejected the caption as more than a description.
        failure: why there is no reply although there is a caption; None when nothing went wrong. Such a caption is
            not a bad one, and must not be scored as one: see `failures.py`.
        further: the other readings of the same caption, where a reasoner gives several.
    """

    reply: str
    answer: str | None
    is_description: bool = True
    failure: str | None = None
    further: tuple["Reading", ...] = ()

    @property
    def answers(self) -> list[str | None]:
        """The answers of all readings of the caption."""
        return [self.answer, *(reading.answer for reading in self.further)]


class CaptionReader(Protocol):
    """Anything that answers questions from captions: the live policy, a frozen model, a server."""

    def read(self, captions: Sequence[str | None], problems: Sequence[str]) -> list[Reading]:
        """Answer each problem from its caption alone.

        Args:
            captions: one caption for each completion of this process, None where a completion has none. Entries
                stay at their place, so that every process reads equally many.
            problems: the question that belongs to each caption.

        Returns:
            One reading for each caption, in the same order; a reading without answer where there is no caption.
        """
        ...


def reader_messages(caption: str, problem: str, system_prompt: str) -> list[dict]:
    """The chat that asks a model to answer `problem` from `caption`.

    The caption stands in the tags in which the policy wrote it, after the question, as it does in a completion.
    """
    return _chat(f"{plain_problem(problem)}\n<info> {caption}</info>", system_prompt)


def template_messages(template: str) -> Callable[[str, str, str], list[dict]]:
    """As :func:`reader_messages`, with the text of the question from a template.

    Args:
        template: holds `{caption}` and `{problem}`.
    """

    def messages(caption: str, problem: str, system_prompt: str) -> list[dict]:
        return _chat(fill_prompt(template, caption=caption, problem=plain_problem(problem)), system_prompt)

    return messages


def plain_problem(problem: str) -> str:
    """The question for someone who sees no image: without image markers and requests for short answers."""
    return _NOT_FOR_READERS.sub("", problem).strip()


def parse_reply(reply: str) -> Reading:
    """Read a reply: a verdict, the content of answer tags, or else the whole reply without a full stop at its end."""
    text = reply.strip()
    has_tags = "<answer>" in text or text.startswith("<think>")
    answer = extract_answer(text) if has_tags else text.removesuffix(".").strip()
    if any(part.strip("*\"'` ").lower().startswith(_VERDICTS) for part in (text, answer or "")):
        return Reading(reply, None, is_description=False)
    return Reading(reply, answer or None)


def parse_boxed(reply: str) -> Reading:
    r"""Read a reply whose answer stands in a box: the last `\boxed{}` after the thinking, see `rewards.boxes`."""
    return Reading(reply, extract_answer(reply, form="boxed"))


def _chat(text: str, system_prompt: str) -> list[dict]:
    return [
        {"role": "system", "content": [{"type": "text", "text": system_prompt}]},
        {"role": "user", "content": [{"type": "text", "text": text}]},
    ]
