# SPDX-License-Identifier: Apache-2.0
"""`python -m open_r1_vision.bench SUBCOMMAND`: a table on the screen, and a JSON with `--json PATH`."""

import argparse
import json
import platform
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
import trl

from open_r1_vision.bench import calibration, caption, generate, hint, judge, step, update, waste

SUBCOMMANDS = {
    "update": update,
    "generate": generate,
    "caption": caption,
    "hint": hint,
    "calibration": calibration,
    "judge": judge,
    "step": step,
    "waste": waste,
}


def main(words: Sequence[str] | None = None) -> None:
    """Run one subcommand."""
    parser = argparse.ArgumentParser(prog="python -m open_r1_vision.bench", description=__doc__)
    parsers = parser.add_subparsers(dest="subcommand", required=True)
    for name, module in SUBCOMMANDS.items():
        subparser = parsers.add_parser(name, description=module.__doc__)
        module.add_arguments(subparser)
        subparser.add_argument("--json", metavar="PATH", help="where the rows go, with versions and command")
    args = parser.parse_args(words)
    rows = SUBCOMMANDS[args.subcommand].run(args)
    sys.stdout.write(format_table(rows) + "\n")
    if args.json:
        about = {
            "command": ["python", "-m", "open_r1_vision.bench", *(sys.argv[1:] if words is None else words)],
            "machine": torch.cuda.get_device_name() if getattr(args, "device", "cpu") == "cuda" else _processor(),
            "threads": torch.get_num_threads(),
            "versions": {module.__name__: module.__version__ for module in (torch, transformers, trl)},
        }
        Path(args.json).write_text(json.dumps({**about, "rows": rows}, indent=2) + "\n", encoding="utf-8")


def format_table(rows: Sequence[dict[str, Any]]) -> str:
    """A Markdown table with the columns of the first row."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([_shown(row.get(name)) for name in names] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _processor() -> str:
    """The processor's name; Python knows no more than its architecture on Linux."""
    path = Path("/proc/cpuinfo")
    match = re.search(r"^model name\s*: (.*)$", path.read_text(), re.MULTILINE) if path.is_file() else None
    return match[1] if match else platform.processor() or platform.machine()


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
