# SPDX-License-Identifier: Apache-2.0
r"""Answers in a box: `\boxed{...}`, the form in which reasoning models give their answer."""

import re

_OPENING = re.compile(r"\\(?:boxed|fbox)\s*\{")
_THINKING_END = "</think>"
_THINKING_START = "<think>"


def extract_boxed(text: str) -> str | None:
    r"""The content of the last complete `\boxed{...}` or `\fbox{...}`, stripped; braces in it must balance.

    Of several boxes the last one counts. Boxes in the thinking, before `</think>`, are drafts; a text that ends within
    its thinking has none. A box that is opened last and never closed makes the answer unclear: there is none then.

    Args:
        text: a completion or a reply.

    Returns:
        The content, or None when there is no such box or it is empty.
    """
    _, ended, rest = text.rpartition(_THINKING_END)
    if _THINKING_START in rest:
        return None
    openings = list(_OPENING.finditer(rest if ended else text))
    # of nested boxes the outermost counts: \boxed{\boxed{4} cm}
    content, end = None, 0
    for opening in openings:
        if opening.start() < end:
            continue
        close = _closing_brace(rest, opening.end())
        if close is None:
            return None
        content, end = rest[opening.end() : close], close
    return (content.strip() or None) if content is not None else None


def _closing_brace(text: str, start: int) -> int | None:
    """Where the brace that was opened before `start` is closed; escaped braces are text."""
    depth = 1
    for match in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, start):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if not depth:
            return match.start()
    return None
