# SPDX-License-Identifier: Apache-2.0
"""A stage that takes no time: writes what it was told, and fails or is interrupted where its settings say so."""

import json
import os
import signal
import sys
from pathlib import Path

import yaml

settings = yaml.safe_load(Path(sys.argv[sys.argv.index("--config") + 1]).read_text())
folder = Path(settings["output_dir"])
folder.mkdir(parents=True, exist_ok=True)
with (folder / "starts.txt").open("a") as file:
    file.write("start\n")
starts = len((folder / "starts.txt").read_text().splitlines())
if settings.get("kill_parent") and starts == 1:
    os.kill(os.getppid(), signal.SIGKILL)
if starts <= settings.get("failures", 0):
    sys.exit(3)
(folder / "final").mkdir(exist_ok=True)
(folder / "final" / "weights.txt").write_text(str(settings.get("model_name_or_path")))
curve = {"0": {"accuracy": 0.25}, "5": {"accuracy": settings.get("accuracy", 0.5)}}
(folder / "results.json").write_text(json.dumps({"steps": 5, "held_out": {"curve": curve}}))
