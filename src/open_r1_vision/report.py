# SPDX-License-Identifier: Apache-2.0
"""What a run leaves behind for people: results.json, learning_curve.png, and a table in the terminal."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

from open_r1_vision.evaluation import MEASURES, Sample, read_evaluations
from open_r1_vision.runs import RESULTS_FILE
from open_r1_vision.statistics import PairedChange, Proportion, mcnemar, wilson_interval

CURVE_FILE = "learning_curve.png"
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
    draft = output_dir / f".{RESULTS_FILE}.tmp"
    draft.write_text(json.dumps(results, indent=1), encoding="utf-8")
    draft.rename(output_dir / RESULTS_FILE)  # it comes whole or not at all
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
        step: {name: _mean(scores) for name in measures if (scores := _scores(samples, name))}
        for step, samples in evaluations.items()
    }
    return {"rows": len(first), "measures": measures, "curve": curve}


def _mean_metrics(steps: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The mean over all steps of each metric that every step logged."""
    names = [name for name in (steps[0] if steps else {}) if name not in ("step", "epoch")]
    return {name: fmean(entry[name] for entry in steps) for name in names if all(name in entry for entry in steps)}


def _scores(samples: Sequence[Sample], name: str) -> list[float]:
    return [score for sample in samples if (score := getattr(sample, name)) is not None]


def _mean(scores: Sequence[float]) -> float:
    return sum(score >= 1 for score in scores) / len(scores)


def draw_curve(path: Path, evaluations: Mapping[int, list[Sample]], steps: Sequence[Mapping[str, Any]]) -> None:
    """Draw held-out measures with their intervals, training rewards, and what could be wrong with the groups."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 4.2), layout="constrained")
    held_out, rewards, groups = figure.subplots(1, 3)
    _draw_held_out(held_out, evaluations)
    reward_names = [
        key for key in (steps[-1] if steps else {}) if key.startswith("rewards/") and key.endswith("/mean")
    ]
    _draw_training(rewards, steps, {key: key.removeprefix("rewards/").removesuffix("/mean") for key in reward_names})
    rewards.set_title("Rewards in training (mean of a step)")
    _draw_training(
        groups,
        steps,
        {
            "frac_reward_zero_std": "groups without signal",
            "captions/missing": "missing captions",
            "reader/not_a_description": "captions that are no description",
            "reader/failure_rate": "captions whose reader failed",
            "judge/failure_rate": "responses whose judge failed",
            "description_judge/failure_rate": "captions whose judge failed",
            "completions/clipped_ratio": "completions cut at the limit",
            "hints/unsolved": "groups without a right completion at any hint level",
        },
    )
    groups.set_title("Shares to keep an eye on")
    for axes in (held_out, rewards, groups):
        axes.set_xlabel("step")
        axes.set_ylim(-0.02, 1.02)
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def _draw_held_out(axes: Any, evaluations: Mapping[int, list[Sample]]) -> None:
    axes.set_title("Held-out rows, greedy (95 % interval)")
    for name, label in MEASURES.items():
        points = {
            step: wilson_interval(scores)
            for step, samples in evaluations.items()
            if (scores := _scores(samples, name))
        }
        if points:
            (line,) = axes.plot(points.keys(), [point.mean for point in points.values()], marker="o", label=label)
            low, high = [point.low for point in points.values()], [point.high for point in points.values()]
            axes.fill_between(list(points), low, high, alpha=0.15, color=line.get_color())


def _draw_training(axes: Any, steps: Sequence[Mapping[str, Any]], labels: Mapping[str, str]) -> None:
    for key, label in labels.items():
        points = [(entry["step"], entry[key]) for entry in steps if entry.get(key) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, linewidth=1)
