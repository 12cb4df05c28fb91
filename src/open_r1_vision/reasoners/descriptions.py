# SPDX-License-Identifier: Apache-2.0
"""Whether a text describes an image at all, or only solves a problem: the check that keeps captions captions.

RACRO pays a caption for what a reasoner answers from it, so that a policy may stop describing and write a solution
instead. Its successor (RAPID, arXiv 2506.04559 v2) asks a model, yes or no, whether the text contains a description,
and takes a little off the reward where it does not; see `rewards.caption`. The policy is paid for a Yes, so that its
caption stands in a fence: see `fencing.py`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from open_r1_vision.reasoners.fencing import MAX_CHARS, fence
from open_r1_vision.reasoners.interface import Failure, Pending, Reasoner

#: The first word of a reply, unless it only repeats the question's "Yes or No".
_FIRST_WORD = re.compile(r"[\W_]*(yes|no)(?![^\W_])(?!\W*(?:or\W+)?(?:yes|no)\b)", re.IGNORECASE)


@dataclass(frozen=True)
class DescriptionVerdict:
    """What the judge says of one caption.

    Attributes:
        has_description: False also where there is no caption; None where the judge failed.
        failure: why it did, else None.
    """

    has_description: bool | None
    failure: str | None = None


class DescriptionJudge:
    """Asks any reasoner whether captions describe.

    Args:
        reasoner: whoever judges; it must give one reply to a chat, and may be the live policy.
        system_prompt: asks for Yes or No, with examples.

    Raises:
        ValueError: the reasoner gives several replies.
    """

    def __init__(self, reasoner: Reasoner, system_prompt: str) -> None:
        if reasoner.config.n != 1:
            raise ValueError(f"n is {reasoner.config.n}, but a judge gives one verdict: set the reasoner's n to 1.")
        self.reasoner = reasoner
        self.system_prompt = system_prompt
        # RAPID asks the policy, and takes for No whatever is no Yes: to stop for a policy that drifts would be no help
        self._read = starts_with_yes if reasoner.config.kind == "policy" else read_yes_or_no

    def start(
        self, captions: Sequence[str | None], tags: Sequence[Mapping[str, Any]] | None = None
    ) -> "PendingDescriptions":
        """Begin to ask; returns at once.

        Args:
            captions: one for each completion, None where there is none.
            tags: something JSON-able for each, for the log.
        """
        # together with other processes, one without caption is asked for too: all must generate equally often
        asked = [index for index, text in enumerate(captions) if self.reasoner.in_step or text is not None]
        chats = [self._chat(captions[index] or "") for index in asked]
        pending = self.reasoner.submit(chats, read=self._read, tags=[tags[index] for index in asked] if tags else None)
        return PendingDescriptions(pending, asked, captions)

    def _chat(self, caption: str) -> list[dict]:
        fenced = fence(caption, "text", max_chars=MAX_CHARS)
        text = f"{fenced} Does the text describe an image? Yes or No:"
        return [{"role": "system", "content": self.system_prompt}, {"role": "user", "content": text}]


class PendingDescriptions:
    """Verdicts on their way."""

    def __init__(self, pending: Pending, asked: Sequence[int], captions: Sequence[str | None]) -> None:
        self._pending = pending
        self._asked = asked
        self._captions = captions

    @property
    def seconds(self) -> float:
        """See :class:`open_r1_vision.reasoners.interface.Pending`."""
        return self._pending.seconds

    def result(self) -> list[DescriptionVerdict]:
        """One verdict for each caption, in order; waits for the last of them."""
        outcomes = dict(zip(self._asked, self._pending.result(), strict=True))
        verdicts = []
        for index, caption in enumerate(self._captions):
            if caption is None:
                verdicts.append(DescriptionVerdict(False))
                continue
            (outcome,) = outcomes[index]
            if isinstance(outcome, Failure):
                verdicts.append(DescriptionVerdict(None, str(outcome)))
            else:
                verdicts.append(DescriptionVerdict(outcome.verdict))
        return verdicts


def starts_with_yes(reply: str) -> bool:
    """Whether a reply's first word is Yes."""
    try:
        return read_yes_or_no(reply)
    except ValueError:
        return False


def read_yes_or_no(reply: str) -> bool:
    """Whether a reply says yes. Thinking up to the last `</think>` is left out.

    Raises:
        ValueError: its first word is neither yes nor no, or it begins with both.
    """
    match = _FIRST_WORD.match(reply.rpartition("</think>")[2])
    if match is None:
        raise ValueError(f"the reply is neither Yes nor No: {reply!r:.80}")
    return match[1].lower() == "yes"
