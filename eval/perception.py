# SPDX-License-Identifier: Apache-2.0
"""How well policies perceive: visual facts stated, and McNemar's exact test on perception errors.

    python eval/perception.py --first runs/a_seed0 runs/a_seed1 --second runs/b_seed0 runs/b_seed1

A held-out row is a perception error if the response does not state all of its visual facts, by the rule of the run's
own `visual_facts_reward` (a run trained without it may name it with weight 0). For each run: before against after; for
each pair of runs and for all rows of all pairs together: first against second. `--rows 50 --draws 1000` repeats the
comparison of before and after on as many rows drawn at random, the size of the paper's sample, and gives the share of
draws with p < 0.05.
"""

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", nargs="+", type=Path, required=True, help="output folders of finished runs")
    parser.add_argument("--second", nargs="*", type=Path, default=[], help="as many, in the same order")
    parser.add_argument("--rows", type=int, default=50, help="rows of a small sample")
    parser.add_argument("--draws", type=int, default=1000, help="small samples to draw; 0 for none")
    args = parser.parse_args(argv)
    if args.second and len(args.first) != len(args.second):
        parser.error(f"{len(args.first)} runs can't be paired with {len(args.second)}: name as many for both.")
    lines = ["| | facts stated | all facts stated | only the left right | only the right right | p |"]
    lines += ["|---|---|---|---|---|---|"]
    runs = {run: (_shares(run, min), _shares(run, max)) for run in (*args.first, *args.second)}
    for run, (before, after) in runs.items():
        lines.append(_compare(f"{run.name}: before, after", before, after))
    for group in (args.first, args.second):
        if len(group) > 1:
            both = [[share for run in group for share in runs[run][side]] for side in (0, 1)]
            lines.append(_compare(f"{group[0].parent.name}/{group[0].name} and its seeds: before, after", *both))
    pairs = list(zip(args.first, args.second, strict=False))
    for first, second in pairs:
        lines.append(_compare(f"{first.name}, {second.name}", runs[first][1], runs[second][1]))
    if len(pairs) > 1:
        both = [[share for pair in pairs for share in runs[pair[side]][1]] for side in (0, 1)]
        lines.append(_compare("all", *both))
    sys.stdout.write("\n".join(lines) + "\n")
    if args.draws:
        for run, (before, after) in runs.items():
            share = _significant_share(before, after, args.rows, args.draws)
            sys.stdout.write(
                f"{run.name}: p < 0.05 in {100 * share:.1f} % of {args.draws} samples of {args.rows} rows\n"
            )


def _shares(run: Path, when: type[min] | type[max] | object) -> list[float]:
    """The share of its facts that each row's response states, in the first or last evaluation."""
    from open_r1_vision.evaluation import read_evaluations

    evaluations = read_evaluations(run)
    if not evaluations:
        raise SystemExit(f"{run} holds no evaluations: give the output folder of a run with `eval_dataset`.")
    samples = evaluations[when(evaluations)]  # type: ignore[operator]
    shares = [sample.facts_stated for sample in samples]
    if None in shares:
        raise SystemExit(
            f"{run} has no `facts_stated`: name visual_facts_reward in its recipe, with weight 0 if need be."
        )
    return shares


def _compare(name: str, first: list[float], second: list[float]) -> str:
    from open_r1_vision.statistics import mcnemar, mean_interval, wilson_interval

    change = mcnemar(first, second)
    shares = " → ".join(str(mean_interval(side)) for side in (first, second))
    rights = " → ".join(str(wilson_interval(side)) for side in (first, second))
    return f"| {name} | {shares} | {rights} | {change.lost} | {change.gained} | {change.p_value:.1g} |"


def _significant_share(before: list[float], after: list[float], rows: int, draws: int) -> float:
    from open_r1_vision.statistics import mcnemar

    rng = random.Random(0)
    count = 0
    for _ in range(draws):
        drawn = rng.sample(range(len(before)), min(rows, len(before)))
        count += mcnemar([before[i] for i in drawn], [after[i] for i in drawn]).p_value < 0.05
    return count / draws


if __name__ == "__main__":
    main()
