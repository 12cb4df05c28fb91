# SPDX-License-Identifier: Apache-2.0
"""Ask a text model for a list of texts about each row of a data set, in a folder from which the work can go on."""

import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from datasets import Dataset
from tqdm import tqdm

from open_r1_vision.data.replies import ReplyFile
from open_r1_vision.reasoners import Failure, Outcome, Reasoner, ReasonerConfig, build_reasoner
from open_r1_vision.reasoners.config import DECIDING, read_block
from open_r1_vision.reasoners.interface import clean_text

Chat = list[dict[str, str]]

#: Settings of a reasoner that are made here.
_OWN = ("n", "response_schema")
#: Failures in a row after which it is the reasoner, not the rows.
_HOPELESS = 32


def list_schema(field: str) -> dict[str, Any]:
    """The schema of a reply: an object with a list of texts."""
    return {
        "type": "object",
        "properties": {field: {"type": "array", "items": {"type": "string"}}},
        "required": [field],
        "additionalProperties": False,
    }


def read_reasoner(text: str, schema: Mapping[str, Any]) -> ReasonerConfig:
    """The reasoner that an option names, see :func:`open_r1_vision.reasoners.config.read_block`.

    Args:
        text: the option.
        schema: of its replies.

    Raises:
        ValueError: there is none, or its settings can't work for this.
    """
    config = ReasonerConfig.from_mapping(read_block(text))
    if config.response_schema is not None or config.n != 1:
        (field,) = schema["properties"]
        raise ValueError(
            "The reasoner has a response_schema or n above 1, but each row is asked for one list of "
            f"{field.replace('_', ' ')}: leave both out."
        )
    return replace(config, response_schema=dict(schema))


def reply_settings(config: ReasonerConfig) -> dict[str, Any]:
    """What of a reasoner a reply depends on, for a ReplyFile."""
    return {f"reasoner.{name}": getattr(config, name) for name in DECIDING if name not in _OWN}


def ask_rows(
    chats: Mapping[str, Chat], field: str, replies: ReplyFile, config: ReasonerConfig, activity: str
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Lists as the reasoner gives them, and why there are none, by row id.

    Only rows without a list in `replies` are asked for, and the reasoner is not even made where there are none.

    Args:
        chats: by row id.
        field: the name of the list in a reply.
        replies: where they are kept.
        config: the reasoner's.
        activity: what the progress bar says.

    Raises:
        ValueError: the reasoner can't be made, or does not reply to row after row.
    """
    keys = {row_id: _digest(chat) for row_id, chat in chats.items()}

    def held(row_id: str) -> dict[str, Any]:
        record = replies.records.get(row_id, {})
        return record if record.get("key") == keys[row_id] else {}

    missing = [row_id for row_id in chats if field not in held(row_id)]
    if missing:
        reasoner = build_reasoner(config)
        try:
            with tqdm(desc=activity, total=len(missing), disable=None) as bar:
                _ask_missing(missing, chats, keys, field, replies, reasoner, bar)
        finally:
            reasoner.close()
    records = {row_id: held(row_id) for row_id in chats}
    lists = {row_id: record[field] for row_id, record in records.items() if field in record}
    return lists, {row_id: record["failure"] for row_id, record in records.items() if field not in record}


def check_failures(failures: Mapping[str, str], num_asked: int, config: ReasonerConfig) -> None:
    """Refuse to go on where too many rows have no reply.

    Raises:
        ValueError: there are more than the reasoner's `max_failure_rate`.
    """
    if len(failures) > config.max_failure_rate * num_asked:
        raise ValueError(
            f"{len(failures)} of {num_asked} rows have no reply, more than max_failure_rate "
            f"{config.max_failure_rate:g}; one is {next(iter(failures.values()))}. Nothing is lost: mend that and "
            "start the same command again, or raise the reasoner's max_failure_rate."
        )


def save_rows(dataset: Dataset, folder: Path) -> Path:
    """Write the rows beside those of an earlier run, and only then replace them."""
    place, draft = folder / "rows", folder / ".rows.tmp"
    shutil.rmtree(draft, ignore_errors=True)
    dataset.save_to_disk(str(draft))
    shutil.rmtree(place, ignore_errors=True)
    os.replace(draft, place)
    return place


def _digest(chat: Chat) -> str:
    return hashlib.blake2b(json.dumps(chat).encode(), digest_size=12).hexdigest()


def _ask_missing(
    row_ids: Sequence[str],
    chats: Mapping[str, Chat],
    keys: Mapping[str, str],
    field: str,
    replies: ReplyFile,
    reasoner: Reasoner,
    bar: Any,
) -> None:
    num_failed = 0
    for batch, outcomes in _outcomes(row_ids, chats, reasoner):
        replies.append(
            _record(row_id, keys[row_id], field, outcome) for row_id, outcome in zip(batch, outcomes, strict=True)
        )
        bar.update(len(batch))
        for outcome in outcomes:
            num_failed = num_failed + 1 if isinstance(outcome, Failure) else 0
            if num_failed >= _HOPELESS:
                raise ValueError(
                    f"The reasoner failed {num_failed} times in a row, the last time with {outcome}. Nothing is "
                    "lost: mend it, and start the same command again."
                )


def _outcomes(
    row_ids: Sequence[str], chats: Mapping[str, Chat], reasoner: Reasoner
) -> Iterator[tuple[list[str], list[Outcome]]]:
    """Batches of rows with their outcomes; while one is waited for, the next is on its way."""
    config = reasoner.config
    size = config.concurrency if config.kind == "endpoint" else config.batch_size
    waiting: deque = deque()
    rest = iter(row_ids)
    while True:
        batch = list(islice(rest, size))
        if batch:
            tags = [{"id": row_id} for row_id in batch]
            waiting.append((batch, reasoner.submit([chats[row_id] for row_id in batch], tags=tags)))
        if not waiting:
            return
        if not batch or len(waiting) > 1:
            done, pending = waiting.popleft()
            yield done, [outcomes[0] for outcomes in pending.result()]


def _record(row_id: str, key: str, field: str, outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, Failure):
        return {"id": row_id, "key": key, "failure": clean_text(str(outcome)), "reply": outcome.reply}
    # JSON can spell half a character, which no file can hold
    return {"id": row_id, "key": key, field: [clean_text(text) for text in outcome.verdict[field]]}
