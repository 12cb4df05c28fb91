# SPDX-License-Identifier: Apache-2.0
r"""When two texts are the same mathematical expression.

Equal texts and plain numbers are decided here; the rest is math-verify's `verify(gold, answer)`, which is not
symmetric. Both are turned into LaTeX first (`8√{3}` to `8\sqrt{3}`, `65π` to `65\pi`) and put between dollar signs,
without which math-verify reads the first number it finds: `8√{3}` as 8.

A unit behind a constant is taken off and compared as that of a number: `8√{3} cm` equals `8√{3}` and `8√{3}厘米`, not
`8√{3} m`. `5 m` is a length, not a product, for math-verify as for us.

SymPy may compute forever on an answer like `10^{10^{10}}`, in C code that no exception interrupts, and math-verify's
own time limit needs the main thread. So it runs in a process of its own, started when first needed and ended at the
limit.
"""

import functools
import json
import logging
import os
import re
import subprocess
import sys
import threading

from open_r1_vision.rewards.numbers import numbers_equal, parse_known_unit, parse_number

logger = logging.getLogger(__name__)

#: Processor time for one comparison, in seconds; usual ones take up to 0.15. By the clock on the wall, rewards would
#: depend on the machine's load.
TIME_LIMIT = 0.5
#: Longer expressions are equal only if they are the same text.
MAX_EXPRESSION_CHARS = 1_000

_LATEX = {
    "π": r"\pi ",
    "°": r"^\circ ",
    "∘": r"^\circ ",
    "×": r"\times ",
    "÷": r"\div ",
    "·": r"\cdot ",
    "±": r"\pm ",
    "≤": r"\le ",
    "≥": r"\ge ",
    "≠": r"\ne ",
    "∞": r"\infty ",
    "−": "-",
    "²": "^2",
    "³": "^3",
}
_DELIMITERS = re.compile(r"\\?\$|\\[()\[\]]")
_SPACES = re.compile(r"\\(?:quad|qquad|[,;:! ])|~")
_UNIT_IN_CHINESE = re.compile(r"[\u4e00-\u9fff]+$")
_ROOT = re.compile(r"(?:√|(?<![\\A-Za-z])sqrt)\s*(?:\(([^()]*)\)|(?=\{)|(\d+|[A-Za-z]))")
_SPELLED_PI = re.compile(r"(?<![\\A-Za-z])pi(?![A-Za-z])")
_WORDS = re.compile(r"[A-Za-z]{3,}(?:\s+[A-Za-z]+)*")
_NUMBERS_IN_A_ROW = re.compile(r"\d\s+\d+(?![\d\s]*/)")
_SIGNS = re.compile(r"[\\^=√<>≤≥±∞π°]")
#: The longest start of a text that can be a constant, and how it ends where a unit may follow.
_CONSTANT = re.compile(
    r"(?:\\(?:sqrt|[dt]?frac|pi|cdot|times|div|left|right)(?![A-Za-z])|(?:sqrt|pi)(?![A-Za-z])|\\[,;:! ]"
    r"|[\d\s.+\-−*/^(){}√π×÷·~])*",
    re.ASCII,
)
_ENDS_A_VALUE = re.compile(r"(?:[\d)}π]|pi)$", re.ASCII)
_IRRATIONAL = re.compile(r"√|sqrt|π|pi|frac")


def looks_like_math(text: str) -> bool:
    """Whether the text has a sign that occurs in mathematics rather than in words."""
    return _SIGNS.search(text) is not None


def same_expression(answer: str, gold: str) -> bool:
    """Whether two expressions are equal; False when it can't be told within the time limit.

    Works in any thread and after a fork.
    """
    if _same_text(answer, gold):
        return True
    number, gold_number = parse_number(answer), parse_number(gold)
    if number is not None and gold_number is not None:
        return numbers_equal(number, gold_number)
    (answer, unit), (gold, gold_unit) = split_unit(answer), split_unit(gold)
    if unit and gold_unit and unit != gold_unit:
        return False
    if _same_text(answer, gold):
        return True
    if max(len(answer), len(gold)) > MAX_EXPRESSION_CHARS or _WORDS.fullmatch(answer) or _WORDS.fullmatch(gold):
        return False  # math-verify reads words as products of letters
    latex = to_latex(answer)
    if _NUMBERS_IN_A_ROW.search(latex):
        return False  # math-verify adds them up
    return _verify(to_latex(gold), latex)


def split_unit(text: str) -> tuple[str, str]:
    """A constant and the canonical unit behind it; the whole text and no unit where it is anything else.

    Only units of the tables in `numbers` are split off: `8√{3}x` may be a product.
    """
    plain = _DELIMITERS.sub(" ", text).strip()
    match = _CONSTANT.match(plain)
    assert match is not None  # it may be empty
    constant = _SPACES.sub(" ", match[0]).strip()
    unit = parse_known_unit(plain[match.end() :]) if _ENDS_A_VALUE.search(constant) else None
    return (text, "") if unit is None else (constant, unit)


def is_constant(text: str) -> bool:
    """Whether a text is one number, or an expression of numbers with roots, π or fractions; a unit may follow."""
    if parse_number(text) is not None:
        return True
    expression = _DELIMITERS.sub(" ", split_unit(text)[0])
    is_one = _CONSTANT.fullmatch(expression) is not None and not _NUMBERS_IN_A_ROW.search(expression)
    return is_one and _IRRATIONAL.search(expression) is not None


def to_latex(text: str) -> str:
    """The expression as LaTeX between dollar signs."""
    text = _DELIMITERS.sub(" ", text).strip()
    text = _UNIT_IN_CHINESE.sub("", _SPACES.sub(" ", text))
    text = _ROOT.sub(lambda match: r"\sqrt" + (f"{{{match[1] or match[2]}}}" if match[1] or match[2] else ""), text)
    text = _SPELLED_PI.sub(r"\\pi ", text)
    return f"${''.join(_LATEX.get(character, character) for character in text).strip()}$"


def _same_text(first: str, second: str) -> bool:
    return "".join(first.split()) == "".join(second.split())


class _Worker:
    """A process that answers one comparison at a time; it is replaced when it dies."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._warned = False

    def verify(self, gold: str, answer: str) -> bool:
        """Compare two LaTeX texts; False when that takes too long or ends the process."""
        with self._lock:
            process = self._process
            if process is None or process.poll() is not None:
                process = self._process = _start()
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(json.dumps([gold, answer]).encode() + b"\n")
            process.stdin.flush()
            equal = json.loads(process.stdout.readline() or b"null")
            if equal is None and not self._warned:
                logger.warning(
                    "math-verify did not come to an end within %s s on the answer %.100r, which scores 0. Said once.",
                    TIME_LIMIT,
                    answer,
                )
                self._warned = True
            return bool(equal)


def _start() -> subprocess.Popen[bytes]:
    # Not multiprocessing: its spawn imports the main script again, with torch, and runs it where it has no guard.
    code = f"from open_r1_vision.rewards.math_worker import serve; serve({TIME_LIMIT})"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        start_new_session=True,  # Ctrl-C is for the trainer; the worker ends when its input does
    )
    assert process.stdout is not None
    if not process.stdout.readline():
        raise RuntimeError(
            f"The process that compares mathematical answers ended with code {process.wait()} before it was ready. "
            f"See why with: {sys.executable} -c {code!r}"
        )
    return process


_worker = _Worker()


def _renew_worker() -> None:
    """A child must neither share its parent's pipes nor inherit a lock that a thread of the parent holds."""
    global _worker
    _worker = _Worker()


os.register_at_fork(after_in_child=_renew_worker)


@functools.lru_cache(maxsize=4096)
def _verify(gold: str, answer: str) -> bool:
    return _worker.verify(gold, answer)
