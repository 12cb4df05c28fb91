# SPDX-License-Identifier: Apache-2.0
"""Held-out accuracy of a model on the starter's tasks.

python eval/starter.py --model open_r1_vision.starter.model.policy --task digits --split test
python eval/starter.py --model runs/starter/visionary_r1/final --task figures --output runs/starter/figures.jsonl
python eval/starter.py --calibration 0.8 --calibration_span info --plausibility 0.1
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

TASKS = ("digits", "figures")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="open_r1_vision.starter.model.policy", help="folder or dotted path")
    parser.add_argument("--task", choices=TASKS, default="digits")
    parser.add_argument("--split", choices=("warm_up", "train", "test"), default="test")
    parser.add_argument("--count", type=int, default=512, help="rows")
    parser.add_argument("--seed", type=int, default=0, help="of the rows")
    parser.add_argument("--calibration", type=float, default=0.0, help="scale of text-bias calibration; 0: plain")
    parser.add_argument("--calibration_span", help="calibrate inside of this section only, such as info")
    parser.add_argument("--plausibility", type=float, default=0.0, help="least share of the top token's probability")
    parser.add_argument("--output", type=Path, help="JSONL file for the samples")
    parser.add_argument("--overwrite", action="store_true", help="replace the output file")
    args = parser.parse_args(argv)
    if args.output and args.output.exists() and not args.overwrite:
        raise SystemExit(f"{args.output} exists: give another --output, or --overwrite to replace it.")

    from open_r1_vision.data.rows import add_prompts
    from open_r1_vision.decoding import CalibratedGenerator, Calibration
    from open_r1_vision.generation import GreedyGenerator
    from open_r1_vision.held_out import MEASURES, evaluate
    from open_r1_vision.prompts import load_prompt
    from open_r1_vision.reasoners.policy import policy_reader
    from open_r1_vision.starter import digits, figures
    from open_r1_vision.statistics import wilson_interval

    try:
        calibration = Calibration(args.calibration, args.plausibility, args.calibration_span)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error
    task = {"digits": digits, "figures": figures}[args.task]
    rows = add_prompts(task.rows(args.split, args.count, args.seed), load_prompt("starter"))
    plain = GreedyGenerator(args.model)
    generate = CalibratedGenerator(plain.model, plain.processor, calibration) if calibration.scale else plain
    reader = policy_reader(plain, load_prompt("starter_reader"), max_tokens=48)
    samples = evaluate(generate, rows, reader=reader, max_new_tokens=60)
    sys.stdout.write(f"{args.model} on {len(samples)} {args.split} rows of {args.task}, greedy")
    sys.stdout.write(f", {calibration}\n" if calibration.scale else "\n")
    for name, label in MEASURES.items():
        scores = [score for sample in samples if (score := getattr(sample, name)) is not None]
        if scores:
            sys.stdout.write(f"{label:<50} {wilson_interval(scores)}\n")
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text("".join(json.dumps(asdict(sample)) + "\n" for sample in samples), encoding="utf-8")


if __name__ == "__main__":
    main()
