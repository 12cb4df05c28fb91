# SPDX-License-Identifier: Apache-2.0
"""No process of a stage outlives it, however it or its supervisor ends."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from open_r1_vision.curriculum.launch import build_command, run_stage

#: A launcher whose worker is a session of its own, as torchrun's are; the worker's process id goes to a file.
LAUNCHER = """
import subprocess, sys, time
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
with open(sys.argv[1] + ".tmp", "w") as file:
    file.write(str(worker.pid))
import os; os.rename(sys.argv[1] + ".tmp", sys.argv[1])
time.sleep(float(sys.argv[2]))
sys.exit(int(sys.argv[3]))
"""
SUPERVISOR = """
import sys
from open_r1_vision.curriculum.launch import Interrupted, run_stage
try:
    sys.exit(abs(run_stage(sys.argv[1:])))
except Interrupted as end:
    print(end.signal, end.code)
    sys.exit(99)
"""
#: A stage that ends well in spite of SIGTERM, and leaves a worker that takes no notice of it for a while.
DEAF = """
import signal, subprocess, sys, time
code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); open(%r, 'w'); time.sleep(60)"
worker = subprocess.Popen([sys.executable, "-c", code % (sys.argv[1] + ".ready")], start_new_session=True)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
import os
while not os.path.exists(sys.argv[1] + ".ready"):
    time.sleep(0.01)
with open(sys.argv[1] + ".tmp", "w") as file:
    file.write(str(worker.pid))
os.rename(sys.argv[1] + ".tmp", sys.argv[1])
time.sleep(60)
"""


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def is_gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def launcher(path, seconds, code=0):
    return [sys.executable, "-c", LAUNCHER, str(path), str(seconds), str(code)]


@pytest.mark.parametrize("code", [0, 7])
def test_workers_that_a_launcher_leaves_behind_are_ended(tmp_path, code):
    assert run_stage(launcher(tmp_path / "pid", 0, code)) == code
    assert is_gone(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_are_passed_on(tmp_path, number):
    pid_file = tmp_path / "pid"
    words = [sys.executable, "-c", SUPERVISOR, *launcher(pid_file, 60)]
    supervisor = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    wait_for(pid_file.exists)
    supervisor.send_signal(number)
    assert supervisor.communicate(timeout=30)[0].split() == [str(int(number)), str(-signal.SIGTERM)]
    assert is_gone(int(pid_file.read_text()))


def test_a_second_signal_leaves_no_worker_behind(tmp_path):
    """It comes while leftovers are being ended, and that takes its time."""
    pid_file, quick = tmp_path / "pid", "import open_r1_vision.curriculum.launch as l; l._GRACE_SECONDS = 3.0\n"
    words = [sys.executable, "-c", quick + SUPERVISOR, sys.executable, "-c", DEAF, str(pid_file)]
    supervisor = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    wait_for(pid_file.exists)
    (stage,) = psutil.Process(supervisor.pid).children()
    supervisor.send_signal(signal.SIGINT)
    wait_for(lambda: is_gone(stage.pid))
    supervisor.send_signal(signal.SIGINT)
    # the stage ended well, but somebody wanted an end
    assert supervisor.communicate(timeout=30)[0].split() == [str(int(signal.SIGINT)), "0"]
    assert is_gone(int(pid_file.read_text()))


def test_a_signal_that_is_ignored_stays_so(tmp_path):
    """As nohup has it."""
    pid_file = tmp_path / "pid"
    words = [sys.executable, "-c", SUPERVISOR, *launcher(pid_file, 2, 7)]
    nohup = "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    supervisor = subprocess.Popen([sys.executable, "-c", nohup, *words])
    wait_for(pid_file.exists)
    supervisor.send_signal(signal.SIGHUP)
    assert supervisor.wait(30) == 7


def test_a_launcher_ends_when_its_supervisor_is_killed(tmp_path):
    pid_file = tmp_path / "pid"
    supervisor = subprocess.Popen([sys.executable, "-c", SUPERVISOR, *launcher(pid_file, 60)])
    wait_for(pid_file.exists)
    (child,) = psutil.Process(supervisor.pid).children()
    supervisor.kill()
    supervisor.wait()
    wait_for(lambda: is_gone(child.pid))
    os.kill(int(pid_file.read_text()), signal.SIGKILL)  # this launcher, unlike torchrun, leaves its worker alone


def test_the_command_is_one_that_a_person_can_give(tmp_path):
    command = build_command("open_r1_vision.train", tmp_path / "a.yaml", 2)
    assert command[1:] == [
        *("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"),
        *("-m", "open_r1_vision.train", "--config", str(tmp_path / "a.yaml")),
    ]
