# SPDX-License-Identifier: Apache-2.0
"""Where the seconds of a step go."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class StepTimer:
    """Wall-clock seconds by name; a timing inside another is taken off the outer one, so that all add up."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner = [0.0]

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Add the time spent in the block, less that of timings inside it, to `name`."""
        start = time.perf_counter()
        self._inner.append(0.0)
        try:
            yield
        finally:
            elapsed = time.perf_counter() - start
            self.seconds[name] += elapsed - self._inner.pop()
            self._inner[-1] += elapsed

    def flush(self) -> dict[str, float]:
        """The seconds since the last flush."""
        seconds = dict(self.seconds)
        self.seconds.clear()
        return seconds
