# SPDX-License-Identifier: Apache-2.0
"""How an item is put to a model: the benchmark's chat, with the prompts that the model was trained with around it."""

from typing import Any

from open_r1_vision.evaluate.items import Benchmark, Item


def item_chat(
    benchmark: Benchmark, item: Item, style: str, system_prompt: str | None = None, user_prompt: str | None = None
) -> list[dict[str, Any]]:
    """The chat of an item, each content a list of parts.

    Args:
        benchmark: of the item.
        item: whose chat.
        style: see :data:`open_r1_vision.evaluate.items.PROMPT_STYLES`.
        system_prompt: text of the system message, which takes the place of the benchmark's.
        user_prompt: template of the user's message with `{problem}` in it, where the benchmark's text goes; images
            that stand before that text stay before the template's.

    Raises:
        ValueError: an image is none.
    """
    chat = [{**message, "content": _parts(message["content"])} for message in benchmark.messages(item, style)]
    if system_prompt is not None:
        system = {"role": "system", "content": [{"type": "text", "text": system_prompt}]}
        chat = [system, *(message for message in chat if message["role"] != "system")]
    if user_prompt is not None:
        last = max(place for place, message in enumerate(chat) if message["role"] == "user")
        chat[last] = {**chat[last], "content": _enclose(chat[last]["content"], user_prompt)}
    return chat


def _parts(content: Any) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


def _enclose(parts: list[dict[str, Any]], template: str) -> list[dict[str, Any]]:
    before, _, behind = template.partition("{problem}")
    first_text = next((place for place, part in enumerate(parts) if part["type"] == "text"), len(parts))
    merged = parts[:first_text]
    for part in [_text(before), *parts[first_text:], _text(behind)]:
        if part["type"] == "text" and merged and merged[-1]["type"] == "text":
            merged[-1] = _text(merged[-1]["text"] + part["text"])
        elif part["type"] != "text" or part["text"]:
            merged.append(part)
    return merged


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}
