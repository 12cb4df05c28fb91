# SPDX-License-Identifier: Apache-2.0
"""Which rows of a batch are inside of a tagged section while they are written."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase


class SpanTracker:
    """Follows replies token by token.

    Works on text, so a tag may be any number of tokens, or a part of one. A reply is decoded, as a whole, only after
    tokens that can be the end of a tag.

    Args:
        tokenizer: decodes the replies.
        span: name of the section, without brackets.
        num_rows: replies in the batch.

    Attributes:
        inside: for each row, whether its next token is inside; see :class:`open_r1_vision.decoding.Calibration`.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, span: str, num_rows: int) -> None:
        self.tokenizer = tokenizer
        self.opening, self.closing = f"<{span}>", f"</{span}>"
        self.replies: list[list[int]] = [[] for _ in range(num_rows)]
        self.inside = [False] * num_rows
        self._ends_tag: dict[int, bool] = {}

    def append(self, tokens: Sequence[int]) -> None:
        """Add the next token of each row."""
        for row, (reply, token) in enumerate(zip(self.replies, tokens, strict=True)):
            reply.append(token)
            if token not in self._ends_tag:
                self._ends_tag[token] = self._can_end_tag(self._decode([token]))
            if self._ends_tag[token]:
                text = self._decode(reply)
                self.inside[row] = text.rfind(self.opening) > text.rfind(self.closing)

    def _can_end_tag(self, piece: str) -> bool:
        # by itself a token may be decoded with a space that it doesn't bring into the reply
        piece = piece.lstrip()
        heads = [piece[: place + 1] for place, character in enumerate(piece) if character == ">"]
        tags = (self.opening, self.closing)
        return any(tag.endswith(head) or head.endswith(tag) for head in heads for tag in tags)

    def _decode(self, tokens: list[int]) -> str:
        text = self.tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return str(text)
