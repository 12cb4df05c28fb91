# SPDX-License-Identifier: Apache-2.0
"""Rows for a warm-up: a prompt, the completion that the model is to learn, and images.

| column | type |
|---|---|
| `prompt` | messages, or one text |
| `completion` | the assistant's message, or one text |
| `images` | list of images, may be empty; no such column for a model that takes text alone |

`messages` may stand in place of the first two: a conversation that ends on the assistant's turn.
"""

from typing import Any

from datasets import Dataset, concatenate_datasets


def as_lessons(dataset: Dataset) -> Dataset:
    """The data set with `prompt` and `completion`; the last turn of `messages` becomes the completion.

    Raises:
        ValueError: neither is there, or a conversation does not end on an assistant's turn after a user's.
    """
    names = dataset.column_names
    if {"prompt", "completion"} <= set(names):
        return dataset
    if "messages" not in names:
        raise ValueError(
            f"The rows have the columns {', '.join(names)}, but a warm-up learns from `prompt` and `completion`, or "
            "from `messages`. Set `dataset` to such rows; open_r1_vision.data.mulberry.rows reads Mulberry-SFT's."
        )
    turns = dataset.select_columns([name for name in ("id", "messages") if name in names])
    lessons = turns.map(_split_turns, with_indices=True, remove_columns=turns.column_names, desc="Reading lessons")
    others = [name for name in names if name not in ("messages", "prompt", "completion")]
    return concatenate_datasets([dataset.select_columns(others), lessons], axis=1) if others else lessons


def _split_turns(row: dict[str, Any], index: int) -> dict[str, Any]:
    messages = row["messages"] or []
    roles = [message.get("role") for message in messages]
    if len(roles) < 2 or roles[-1] != "assistant" or roles[-2] != "user":
        raise ValueError(
            f"Row {row.get('id', index)!r}: the roles of its `messages` are {', '.join(map(str, roles)) or 'none'}, "
            "but a lesson ends on an assistant's turn that follows a user's."
        )
    return {"prompt": messages[:-1], "completion": messages[-1:]}
