# SPDX-License-Identifier: Apache-2.0
"""The tagged sections of a completion: `<info>…</info> <think>…</think> <answer>…</answer>`.

Tags are lower case and take no attributes. Every function runs in time linear in the text.
"""

import re


def extract_section(text: str, tag: str) -> str | None:
    """The first complete section of a tag, stripped; it may span lines.

    Args:
        text: a completion.
        tag: the tag's name without brackets.

    Returns:
        The text between the first opening tag and the next closing tag; None when there is no such section or it is
        empty.
    """
    _, opening, rest = text.partition(f"<{tag}>")
    content, closing, _ = rest.partition(f"</{tag}>")
    return (content.strip() or None) if opening and closing else None


def extract_last_section(text: str, tag: str) -> str | None:
    """The section that the text ends on, stripped: its last two tags of this name have to open and close it.

    Earlier sections are drafts, so that of several guesses only one can ever be graded. After a nested section, or
    one that is opened again and left open, what the text commits to is unclear and there is none.

    Returns:
        The content, or None when there is no such section or it is empty.
    """
    tags = list(re.finditer(rf"<(/?){re.escape(tag)}>", text))[-2:]
    if [match[1] for match in tags] != ["", "/"]:
        return None
    return text[tags[0].end() : tags[1].start()].strip() or None


def extract_caption(text: str) -> str | None:
    """The caption of a completion: its first complete `<info>` section, None when missing or empty."""
    return extract_section(text, "info")


def is_sequence_of_sections(text: str, sections: tuple[str, ...]) -> bool:
    """Whether the text is exactly these sections in this order.

    Each opening and closing tag occurs once, no section is empty, and only whitespace stands around them.
    """
    tags = list(re.finditer(f"</?(?:{'|'.join(map(re.escape, sections))})>", text))
    expected = [tag for name in sections for tag in (f"<{name}>", f"</{name}>")]
    if [match[0] for match in tags] != expected:
        return False
    edges = [0, *(edge for match in tags for edge in match.span()), len(text)]
    # Between the tags: outside, inside the first section, outside, inside the second, ..., outside.
    pieces = [text[start:end].strip() for start, end in zip(edges[::2], edges[1::2], strict=True)]
    return not any(pieces[::2]) and all(pieces[1::2])
