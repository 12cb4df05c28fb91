# SPDX-License-Identifier: Apache-2.0
"""One stage under torchrun, with nothing of it left behind however it, or this process, ends.

torchrun's workers are sessions of their own: a signal to torchrun's process group does not reach them, and they go on
training when torchrun is killed. So torchrun is told when this process dies, signals are passed on to it, and whatever
carries the stage's mark when it is over is killed. A command that was killed itself can't do that: the next one in its
folder does, before it starts anything.
"""

import contextlib
import functools
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from open_r1_vision.distributed import end_with_parent

#: Names the processes of one start, or of one folder, in their environment.
MARK = "OPEN_R1_VISION_STAGE"
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_GRACE_SECONDS = 20.0
#: What torchrun sets for its workers: left over from a caller's torchrun it would mislead ours.
LAUNCHER_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Interrupted(Exception):
    """A stage ended after a signal was passed on to it.

    Attributes:
        signal: the first that came.
        code: the stage's exit code; 0 where it came to its end nevertheless.
    """

    def __init__(self, number: int, code: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}, exit code {code}")
        self.signal, self.code = number, code


def build_command(module: str, recipe: Path, processes: int) -> list[str]:
    """The command line of a stage."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    return [*launcher, "-m", module, "--config", str(recipe)]


def run_stage(command: Sequence[str], mark: str | None = None) -> int:
    """Run a stage to its end and return its exit code; a negative one is the signal that ended it, as for Popen.

    SIGINT, SIGTERM and SIGHUP are passed on, and waited for.

    Args:
        command: of the stage.
        mark: what its processes are known by, for :func:`end_leftovers`; by default of this start alone.

    Raises:
        Interrupted: one of these signals came; the stage is over nevertheless.
    """
    mark = mark or uuid.uuid4().hex
    environment = {name: value for name, value in os.environ.items() if name not in LAUNCHER_VARIABLES}
    environment[MARK] = mark
    # on SIGTERM torchrun ends its workers
    end = functools.partial(end_with_parent, signal.SIGTERM)
    process = subprocess.Popen(command, env=environment, start_new_session=True, preexec_fn=end)
    with _passing_on(process) as received:
        try:
            code = process.wait()
        finally:
            # a second signal must not end this process before the leftovers are gone
            end_leftovers(mark)
    if received:
        raise Interrupted(received[0], code)
    return code


@contextlib.contextmanager
def _passing_on(process: subprocess.Popen) -> Iterator[list[int]]:
    """Pass signals on to a process; the list that is given has those that came."""
    received: list[int] = []

    def pass_on(number: int, frame: object) -> None:
        received.append(number)
        # torchrun ends its workers on SIGTERM; on SIGINT they would all print a traceback
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)

    # what is ignored, as nohup has it for SIGHUP, stays so
    heeded = [number for number in _PASSED_ON if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, pass_on) for number in heeded}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_leftovers(mark: str) -> None:
    """End the processes of a mark that lost their launcher: politely, then not."""
    left = _find(mark)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    deadline = time.monotonic() + (_GRACE_SECONDS if left else 0)
    while left and time.monotonic() < deadline:
        time.sleep(0.1)
        left = _find(mark)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()


def _find(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
