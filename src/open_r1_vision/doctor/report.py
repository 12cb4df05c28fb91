# SPDX-License-Identifier: Apache-2.0
"""What was found: a line for each thing, and whether one of them would stop the run."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

OK, NOTE, STOP = "ok", "note", "STOP"


@dataclass
class Report:
    """Collects findings, and says each as soon as it is known.

    Attributes:
        say: gets each line.
        is_verbose: whether what is as it should be is explained too.
        findings: level, topic and text of each.
    """

    say: Callable[[str], None]
    is_verbose: bool = False
    findings: list[tuple[str, str, str]] = field(default_factory=list)

    def ok(self, topic: str, text: str) -> None:
        """Something is as it should be."""
        self._add(OK, topic, text)

    def note(self, topic: str, text: str) -> None:
        """Something to know, which stops nothing."""
        self._add(NOTE, topic, text)

    def stop(self, topic: str, text: str) -> None:
        """Something that would stop the run, and what to do about it."""
        self._add(STOP, topic, text)

    @contextlib.contextmanager
    def attempt(self, topic: str) -> Iterator[None]:
        """What goes wrong is what would stop the run; what comes after is looked at nevertheless."""
        try:
            yield
        except (ValueError, OSError, ImportError) as error:
            self.stop(topic, str(error))

    @property
    def num_stops(self) -> int:
        """How many things would stop the run."""
        return sum(level == STOP for level, _, _ in self.findings)

    def _add(self, level: str, topic: str, text: str) -> None:
        self.findings.append((level, topic, text))
        first, *rest = text.splitlines() or [""]
        self.say("\n".join([f"{level:4}  {topic:11}  {first}", *(f"{'':19}{line}" for line in rest)]))
