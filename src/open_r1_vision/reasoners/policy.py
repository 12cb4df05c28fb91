# SPDX-License-Identifier: Apache-2.0
"""The live policy as a reader of captions: Visionary-R1's own choice."""

from collections.abc import Callable, Sequence

from open_r1_vision.reasoners.captions import Reading, parse_reply, reader_messages


class PolicyReader:
    """Reads captions with the model that is being trained, without the image, greedily and briefly.

    Greedy where the authors sample: their reward for one and the same caption changes from draw to draw.

    Args:
        generate: turns chats and a limit of new tokens into replies, such as `VisionGRPOTrainer.generate_greedy`.
        system_prompt: what the reader is told to do.
        max_tokens: most tokens of a reply.
    """

    def __init__(
        self, generate: Callable[[list[list[dict]], int], list[str]], system_prompt: str, max_tokens: int
    ) -> None:
        self.generate = generate
        self.system_prompt = system_prompt
        self.max_tokens = max_tokens

    def read(self, captions: Sequence[str | None], problems: Sequence[str]) -> list[Reading]:
        """See :class:`open_r1_vision.reasoners.captions.CaptionReader`."""
        # a completion without caption is asked too: under ZeRO-3 every process must generate equally often
        chats = [
            reader_messages(caption or "", problem, self.system_prompt)
            for caption, problem in zip(captions, problems, strict=True)
        ]
        replies = self.generate(chats, self.max_tokens)
        return [
            Reading("", None) if caption is None else parse_reply(reply)
            for caption, reply in zip(captions, replies, strict=True)
        ]
