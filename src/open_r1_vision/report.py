# SPDX-License-Identifier: Apache-2.0
"""What a run leaves behind for people: results.json, learning_curve.png, and a table in the terminal."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

from open_r1_vision.files import write_whole
from open_r1_vision.held_out import MEASURES, Sample, read_evaluations, shares_of
from open_r1_vision.learning_curve import CURVE_FILE, draw_curve
from open_r1_vision.runs import RESULTS_FILE
from open_r1_vision.statistics import PairedChange, Proportion, mcnemar, wilson_interval

_PACKAGES = ("open_r1_vision", "torch", "trl", "transformers", "accelerate", "datasets")


def write_report(
    output_dir: Path, history: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Write results.json and learning_curve.png of a run that is over.

    Args:
        output_dir: folder of the run, with its evaluations.
        history: the trainer's `state.log_history`.
        settings: the recipe as it was run.

    Returns:
        What results.json holds.
    """
    evaluations = read_evaluations(output_dir)
    steps = [entry for entry in history if "reward" in entry]
    runtime = next((entry["train_runtime"] for entry in reversed(history) if "train_runtime" in entry), None)
    results = {
        "steps": max((entry["step"] for entry in history), default=0),
        "train_seconds": runtime,
        "held_out": _summarise(evaluations),
        "last_step": {key: value for key, value in (steps[-1] if steps else {}).items() if key != "step"},
        "means": _mean_metrics(steps),
    }
    draw_curve(output_dir / CURVE_FILE, evaluations, steps)
    return write_results(output_dir, results, settings)


def write_results(output_dir: Path, results: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Write results.json, which says that the run is finished; returns what it holds.

    Args:
        output_dir: folder of the run.
        results: what came of it.
        settings: the recipe as it was run.
    """
    results = {
        **results,
        "settings": json.loads(json.dumps(dict(settings), default=str)),
        "versions": {name: version(name) for name in _PACKAGES},
    }
    write_whole(output_dir / RESULTS_FILE, json.dumps(results, indent=1))
    return results


def read_results(output_dir: Path) -> dict[str, Any]:
    """results.json of a finished run."""
    return json.loads((output_dir / RESULTS_FILE).read_text(encoding="utf-8"))


def format_table(results: Mapping[str, Any]) -> str:
    """The held-out measures before and after, as text."""
    held_out = results["held_out"]
    if not held_out:
        return f"{results['steps']} steps. There were no held-out rows to evaluate: set eval_dataset to see a change."
    lines = [f"{'held-out rows: ' + str(held_out['rows']):<50} {'before':<20} {'after':<20} change"]
    for name, measure in held_out["measures"].items():
        before, after = (Proportion(**measure[when]) for when in ("before", "after"))
        change = PairedChange(**measure["change"])
        lines.append(
            f"{MEASURES[name]:<50} {before!s:<20} {after!s:<20} {100 * change.difference:+.1f} points, "
            f"p = {change.p_value:.2g} (+{change.gained} -{change.lost} rows)"
        )
    lines.append("Intervals: 95 % (Wilson). p: McNemar's exact test on the same rows.")
    return "\n".join(lines)


def _summarise(evaluations: Mapping[int, list[Sample]]) -> dict[str, Any]:
    if not evaluations:
        return {}
    first, last = evaluations[min(evaluations)], evaluations[max(evaluations)]
    measures = {}
    for name in MEASURES:
        # a row that was not scored once, because its reader failed, is no row of this measure
        pairs = [(getattr(one, name), getattr(other, name)) for one, other in zip(first, last, strict=True)]
        pairs = [pair for pair in pairs if None not in pair]
        if not pairs:
            continue
        before, after = ([pair[side] for pair in pairs] for side in (0, 1))
        measures[name] = {
            "before": asdict(wilson_interval(before)),
            "after": asdict(wilson_interval(after)),
            "change": asdict(mcnemar(before, after)),
        }
    curve = {
        step: {name: share for name, share in shares_of(samples).items() if name in measures}
        for step, samples in evaluations.items()
    }
    return {"rows": len(first), "measures": measures, "curve": curve}


def _mean_metrics(steps: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The mean over all steps of each metric that every step logged."""
    names = [name for name in (steps[0] if steps else {}) if name not in ("step", "epoch")]
    return {name: fmean(entry[name] for entry in steps) for name in names if all(name in entry for entry in steps)}
