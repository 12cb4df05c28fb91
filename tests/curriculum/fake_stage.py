# SPDX-License-Identifier: Apache-2.0
"""A stage that takes no time: writes what it was told, and fails or is interrupted where its settings say so."""

import json
import os
import signal
import sys
import time
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
if settings.get("signal_parent") and starts == 1:
    if settings.get("deaf"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.kill(os.getppid(), settings["signal_parent"])
    time.sleep(1 if settings.get("deaf") else 60)
if settings.get("checkpoint"):
    (folder / "checkpoint-1").mkdir(exist_ok=True)
if settings.get("sample"):
    (folder / "shard-00000.jsonl").write_text("{}\n")
if starts <= settings.get("failures", 0):
    sys.exit(3)
(folder / "final").mkdir(exist_ok=True)
(folder / "final" / "weights.txt").write_text(str(settings.get("model_name_or_path")))
curve = {"0": {"accuracy": 0.25}, "5": {"accuracy": settings.get("accuracy", 0.5)}}
(folder / "results.json").write_text(json.dumps({"steps": 5, "held_out": {"curve": curve}}))
