# SPDX-License-Identifier: Apache-2.0
"""What a run leaves for those who look at it while it goes on: `log.jsonl`, and the folder of its images."""

import json
import math
from pathlib import Path
from typing import Any

#: Every logged metric, a line for each step.
LOG_FILE = "log.jsonl"
#: Thumbnails, by key.
IMAGES_FOLDER = "rollout_images"
#: What the metrics of the held-out rows begin with.
HELD_OUT = "held_out/"


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log file. What is no object is left out: the last line may still be under way."""
    entries = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            entries.append(entry)
    return entries


def finite(value: Any) -> Any:
    """The value; None for a number that JSON has no word for."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
