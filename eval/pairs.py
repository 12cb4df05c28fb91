# SPDX-License-Identifier: Apache-2.0
"""Two ways of training side by side, seed by seed: what each ends with on the same held-out rows.

    python eval/pairs.py --first runs/a_seed0 runs/a_seed1 --second runs/b_seed0 runs/b_seed1

Writes a Markdown table: the first's and the second's last evaluation, or those after `--steps`, with Wilson's 95 %
intervals, their difference and McNemar's exact p, for each pair and for all rows of all pairs together. The latter
counts a held-out row once for each seed, as if the runs were independent of one another. With `--metric NAME` the mean
of a logged metric over all steps stands below.
"""

import argparse
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
    args = parser.parse_args(argv)
    if len(args.first) != len(args.second):
        parser.error(f"{len(args.first)} runs can't be paired with {len(args.second)}: name as many for both.")
    pairs = list(zip(args.first, args.second, strict=True))
    lines = ["| | measure | first | second | points | p |", "|---|---|---|---|---|---|"]
    for step in args.steps:
        for measure in args.measure:
            lines += _compare(pairs, measure, step)
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
    names = [f"{first.name}, {second.name}" for first, second in pairs]
    if len(pairs) > 1:
        scores.append(([s for first, _ in scores for s in first], [s for _, second in scores for s in second]))
        names.append("all")
    label = measure if step is None else f"{measure} after {step} steps"
    return [
        f"| {name} | {label} | {wilson_interval(first)} | {wilson_interval(second)} | "
        f"{100 * (change := mcnemar(first, second)).difference:+.1f} | {change.p_value:.1g} |"
        for name, (first, second) in zip(names, scores, strict=True)
    ]


def _scores(run: Path, measure: str, step: int | None) -> dict[str, float]:
    from open_r1_vision.evaluation import read_evaluations

    evaluations = read_evaluations(run)
    if not evaluations:
        raise SystemExit(f"{run} holds no evaluations: give the output folder of a run with `eval_dataset`.")
    if step is not None and step not in evaluations:
        raise SystemExit(f"{run} was not evaluated after {step} steps, only after {', '.join(map(str, evaluations))}.")
    samples = evaluations[max(evaluations) if step is None else step]
    return {sample.id: getattr(sample, measure) for sample in samples}


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
