# SPDX-License-Identifier: Apache-2.0
"""What is drawn, and from which random numbers: a sample is a function of (seed, id, sample), not of its batch."""

import hashlib
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class Prompt:
    """What one row asks the model.

    Attributes:
        id: the row's.
        chat: its messages, with the images in them.
        images: the images alone, in order.
    """

    id: str
    chat: list[dict[str, Any]]
    images: list[Any]


@dataclass(frozen=True)
class Draw:
    """One sample.

    Attributes:
        id: the row's.
        sample: which of the row's samples it is, from 0.
        completion: without special tokens; None where a server gave none.
        num_tokens: of the completion, with the one that ended it; None where a server does not say.
        finish_reason: `stop`, or `length` when the limit of tokens cut it.
        failure: why there is no completion.
    """

    id: str
    sample: int
    completion: str | None
    num_tokens: int | None = None
    finish_reason: str = "stop"
    failure: str | None = None


class Sampler(Protocol):
    """A model that is sampled.

    Attributes:
        num_ahead: batches that may be started before the first of them is waited for.
    """

    num_ahead: int

    def start(self, prompts: Sequence[Prompt], wanted: Set[tuple[str, int]]) -> Callable[[], list[Draw]]:
        """Begin with the samples of some prompts; what it returns waits for them.

        Args:
            prompts: whose samples.
            wanted: ids and numbers of those that are kept. More may be drawn, where that makes them the same as in
                a run that was not interrupted.
        """
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...


def uniforms(seed: int, row_id: str, sample: int, count: int) -> np.ndarray:
    """The uniform numbers in [0, 1) that decide a sample, one for each of its tokens."""
    digest = hashlib.blake2b(f"{seed}\n{sample}\n{row_id}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big"))).random(count)


def seed_of(seed: int, row_id: str, sample: int) -> int:
    """A seed below 2^31 for engines that take one for each request; those of a row's samples all differ."""
    digest = hashlib.blake2b(f"{seed}\n{row_id}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") + sample) % 2**31
