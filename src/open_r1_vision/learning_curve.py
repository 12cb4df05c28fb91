# SPDX-License-Identifier: Apache-2.0
"""The picture of a run: held-out measures, rewards, what could be wrong, what the method is about, where time went."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from open_r1_vision.held_out import MEASURES, Sample, scores_of, shares_of
from open_r1_vision.statistics import wilson_interval

CURVE_FILE = "learning_curve.png"

#: What no method wants to see much of, by the metric's name.
_WATCHED = {
    "frac_reward_zero_std": "groups without signal",
    "captions/missing": "missing captions",
    "reader/not_a_description": "captions that are no description",
    "reader/failure_rate": "captions whose reader failed",
    "judge/failure_rate": "responses whose judge failed",
    "description_judge/failure_rate": "captions whose judge failed",
    "completions/clipped_ratio": "completions cut at the limit",
    "hints/unsolved": "groups without a right completion at any hint level",
}
#: What a method is about.
_OF_METHODS = {
    "hints/utilisation_before": "groups with signal, as first sampled",
    "hints/utilisation": "groups with signal, as trained",
    "reader/accuracy": "right answers from the caption alone",
    "captions/with_description": "captions that describe",
    "judge/facts_stated": "visual facts stated",
    "rewards/visual_facts_reward/mean": "visual facts stated",
    "rewards/clip_reward/mean": "similarity of image and description",
    "rewards/key_words_reward/mean": "key words named",
    "filter/replaced": "groups replaced by fresh prompts",
    "filter/left": "groups without signal left",
}
_LEVEL = "hints/level_"
#: Parts of a step, see trainers/timing.py, the largest first as a rule.
_SECONDS = "seconds/"
_KL_WEIGHT = "kl_weight"
#: A title, and what draws the panel under it.
_Panel = tuple[str, Callable[[Any], None]]


def draw_curve(path: Path, evaluations: Mapping[int, list[Sample]], steps: Sequence[Mapping[str, Any]]) -> None:
    """Draw a run; panels that have nothing to show are left out.

    Args:
        path: of the PNG.
        evaluations: samples of the held-out rows by step.
        steps: entries of the trainer's `log_history` that are steps of training.
    """
    from matplotlib.figure import Figure

    panels = [*_panels_of_shares(evaluations, steps), *_further_panels(steps)]
    num_columns = 2 if len(panels) == 4 else max(1, min(3, len(panels)))
    num_rows = max(1, math.ceil(len(panels) / num_columns))
    figure = Figure(figsize=(4.7 * num_columns, 4.2 * num_rows), layout="constrained")
    for index, (title, draw) in enumerate(panels):
        axes = figure.add_subplot(num_rows, num_columns, index + 1)
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        draw(axes)
        if axes.get_legend_handles_labels()[0]:
            # of a stack the topmost first, as it is seen
            axes.legend(fontsize=8, reverse=bool(axes.collections) and not axes.lines)
    figure.savefig(path, dpi=120)


def _panels_of_shares(evaluations: Mapping[int, list[Sample]], steps: Sequence[Mapping[str, Any]]) -> list[_Panel]:
    """Those whose values lie between 0 and 1 as a rule."""
    names = list(dict.fromkeys(name for entry in steps for name, value in entry.items() if value is not None))
    rewards = {name: name.split("/")[1] for name in names if name.startswith("rewards/") and name.endswith("/mean")}
    watched = {name: label for name, label in _WATCHED.items() if name in names}
    methods = {name: label for name, label in _OF_METHODS.items() if name in names}
    if "judge/facts_stated" in methods:
        methods.pop("rewards/visual_facts_reward/mean", None)
    levels = sorted(name for name in names if name.startswith(_LEVEL) and name.removeprefix(_LEVEL).isdigit())
    of_levels = {level: f"level {level.removeprefix(_LEVEL)}" for level in levels}
    held_out = any(shares_of(samples) for samples in evaluations.values())

    panels: list[tuple[Any, _Panel]] = [
        (held_out, ("Held-out rows, greedy (95 % interval)", lambda axes: _draw_held_out(axes, evaluations))),
        (rewards, ("Rewards in training (mean of a step)", lambda axes: _draw_lines(axes, steps, rewards))),
        (watched, ("Shares to keep an eye on", lambda axes: _draw_lines(axes, steps, watched))),
        (methods, ("What the method is about", lambda axes: _draw_lines(axes, steps, methods))),
        (levels, ("Hint level of the trained groups", lambda axes: _draw_stack(axes, steps, of_levels))),
    ]
    return [(title, partial(_draw_from_0_to_1, draw)) for has_content, (title, draw) in panels if has_content]


def _further_panels(steps: Sequence[Mapping[str, Any]]) -> list[_Panel]:
    """Those whose values have a scale of their own."""
    panels: list[_Panel] = []
    if any(entry.get(_KL_WEIGHT) for entry in steps):
        panels.append(("Weight of the KL term", lambda axes: _draw_kl_weight(axes, steps)))
    if parts := _largest_parts(steps):
        panels.append(("Seconds of a step", lambda axes: _draw_stack(axes, steps, parts)))
    return panels


def _draw_from_0_to_1(draw: Callable[[Any], None], axes: Any) -> None:
    """From 0 to 1, and further where values lie outside: a penalty is negative, and a reward may give more than 1."""
    draw(axes)
    low, high = min(0.0, axes.dataLim.y0), max(1.0, axes.dataLim.y1)
    margin = 0.02 * (high - low)
    axes.set_ylim(low - margin, high + margin)


def _draw_held_out(axes: Any, evaluations: Mapping[int, list[Sample]]) -> None:
    for name, label in MEASURES.items():
        points = {
            step: wilson_interval(scores)
            for step, samples in evaluations.items()
            if (scores := scores_of(samples, name))
        }
        if points:
            (line,) = axes.plot(points.keys(), [point.mean for point in points.values()], marker="o", label=label)
            low, high = [point.low for point in points.values()], [point.high for point in points.values()]
            axes.fill_between(list(points), low, high, alpha=0.15, color=line.get_color())


def _draw_lines(axes: Any, steps: Sequence[Mapping[str, Any]], labels: Mapping[str, str]) -> None:
    for key, label in labels.items():
        points = [(entry["step"], entry[key]) for entry in steps if entry.get(key) is not None]
        if points:
            # a point alone makes no line
            marker = "o" if len(points) == 1 else None
            axes.plot(*zip(*points, strict=True), label=label, linewidth=1, marker=marker)


def _draw_kl_weight(axes: Any, steps: Sequence[Mapping[str, Any]]) -> None:
    _draw_lines(axes, steps, {_KL_WEIGHT: "KL weight"})
    axes.set_ylim(0.0, 1.05 * axes.dataLim.y1)


def _draw_stack(axes: Any, steps: Sequence[Mapping[str, Any]], labels: Mapping[str, str]) -> None:
    """Values on top of each other, at the steps that have any of them; a part that a step lacks took nothing of it."""
    entries = [entry for entry in steps if any(name in entry for name in labels)]
    values = [[entry.get(name, 0.0) for entry in entries] for name in labels]
    axes.stackplot([entry["step"] for entry in entries], values, labels=list(labels.values()), alpha=0.8)


def _largest_parts(steps: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Parts of a step that take a hundredth of it or more, the largest first."""
    names = {name for entry in steps for name in entry if name.startswith(_SECONDS)}
    totals = {name: sum(entry.get(name, 0.0) for entry in steps) for name in names - {f"{_SECONDS}step"}}
    whole = sum(totals.values())
    large = [name for name, total in totals.items() if total >= 0.01 * whole > 0]
    return {name: name.removeprefix(_SECONDS) for name in sorted(large, key=lambda name: -totals[name])}
