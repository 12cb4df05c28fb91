# SPDX-License-Identifier: Apache-2.0
"""Nothing but the doctor's lines: progress bars, warnings and logs of other libraries are kept out of them."""

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO


@contextlib.contextmanager
def keep_quiet(is_wanted: bool = True) -> Iterator[Callable[[str], None]]:
    """What is written to standard output and error goes nowhere; returns what writes a line nevertheless.

    Args:
        is_wanted: without, everything is written as it comes.
    """
    if not is_wanted:
        yield _writer(sys.stdout)
        return
    sys.stdout.flush()
    sys.stderr.flush()
    with contextlib.ExitStack() as keep:
        say = _writer(keep.enter_context(_keep_descriptors(sys.stdout)))
        sink: Any = _Nowhere()
        # before anything heavy is imported: loggers keep the stream that there is when they are made
        keep.enter_context(contextlib.redirect_stdout(sink))
        keep.enter_context(contextlib.redirect_stderr(sink))
        yield say


class _Nowhere(io.TextIOBase):
    """Takes text, and stays open for the loggers that were given it."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        return len(text)


@contextlib.contextmanager
def _keep_descriptors(out: TextIO) -> Iterator[TextIO]:
    """Compiled code and child processes write past Python's streams: point these elsewhere, and give a copy of `out`.

    Where `out` is no file, as in a notebook, there is nothing to point elsewhere.
    """
    try:
        number = out.fileno()
    except (OSError, ValueError):
        yield out
        return
    saved = {1: os.dup(1), 2: os.dup(2)}
    with os.fdopen(os.dup(number), "w", encoding="utf-8") as copy, open(os.devnull, "w", encoding="utf-8") as nowhere:
        try:
            for descriptor in saved:
                os.dup2(nowhere.fileno(), descriptor)
            yield copy
        finally:
            for descriptor, before in saved.items():
                os.dup2(before, descriptor)
                os.close(before)


def _writer(out: TextIO) -> Callable[[str], None]:
    def say(line: str) -> None:
        out.write(line + "\n")
        out.flush()

    return say
