# SPDX-License-Identifier: Apache-2.0
"""Two ways of training side by side, seed by seed: what each ends with on the same held-out rows.

    python eval/pairs.py --first runs/a_seed0 runs/a_seed1 --second runs/b_seed0 runs/b_seed1

Writes a Markdown table: the first's and the second's last evaluation, or those after `--steps`, with Wilson's 95 %
intervals, their difference and McNemar's exact p, for each pair and for all rows of all pairs together. The latter
counts a held-out row once for each seed, as if the runs were independent of one another. With `--metric NAME` the mean
of a logged metric over all steps stands below, with `--signal REWARD` the share of all groups in which that reward
was not the same for all completions, from the logged completions.

`--records FOLDER` writes both as evaluation runs in which the seeds are samples of a row, so that a row counts once:

    python -m open_r1_vision.compare FOLDER/first FOLDER/second
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", nargs="+", type=Path, required=True, help="output folders of finished runs")
    parser.add_argument("--second", nargs="+", type=Path, required=True, help="as many, in the same order")
    parser.add_argument("--measure", nargs="*", default=["accuracy", "caption_exact"], help="fields of a sample")
    parser.add_argument("--steps", nargs="+", type=int, default=[None], help="evaluations to compare")
    parser.add_argument("--metric", nargs="*", default=[], help="logged metrics, such as hints/utilisation")
    parser.add_argument("--signal", help="reward by which groups have a signal or not, such as accuracy_reward")
    parser.add_argument("--records", type=Path, help="folder for both as evaluation runs, seeds as samples")
    steps = parser.add_mutually_exclusive_group()
    steps.add_argument("--signal_steps", type=int, help="look at the groups of the first so many steps only")
    steps.add_argument("--signal_last", type=int, help="look at the groups of the last so many steps only")
    args = parser.parse_args(argv)
    if len(args.first) != len(args.second):
        parser.error(f"{len(args.first)} runs can't be paired with {len(args.second)}: name as many for both.")
    pairs = list(zip(args.first, args.second, strict=True))
    if args.records:
        for side, runs in (("first", args.first), ("second", args.second)):
            for measure in args.measure:
                _write_records(args.records / side / f"held_out_{measure}", runs, measure, args.steps[-1])
    lines = ["| | measure | first | second | points | p |", "|---|---|---|---|---|---|"]
    for step in args.steps:
        for measure in args.measure:
            lines += _compare(pairs, measure, step)
    if args.signal:
        chosen = slice(-args.signal_last, None) if args.signal_last else slice(args.signal_steps)
        lines += _compare_signal(pairs, args.signal, chosen)
    for metric in args.metric:
        lines += _average(pairs, metric)
    sys.stdout.write("\n".join(lines) + "\n")


def _compare(pairs: list[tuple[Path, Path]], measure: str, step: int | None) -> list[str]:
    from open_r1_vision.statistics import mcnemar, wilson_interval

    scores: list[tuple[list[float], list[float]]] = []
    for pair in pairs:
        first, second = (_scores(run, measure, step) for run in pair)
        if first.keys() != second.keys():
            raise SystemExit(f"{pair[0]} and {pair[1]} were evaluated on different rows: evaluate both on the same.")
        scores.append(([first[row] for row in first], [second[row] for row in first]))
    label = measure if step is None else f"{measure} after {step} steps"
    return [
        f"| {name} | {label} | {wilson_interval(first)} | {wilson_interval(second)} | "
        f"{100 * (change := mcnemar(first, second)).difference:+.1f} | {change.p_value:.1g} |"
        for name, (first, second) in _with_all(pairs, scores)
    ]


def _scores(run: Path, measure: str, step: int | None) -> dict[str, float]:
    from open_r1_vision.held_out import MEASURES, read_evaluations

    evaluations = read_evaluations(run)
    if not evaluations:
        raise SystemExit(f"{run} holds no evaluations: give the output folder of a run with `eval_dataset`.")
    if step is not None and step not in evaluations:
        raise SystemExit(f"{run} was not evaluated after {step} steps, only after {', '.join(map(str, evaluations))}.")
    samples = evaluations[max(evaluations) if step is None else step]
    if measure not in MEASURES or any(getattr(sample, measure) is None for sample in samples):
        raise SystemExit(
            f"{run} has no {measure!r} for each row: --measure takes those of {', '.join(MEASURES)} it has."
        )
    return {sample.id: getattr(sample, measure) for sample in samples}


def _write_records(folder: Path, runs: Sequence[Path], measure: str, step: int | None) -> None:
    """Seeds of a run as samples of each row; the gold answers are not in evaluations, their scores are."""
    from dataclasses import asdict

    from open_r1_vision.evaluate.items import Record

    seeds = [_scores(run, measure, step) for run in runs]
    if any(scores.keys() != seeds[0].keys() for scores in seeds):
        raise SystemExit(f"The seeds of {runs[0]} were evaluated on different rows: evaluate all on the same.")
    if (folder / "samples.jsonl").exists():
        raise SystemExit(f"{folder} holds records already: name another folder.")
    unknown = {"prompt_sha": "", "raw": "", "answer": None, "extractor": "training", "gold": None, "tokens": 0}
    known = {"dataset": folder.name, "prompt_style": "method", "judged_by": "rule", "status": "ok", "cluster": None}
    records = [
        Record(index=row, sample=sample, score=scores[row], seed=None, **unknown, **known)
        for row in seeds[0]
        for sample, scores in enumerate(seeds)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(asdict(record)) + "\n" for record in records]
    (folder / "samples.jsonl").write_text("".join(lines), encoding="utf-8")
    about = {"model": [str(run) for run in runs], "num_items": len(seeds[0]), "num_samples": len(runs)}
    (folder / "run.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def _compare_signal(pairs: list[tuple[Path, Path]], reward: str, steps: slice) -> list[str]:
    from open_r1_vision.statistics import wilson_interval

    signals = [(_signals(first, reward, steps), _signals(second, reward, steps)) for first, second in pairs]
    lines = []
    for name, both in _with_all(pairs, signals):
        first, second = map(wilson_interval, both)
        ratio = second.mean / max(first.mean, 1e-9)
        lines.append(f"| {name} | groups with signal | {first} | {second} | x {ratio:.2f} | |")
    return lines


def _with_all(pairs: list[tuple[Path, Path]], scores: list[tuple]) -> list[tuple[str, tuple]]:
    """The scores of each pair with its name, and behind several pairs those of all."""
    named = [(f"{first.name}, {second.name}", both) for (first, second), both in zip(pairs, scores, strict=True)]
    if len(pairs) == 1:
        return named
    return [
        *named,
        ("all", tuple([value for of_pair in side for value in of_pair] for side in zip(*scores, strict=True))),
    ]


def _signals(run: Path, reward: str, steps: slice) -> list[float]:
    """For each group of the run, in order, 1 where the reward differs within it."""
    import pandas as pd

    from open_r1_vision.report import read_results

    size = int(read_results(run)["settings"]["num_generations"])
    signals = []
    for path in sorted((run / "completions").glob("*.parquet"))[steps]:
        table = pd.read_parquet(path)
        if reward not in table:
            raise SystemExit(f"{path} has no reward {reward!r}: it has {', '.join(table.columns)}.")
        values = table[reward].tolist()
        signals += [float(len(set(values[start : start + size])) > 1) for start in range(0, len(values), size)]
    if not signals:
        raise SystemExit(f"{run} has no logged completions: set log_completions to true before training.")
    return signals


def _average(pairs: list[tuple[Path, Path]], metric: str) -> list[str]:
    lines = []
    for pair in pairs:
        means = [_logged_mean(run, metric) for run in pair]
        lines.append(f"| {pair[0].name}, {pair[1].name} | {metric} | {means[0]:.3f} | {means[1]:.3f} | | |")
    return lines


def _logged_mean(run: Path, metric: str) -> float:
    from open_r1_vision.report import read_results

    means = read_results(run)["means"]
    if metric not in means:
        raise SystemExit(f"{run} has not logged {metric!r}, only {', '.join(sorted(means))}.")
    return means[metric]


if __name__ == "__main__":
    main()
