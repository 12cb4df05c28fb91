# SPDX-License-Identifier: Apache-2.0
"""Gates: functions called as rewards are, while a batch is sampled, to decide what is sampled again."""

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def score_completions(
    gate: Callable[..., Any],
    rows: Sequence[Mapping[str, Any]],
    completion_ids: Sequence[list[int]],
    processor: Any,
    trainer_state: Any,
    **columns: list,
) -> list[float | None]:
    """Score completions with a gate, sync or async, as TRL calls a reward.

    Args:
        gate: see :func:`open_r1_vision.rewards.loading.checked`.
        rows: of the completions, at least one; the gate gets their columns.
        completion_ids: the completions' tokens.
        processor: decodes them.
        trainer_state: the trainer's `state`.
        columns: further columns for the gate, which win over the rows'.

    Returns:
        What the gate returns.
    """
    texts = processor.batch_decode(list(completion_ids), skip_special_tokens=True)
    of_rows = {name: [row[name] for row in rows] for name in rows[0] if name not in ("prompt", "completion")}
    scores = gate(
        prompts=[row["prompt"] for row in rows],
        completions=[[{"role": "assistant", "content": text}] for text in texts],
        completion_ids=list(completion_ids),
        trainer_state=trainer_state,
        **{**of_rows, **columns},
    )
    if inspect.iscoroutine(scores):
        with ThreadPoolExecutor(1) as pool:  # a notebook's own thread has a loop already
            scores = pool.submit(asyncio.run, scores).result()
    return scores
