# SPDX-License-Identifier: Apache-2.0
"""What text-bias calibrated decoding does to the starter, and what a token of it costs.

    python eval/calibration.py --output runs/starter/calibration

Held-out accuracy and caption exactness against the scale s, for calibration of the whole reply and of the caption
alone, with Wilson's 95 % intervals. The cost is the time for a batch over that of plain decoding, prompts included,
both made to write 60 tokens a row: they take turns, and the median of the ratios is shown. Writes calibration.json,
calibration.md and calibration.png into the output folder. Set OMP_NUM_THREADS to no more than the free cores.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

TASKS = ("digits", "figures")
SPANS = (None, "info")
MEASURES = ("accuracy", "caption_exact")
MAX_NEW_TOKENS = 60


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="open_r1_vision.starter.model.policy", help="folder or dotted path")
    parser.add_argument("--task", choices=TASKS, default="digits")
    parser.add_argument("--count", type=int, default=512, help="held-out rows")
    parser.add_argument("--seed", type=int, default=0, help="of the rows")
    parser.add_argument(
        "--scales", type=float, nargs="+", default=[0.0, 0.4, 0.8, 1.6], help="values of s; 0 is always there"
    )
    parser.add_argument("--plausibility", type=float, default=0.0, help="least share of the top token's probability")
    parser.add_argument("--batch_size", type=int, default=128, help="rows that are decoded at a time")
    parser.add_argument("--repeats", type=int, default=9, help="timed batches of each kind")
    parser.add_argument("--output", type=Path, default=Path("runs/starter/calibration"), help="folder")
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier call wrote there")
    args = parser.parse_args(argv)
    if (args.output / "calibration.json").exists() and not args.overwrite:
        raise SystemExit(f"{args.output} holds results: give another --output, or --overwrite to replace them.")

    from open_r1_vision.data.rows import add_prompts
    from open_r1_vision.decoding import CalibratedGenerator, Calibration
    from open_r1_vision.generation import GreedyGenerator
    from open_r1_vision.prompts import load_prompt
    from open_r1_vision.starter import digits, figures

    task = {"digits": digits, "figures": figures}[args.task]
    rows = add_prompts(task.rows("test", args.count, args.seed), load_prompt("starter"))
    plain = GreedyGenerator(args.model)
    settings = [(0.0, None)] + [(scale, span) for span in SPANS for scale in args.scales if scale != 0]
    try:
        calibrations = [Calibration(scale, args.plausibility if scale else 0.0, span) for scale, span in settings]
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error
    parts = (plain.model, plain.processor)
    endless = [CalibratedGenerator(*parts, each, min_new_tokens=MAX_NEW_TOKENS) for each in calibrations]
    costs = measure_costs(endless, rows, min(args.batch_size, len(rows)), args.repeats)
    results = []
    for (scale, span), calibration, cost in zip(settings, calibrations, costs, strict=True):
        measures = measure_accuracy(CalibratedGenerator(*parts, calibration), rows, args.batch_size)
        results.append({"scale": scale, "span": span, "cost": cost, **measures})
        sys.stderr.write(f"s = {scale}, {span or 'whole reply'}: {format_cells(results[-1])}\n")
    args.output.mkdir(parents=True, exist_ok=True)
    what = {"model": args.model, "task": args.task, "rows": len(rows), "plausibility": args.plausibility}
    table = format_table(results)
    (args.output / "calibration.json").write_text(json.dumps({**what, "results": results}, indent=1), encoding="utf-8")
    (args.output / "calibration.md").write_text(table, encoding="utf-8")
    draw(args.output / "calibration.png", results, f"{args.task}, {len(rows)} held-out rows, greedy")
    sys.stdout.write(table)


def measure_accuracy(generate: Any, rows: Any, batch_size: int) -> dict[str, Any]:
    """Shares of full marks with their intervals."""
    from open_r1_vision.held_out import evaluate
    from open_r1_vision.statistics import wilson_interval

    samples = evaluate(generate, rows, max_new_tokens=MAX_NEW_TOKENS, batch_size=batch_size)
    return {name: asdict(wilson_interval([getattr(sample, name) for sample in samples])) for name in MEASURES}


def measure_costs(generators: Sequence[Any], rows: Any, batch_size: int, repeats: int) -> list[float]:
    """Median time of each generator for the first rows, over that of the first generator."""
    from trl.data_utils import prepare_multimodal_messages

    batch = [rows[index] for index in range(batch_size)]
    prompts = [prepare_multimodal_messages(row["prompt"], images=row["images"]) for row in batch]
    seconds: list[list[float]] = []
    for _ in range(repeats + 1):
        seconds.append([])
        for generate in generators:
            start = time.perf_counter()
            generate.generate_ids(prompts, MAX_NEW_TOKENS)
            seconds[-1].append(time.perf_counter() - start)
    # the first round warms up
    return [statistics.median(turn[index] / turn[0] for turn in seconds[1:]) for index in range(len(generators))]


def format_cells(result: dict[str, Any]) -> str:
    """The measures of one setting as cells of a Markdown table."""
    from open_r1_vision.statistics import Proportion

    return " | ".join([*(str(Proportion(**result[name])) for name in MEASURES), f"{result['cost']:.2f}"])


def format_table(results: Sequence[dict[str, Any]]) -> str:
    """All settings as a Markdown table."""
    lines = ["| s | calibrated | accuracy | caption exactness | cost |", "|---|---|---|---|---|"]
    for result in results:
        where = "nothing" if result["scale"] == 0 else result["span"] or "whole reply"
        lines.append(f"| {result['scale']:g} | {where} | {format_cells(result)} |")
    return "\n".join(lines) + "\n"


def draw(path: Path, results: Sequence[dict[str, Any]], title: str) -> None:
    """Draw both measures and the cost against s, a line for each span."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 4.2), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(1, 3)
    for place, span in enumerate(SPANS):
        line = [result for result in results if result["scale"] == 0 or result["span"] == span]
        # side by side, since the two often agree
        scales = [result["scale"] + 0.02 * (2 * place - 1) for result in line]
        style = {"label": f"{span} only" if span else "whole reply", "marker": "o", "color": f"C{place}"}
        for axes, name in zip(panels, MEASURES, strict=False):
            means = [result[name]["mean"] for result in line]
            below = [mean - result[name]["low"] for mean, result in zip(means, line, strict=True)]
            above = [result[name]["high"] - mean for mean, result in zip(means, line, strict=True)]
            axes.errorbar(scales, means, yerr=[below, above], capsize=3, **style)
        panels[2].plot(scales, [result["cost"] for result in line], **style)
    for axes, name in zip(panels, ("Accuracy (95 % interval)", "Caption exactness (95 % interval)"), strict=False):
        axes.set_title(name)
        axes.set_ylim(-0.02, 1.02)
    panels[2].set_title("Time of a token, plain = 1")
    panels[2].set_ylim(bottom=0)
    for axes in panels:
        axes.set_xlabel("s")
        axes.set_xticks(sorted({result["scale"] for result in results}))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
