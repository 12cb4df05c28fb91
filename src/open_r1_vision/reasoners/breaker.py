# SPDX-License-Identifier: Apache-2.0
"""A circuit breaker: a server that is down is asked by one request at a time, and the others wait.

    closed   requests go out. `failures` failed attempts in a row open it.
    open     one request at a time probes, after a pause that doubles from probe to probe; the others wait. The first
             sign of life closes it.
    tripped  open for `outage_seconds`: the others no longer wait, they fail at once; probes go on.

So a server that restarts costs time and no verdict, and one that stays away costs `outage_seconds` once, not once for
each batch.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

_LONGEST_PAUSE = 30.0
_LONGEST_WAIT = 0.25


@dataclass(frozen=True, slots=True)
class Permission:
    """What a request may do: `go`, `probe` (go alone, and report), `wait` (ask again), or `refuse` (give up)."""

    action: str
    seconds: float = 0.0


class Breaker:
    """The state of one server, for one event loop.

    Args:
        failures: failed attempts in a row that open it, at least 1.
        outage_seconds: how long requests wait before they are refused.
        pause_seconds: from a failed probe to the next; doubled each time, up to 30 s.
        clock: gives seconds that never go back.
    """

    def __init__(
        self, failures: int, outage_seconds: float, pause_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = failures
        self._outage_seconds = outage_seconds
        self._first_pause = max(pause_seconds, 0.05)
        self._clock = clock
        self._failures = 0
        self._open_since: float | None = None
        self._pause = self._first_pause
        self._next_probe = 0.0
        self._probing = False

    @property
    def is_open(self) -> bool:
        """Whether the server counts as down."""
        return self._open_since is not None

    def ask(self) -> Permission:
        """What a request may do now. After `probe` it must call `succeeded` or `failed`."""
        if self._open_since is None:
            return Permission("go")
        now = self._clock()
        if self._probing:
            return Permission("wait", _LONGEST_WAIT)
        if now >= self._next_probe:
            self._probing = True
            return Permission("probe")
        if now - self._open_since >= self._outage_seconds:
            return Permission("refuse")
        return Permission("wait", min(self._next_probe - now, _LONGEST_WAIT))

    def succeeded(self) -> bool:
        """The server gave a sign of life; returns whether that ends an outage."""
        was_open = self.is_open
        self._failures = 0
        self._open_since = None
        self._probing = False
        self._pause = self._first_pause
        return was_open

    def failed(self, was_probe: bool) -> bool:
        """An attempt failed; returns whether an outage begins."""
        self._failures += 1
        now = self._clock()
        if was_probe:
            self._probing = False
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            self._next_probe = now + self._pause
        elif self._open_since is None and self._failures >= self._limit:
            self._open_since = now
            self._next_probe = now + self._pause
            return True
        return False
