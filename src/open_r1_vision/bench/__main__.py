# SPDX-License-Identifier: Apache-2.0
"""Ours beside stock TRL: `python -m open_r1_vision.bench SUBCOMMAND` writes a table, and a JSON with `--json PATH`."""

import argparse
import importlib
import json
import platform
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

#: What each subcommand measures; the module of its name does it, and says more.
SUBCOMMANDS = {
    "update": "loss and gradients of a micro-batch",
    "generate": "sampling, and the processor's work",
    "caption": "a batch whose captions the policy reads",
    "hint": "a step with hints: tokens sampled, seconds",
    "calibration": "calibrated decoding",
    "judge": "fact judging of a step's completions",
    "step": "a whole step, and its parts",
    "waste": "what a step leaves out: silent completions, rows read before",
}
#: Options of subcommands that count something.
_COUNTS = ("prompts", "generations", "tokens", "repeats", "threads")


class _Help(argparse.HelpFormatter):
    """Help that gives defaults, as they are used."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        is_shown = action.default not in (None, False, argparse.SUPPRESS)
        return f"{text} (default %(default)s)".strip() if is_shown else text


def main(words: Sequence[str] | None = None) -> None:
    """Run one subcommand."""
    words = sys.argv[1:] if words is None else list(words)
    parser = argparse.ArgumentParser(prog="python -m open_r1_vision.bench", description=__doc__)
    parsers = parser.add_subparsers(dest="subcommand", required=True)
    module: Any = None
    for name, measured in SUBCOMMANDS.items():
        subparser = parsers.add_parser(name, help=measured, formatter_class=_Help)
        if name in words[:1]:
            # only what is asked for: all of them import torch, which takes seconds
            module = importlib.import_module(f"open_r1_vision.bench.{name}")
            subparser.description = module.__doc__
            module.add_arguments(subparser)
        subparser.add_argument("--json", metavar="PATH", help="where the rows go, with versions and command")
    args = parser.parse_args(words)
    for name in _COUNTS:
        if getattr(args, name, 1) < 1:
            parser.error(f"--{name} is {getattr(args, name)}: there is nothing to measure, give 1 or more")
    if getattr(args, "device", "cpu") == "cuda":
        import torch

        if not torch.cuda.is_available():
            parser.error(f"--device is cuda, but torch {torch.__version__} finds no GPU here: give cpu")
    rows = module.run(args)
    sys.stdout.write(format_table(rows) + "\n")
    if args.json:
        import torch
        import transformers
        import trl

        about = {
            "command": ["python", "-m", "open_r1_vision.bench", *words],
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
