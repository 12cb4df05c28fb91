# SPDX-License-Identifier: Apache-2.0
"""The command with stages that take no time."""

import signal

import pytest
import yaml
from fake_curriculum import FAKE

from open_r1_vision.curriculum import __main__ as command


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """`run(stages, *words)` gives exit code and output; `run.folder` is the curriculum's."""
    monkeypatch.setattr(command, "build_command", lambda module, recipe, processes: [*FAKE, str(recipe)])
    monkeypatch.setattr(command, "find_wrong_names", lambda *_: [])

    def run(stages, *words, **keys):
        keys = {"output_dir": str(run.folder), **keys}
        run.config.write_text(yaml.safe_dump({"stages": stages, **keys}))
        code = command.main([*words, "--config", str(run.config)])
        return code, capsys.readouterr().out

    run.config, run.folder = tmp_path / "curriculum.yaml", tmp_path / "runs"
    return run


@pytest.fixture(autouse=True)
def signals_as_in_a_terminal():
    """A test runner in the background ignores some, which the processes that it starts would do too."""
    ignored = [number for number in (signal.SIGINT, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
