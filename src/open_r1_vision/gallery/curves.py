# SPDX-License-Identifier: Apache-2.0
"""The curves of a run: every logged metric by step, and the held-out evaluations."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from open_r1_vision.run_log import HELD_OUT, LOG_FILE, finite, read_log
from open_r1_vision.statistics import wilson_interval

#: What stands under which heading: exact names, or prefixes that end in a slash or an underscore. The first wins.
_SECTIONS: dict[str, tuple[str, ...]] = {
    "Held-out rows": (HELD_OUT,),
    "Rewards": ("reward", "reward_std", "rewards/", "frac_reward_zero_std"),
    "Captions and their reader": ("captions/", "reader/"),
    "Hints": ("hints/",),
    "Judges": ("judge/", "description_judge/"),
    "Filter": ("filter/",),
    "Completions": ("completions/",),
    "Optimisation": (
        *("loss", "grad_norm", "learning_rate", "kl", "kl_weight", "entropy", "mean_token_accuracy"),
        *("clip_ratio/", "sampling/"),
    ),
    "Evaluation by the trainer": ("eval_",),
    "Time": ("seconds/", "step_time", "num_tokens", "shared_prefix/"),
}
_OTHER = "Further"
#: Summaries of a whole run, which come as one value at its end.
_NO_CURVES = ("step", "epoch", "total_flos", "train_loss", "train_runtime")
_NO_PREFIXES = ("train_samples_", "train_steps_")


def read_history(run: Path) -> list[dict[str, Any]]:
    """What was logged: `log.jsonl`, else the newest trainer state; empty where there is neither."""
    if (run / LOG_FILE).is_file():
        return read_log(run / LOG_FILE)
    states = [run / "trainer_state.json", *run.glob("checkpoint-*/trainer_state.json")]
    histories = [_history(path) for path in states if path.is_file()]
    return max(histories, key=len, default=[])


def reward_names(history: Iterable[Mapping[str, Any]]) -> list[str]:
    """The rewards that a history has means of."""
    keys = dict.fromkeys(key for entry in history for key in entry)
    means = [key for key in keys if key.startswith("rewards/") and key.endswith("/mean")]
    return [key.removeprefix("rewards/").removesuffix("/mean") for key in means]


def build_curves(run: Path, history: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Curves by section, each as `{"name", "points": [[step, value], …]}`; held-out ones have a `band`, low and high.

    Metrics that never change stand apart, with their value. Steps grow along a curve; of several values of one step,
    the last counts.
    """
    held_out = _held_out(run)
    by_name: dict[str, dict[int, float]] = {}
    for entry in history:
        for name, value in entry.items():
            if held_out and name.startswith(HELD_OUT):
                continue  # the evaluations say the same, with intervals
            if _is_curve(name) and isinstance(value, (int, float)) and finite(float(value)) is not None:
                by_name.setdefault(name, {})[int(entry.get("step", 0))] = value
    sections: dict[str, list[dict[str, Any]]] = {"Held-out rows, greedy, with 95 % intervals": held_out}
    sections |= {title: [] for title in (*_SECTIONS, _OTHER)}
    constants = []
    for name, values in by_name.items():
        points = [[step, values[step]] for step in sorted(values)]
        if len(points) > 1 and len(set(values.values())) == 1:
            constants.append([_label(name), points[0][1]])
        else:
            sections[_section(name)].append({"name": _label(name), "points": points})
    shown = [{"title": title, "curves": curves} for title, curves in sections.items() if curves]
    return {"sections": shown, "constants": constants}


def _is_curve(name: str) -> bool:
    is_spread = name.startswith("rewards/") and name.endswith("/std")
    return not is_spread and name not in _NO_CURVES and not name.startswith(_NO_PREFIXES)


def _section(name: str) -> str:
    for title, names in _SECTIONS.items():
        if any(name.startswith(known) if known[-1] in "/_" else name == known for known in names):
            return title
    return _OTHER


def _label(name: str) -> str:
    return name.removeprefix("rewards/").removesuffix("/mean") if name.startswith("rewards/") else name


def _held_out(run: Path) -> list[dict[str, Any]]:
    """The share of full marks of each score of the evaluations' samples, by step."""
    by_name: dict[str, list[tuple[int, Any]]] = {}
    for path in sorted((run / "evaluations").glob("step_*.jsonl")):
        samples = read_log(path)
        numeric = dict.fromkeys(
            name for sample in samples for name, value in sample.items() if isinstance(value, (int, float))
        )
        for name in numeric:
            scores = [sample[name] for sample in samples if isinstance(sample.get(name), (int, float))]
            step = int(path.stem.removeprefix("step_"))
            by_name.setdefault(name, []).append((step, wilson_interval(scores)))
    return [
        {
            "name": name.replace("_", " "),
            "points": [[step, share.mean] for step, share in shares],
            "band": [[share.low, share.high] for _, share in shares],
        }
        for name, shares in by_name.items()
    ]


def _history(path: Path) -> list[dict[str, Any]]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))["log_history"]
    except (OSError, ValueError, KeyError):  # a checkpoint that is being written or deleted
        return []
