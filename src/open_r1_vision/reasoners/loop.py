# SPDX-License-Identifier: Apache-2.0
"""An event loop in a thread of its own, so that requests go on while the trainer computes."""

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any


async def cancel_others() -> None:
    """Give up what else is under way in this loop, so that nothing is left pending when it ends."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


class LoopThread:
    """Runs coroutines in a daemon thread, which starts when it is first needed. For one process: see `is_mine`."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def is_mine(self) -> bool:
        """Whether it belongs to this process; a fork copies the object, but not the thread."""
        return self._process == os.getpid()

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> Future:
        """Run a coroutine; returns at once."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="reasoner", daemon=True)
                self._thread.start()
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def stop(self) -> None:
        """End the thread of this process; what still runs there is dropped."""
        if not self.is_mine:
            return
        with self._lock:
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(5)
            if not thread.is_alive():
                loop.close()
