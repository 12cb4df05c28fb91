# SPDX-License-Identifier: Apache-2.0
"""The live policy as a reader of captions, Visionary-R1's own choice, and as a reasoner like any other."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from open_r1_vision.reasoners.config import ReasonerConfig
from open_r1_vision.reasoners.interface import Chat, Deferred, Outcome, Pending, Read, Reply
from open_r1_vision.reasoners.readers import TextReader
from open_r1_vision.reasoners.records import Records, by_chat

#: Turns chats and a limit of new tokens into replies, such as `VisionGRPOTrainer.generate_greedy`.
Generate = Callable[[list[list[dict]], int], list[str]]


def policy_reader(generate: Generate, system_prompt: str, max_tokens: int) -> TextReader:
    """A reader of captions that is the model in training, without the image, greedily and briefly.

    Greedy where Visionary-R1's authors sample: their reward for one and the same caption changes from draw to draw.

    Args:
        generate: turns chats and a limit of new tokens into replies, such as `VisionGRPOTrainer.generate_greedy`.
        system_prompt: what the reader is told to do.
        max_tokens: most tokens of a reply.
    """
    return TextReader(PolicyReasoner(ReasonerConfig(max_tokens=max_tokens), generate), system_prompt)


class PolicyReasoner:
    """The live policy behind the interface of a reasoner. It generates when the result is awaited.

    Args:
        config: of kind `policy`.
        generate: as for :func:`policy_reader`.
    """

    in_step = True

    def __init__(self, config: ReasonerConfig, generate: Generate) -> None:
        self.config = config
        self.records = Records(config)
        self._generate = generate

    def submit(
        self, chats: Sequence[Chat], *, read: Read | None = None, tags: Sequence[Mapping[str, Any]] | None = None
    ) -> Pending:
        """See :class:`open_r1_vision.reasoners.interface.Reasoner`."""
        questions = self.records.questions(chats, tags)

        def work() -> list[list[Outcome]]:
            chats = [_with_parts(question.messages) for question in questions]
            texts = self._generate(chats, self.config.max_tokens)
            outcomes = [self.records.judge(Reply(text), read) for text in texts]
            for question, outcome in zip(questions, outcomes, strict=True):
                self.records.settle(question, outcome)
            self.records.flush()
            return by_chat(outcomes, 1)

        return Deferred(work)

    def check(self) -> None:
        """See :class:`open_r1_vision.reasoners.interface.Reasoner`. The policy is there, or nothing trains."""

    def pop_stats(self) -> dict[str, float]:
        """See :class:`open_r1_vision.reasoners.interface.Reasoner`."""
        return self.records.pop_stats()

    def close(self) -> None:
        """See :class:`open_r1_vision.reasoners.interface.Reasoner`."""
        self.records.close()


def _with_parts(messages: Sequence[Mapping[str, str]]) -> list[dict]:
    """The chat with content parts, which the processors of vision-language models want."""
    return [
        {"role": message["role"], "content": [{"type": "text", "text": message["content"]}]} for message in messages
    ]
