# SPDX-License-Identifier: Apache-2.0
"""Taking turns in one process, with the time, the processor's time and the memory of each turn."""

import ctypes
import functools
import gc
import math
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Turn:
    """What one turn took.

    Attributes:
        seconds: by the clock.
        processor: seconds of the processor, of all threads.
        num_bytes: memory at the peak beyond what was held before; nan where the system doesn't tell.
        num_tokens: what was sampled or trained.
    """

    seconds: float
    processor: float
    num_bytes: float
    num_tokens: int


def take_turns(
    names: Sequence[str],
    work: Callable[[str, int], int],
    *,
    repeats: int,
    device: str = "cpu",
    prepare: Callable[[str, int], None] | None = None,
) -> dict[str, list[Turn]]:
    """Let each of several do the same work in turn, each as often first as last.

    Args:
        names: of those who take turns.
        work: what is measured; gets a name and the number of the round, and returns the number of tokens.
        repeats: rounds that count; one before them, number 0, doesn't.
        device: `cuda` waits for the GPU, and measures its memory.
        prepare: what has to be done before each turn and isn't measured.
    """
    turns: dict[str, list[Turn]] = {name: [] for name in names}
    # `train()` collects garbage when it begins, which is to look through what a step left, not through all modules
    gc.collect()
    gc.freeze()
    try:
        for number in range(repeats + 1):
            for name in names if number % 2 else reversed(names):
                if prepare is not None:
                    prepare(name, number)
                turn = _measure(functools.partial(work, name, number), device)
                if number:
                    turns[name].append(turn)
    finally:
        gc.unfreeze()
    return turns


def compare(turns: Mapping[str, Sequence[Turn]], first: str) -> dict[str, dict[str, Any]]:
    """The columns that all tables have, by name.

    Args:
        turns: of :func:`take_turns`.
        first: whom the others are compared with.

    Returns:
        Median seconds with the least and the most, tokens per second (None without tokens), how many times as
        fast as the first that is, the highest peak of memory beyond what was held before in MiB, and as a share of
        the first's.
    """
    seconds = {name: statistics.median(turn.seconds for turn in of_name) for name, of_name in turns.items()}
    peaks = {name: max(turn.num_bytes for turn in of_name) for name, of_name in turns.items()}
    return {
        name: {
            "seconds": seconds[name],
            "least": min(turn.seconds for turn in of_name),
            "most": max(turn.seconds for turn in of_name),
            "tokens/s": statistics.median(turn.num_tokens for turn in of_name) / seconds[name] or None,
            "times as fast": seconds[first] / seconds[name],
            "peak MiB": _known(peaks[name] / 2**20),
            "share of peak": _known(peaks[name] / peaks[first]) if peaks[first] else None,
        }
        for name, of_name in turns.items()
    }


def equal_share(ours: Sequence[Any], theirs: Sequence[Any]) -> float:
    """The share of places at which two lists of the same length are equal."""
    return statistics.fmean(a == b for a, b in zip(ours, theirs, strict=True))


def _measure(work: Callable[[], int], device: str) -> Turn:
    memory = Memory(device)
    start, busy = time.perf_counter(), time.process_time()
    num_tokens = work()
    if device == "cuda":
        torch.cuda.synchronize()
    return Turn(time.perf_counter() - start, time.process_time() - busy, memory.peak(), num_tokens)


def _known(value: float) -> float | None:
    # nan is no JSON
    return None if math.isnan(value) else value


class Memory:
    """Memory of this process, or of its GPU, beyond what it holds now. Nan where the system doesn't tell."""

    def __init__(self, device: str) -> None:
        self.device = device
        if device == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
            return
        try:
            ctypes.CDLL("libc.so.6").malloc_trim(0)  # what was freed counts as ours until then
            _CLEAR.write_text("5")  # the peak starts again from here
        except OSError:
            self.device = "unknown"
        self.before = self._status("VmRSS")

    def peak(self) -> float:
        """Bytes."""
        if self.device == "cuda":
            return torch.cuda.max_memory_allocated() - self.before
        return self._status("VmHWM") - self.before if self.device == "cpu" else float("nan")

    @staticmethod
    def _status(name: str) -> int:
        match = re.search(rf"{name}:\s+(\d+) kB", _STATUS.read_text()) if _STATUS.is_file() else None
        return int(match[1]) * 1024 if match else 0
