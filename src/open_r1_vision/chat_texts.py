# SPDX-License-Identifier: Apache-2.0
"""Chats as texts, for people to read."""

from collections.abc import Mapping
from typing import Any


def texts_of_chat(value: Any) -> list[tuple[str, str]]:
    """A chat, or a plain text, as roles and texts; an image is `[image]` and a new line."""
    if value is None:
        return []
    if isinstance(value, str):
        return [("", value)]
    return [(str(message.get("role") or ""), _content(message.get("content"))) for message in value]


def _content(value: Any) -> str:
    if isinstance(value, str):
        return value
    parts = []
    for part in value or []:
        kind = part.get("type") if isinstance(part, Mapping) else "text"
        text = part.get("text") if isinstance(part, Mapping) else part
        parts.append(str(text) if text is not None else f"[{kind}]\n" if kind else "")
    return "".join(parts)
