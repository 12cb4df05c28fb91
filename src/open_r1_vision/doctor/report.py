# SPDX-License-Identifier: Apache-2.0
"""What was found: a line for each thing, and whether one of them would stop the run."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from open_r1_vision.importing import describe_error

OK, NOTE, STOP = "ok", "note", "STOP"


@dataclass
class Report:
    """Collects findings, and says each as soon as it is known.

    Attributes:
        say: gets each line.
        is_verbose: whether what is as it should be is explained too.
        findings: level, topic and text of each.
        stage: of a curriculum, which its lines are about; they begin with its name.
    """

    say: Callable[[str], None]
    is_verbose: bool = False
    findings: list[tuple[str, str, str]] = field(default_factory=list)
    stage: str = ""

    def of(self, stage: str) -> "Report":
        """The same report, for lines about a stage."""
        return replace(self, stage=stage)

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
        """What goes wrong is what would stop the run, said once; what comes after is looked at nevertheless."""
        try:
            yield
        except (Exception, SystemExit) as error:  # noqa: BLE001 - of code that a recipe names
            text = describe_error(error)
            if not self.was_said(text):
                self.stop(topic, text)

    def was_said(self, text: str) -> bool:
        """Whether this would stop the run by a finding that there is already, of whichever topic."""
        return any(level == STOP and found.endswith(text) for level, _, found in self.findings)

    @property
    def num_stops(self) -> int:
        """How many things would stop the run."""
        return sum(level == STOP for level, _, _ in self.findings)

    def _add(self, level: str, topic: str, text: str) -> None:
        if self.stage:
            topic, text = self.stage, f"{topic}: {text}" if topic else text
        self.findings.append((level, topic, text))
        first, *rest = text.splitlines() or [""]
        self.say("\n".join([f"{level:4}  {topic:11}  {first}", *(f"{'':19}{line}" for line in rest)]))
