# SPDX-License-Identifier: Apache-2.0
"""Curricula of stages that take no time, see `fake_stage.py`."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
FAKE = [sys.executable, str(HERE / "fake_stage.py"), "--config"]
#: The command with such stages, in a process of its own. Their settings are no entry point's, so names aren't checked.
RUN = f"""
import sys
from open_r1_vision.curriculum import __main__ as command
command.build_command = lambda module, recipe, processes: [*{FAKE!r}, str(recipe)]
command.find_wrong_names = lambda *_: []
sys.exit(command.main(sys.argv[1:]))
"""
NAMES = ("warm_up", "perceive", "reason")


def stages(*changes):
    """Three stages, each of which takes the model of the one before, with further settings."""
    plain = []
    for index, name in enumerate(NAMES):
        model = "base" if not index else f"{{{NAMES[index - 1]}.final}}"
        change = changes[index] if index < len(changes) else {}
        plain.append({"name": name, "run": "train", "settings": {"model_name_or_path": model, **change}})
    return plain


def starts(folder, name):
    """How often a stage was started since its folder was made."""
    return len((folder / name / "starts.txt").read_text().splitlines())
