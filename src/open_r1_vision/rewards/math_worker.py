# SPDX-License-Identifier: Apache-2.0
"""The process in which math-verify runs: `[gold, answer]` as a line of JSON in, `true` or `false` out.

The limit holds from any thread of the trainer and after the trainer is gone, because the process sets it for itself:
the default action of SIGPROF ends it, also within C code. To lose no time with imports it works in a fork of itself,
and forks again when that ends; `null` is then the reply. Windows has neither fork nor SIGPROF.
"""

import contextlib
import json
import os
import resource
import signal
import sys

from math_verify import LatexExtractionConfig, parse, verify

_MAX_BYTES = 4 * 1024**3


def serve(time_limit: float) -> None:
    """Compare pairs from standard input until it ends.

    Args:
        time_limit: processor time for one pair, in seconds.
    """
    _, hard_limit = resource.getrlimit(resource.RLIMIT_AS)
    with contextlib.suppress(ValueError, OSError):  # macOS refuses, and a lower hard limit will do
        resource.setrlimit(resource.RLIMIT_AS, (_MAX_BYTES, hard_limit))
    _equal("$x^2 + 1$", r"$\frac{1}{2} + \sqrt{3}$")  # builds the parser's tables before the clock runs
    _write("ready")
    while True:
        child = os.fork()
        if child == 0:
            _compare_lines(time_limit)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status == 0:
            return
        _write("null")


def _compare_lines(time_limit: float) -> None:
    for line in sys.stdin:
        gold, answer = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, time_limit)
        equal = _equal(gold, answer)
        signal.setitimer(signal.ITIMER_PROF, 0)
        _write(json.dumps(equal))


def _equal(gold: str, answer: str) -> bool:
    expressions = [
        parse(text, [LatexExtractionConfig()], fallback_mode="no_fallback", parsing_timeout=None)
        for text in (gold, answer)
    ]
    return bool(verify(expressions[0], expressions[1], timeout_seconds=None))


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
