# SPDX-License-Identifier: Apache-2.0
"""How well policies perceive: visual facts stated, and McNemar's exact test on perception errors.

    python eval/perception.py --first runs/a_seed0 runs/a_seed1 --second runs/b_seed0 runs/b_seed1

A held-out row is a perception error if the response does not state all of its visual facts, as the run's own
`visual_facts_reward` judges (a run trained without it may name it with weight 0). A row without facts is left out. For
each run, and for all of one kind together: before against after; for each pair of runs, and for all of them: first
against second. "all" counts a held-out row once for each seed, as if the runs were independent of one another.
`--rows 50 --draws 1000` repeats the comparison of before and after on as many rows drawn at random, the size
of the paper's sample, and gives the share of draws with p < 0.05.
"""

import argparse
import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path

#: What each row states of its facts, by id: a share, or None where it has no facts.
Shares = dict[str, float | None]
#: The shares of each row in two evaluations.
Pairs = list[tuple[float | None, float | None]]


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
    if args.rows < 1 or args.draws < 0:
        parser.error(f"--rows is {args.rows} and --draws {args.draws}: set at least 1 row, and 0 or more draws.")
    runs = {run: _read(run) for run in (*args.first, *args.second)}
    changes = {run: _pair(f"the start and the end of {run}", *runs[run]) for run in runs}
    lines = ["| | rows | facts stated | all facts stated | only the left right | only the right right | p |"]
    lines += ["|---|---|---|---|---|---|---|"]
    lines += [_compare(f"{run.name}: before, after", change) for run, change in changes.items()]
    names = [_common_name(group) for group in (args.first, args.second)]
    if "" in names[: 1 + bool(args.second)] or names[0] == names[1]:
        names = ["first", "second"]
    for name, group in zip(names, (args.first, args.second), strict=True):
        if len(group) > 1:
            lines.append(_compare(f"all {name}: before, after", [pair for run in group for pair in changes[run]]))
    pairs = []
    for first, second in zip(args.first, args.second, strict=False):
        pairs.append(_pair(f"{first} and {second}", runs[first][1], runs[second][1]))
        lines.append(_compare(f"{first.name}, {second.name}", pairs[-1]))
    if len(pairs) > 1:
        lines.append(_compare(f"all {', '.join(names)}", [pair for of_runs in pairs for pair in of_runs]))
    sys.stdout.write("\n".join(lines) + "\n")
    for run, change in changes.items() if args.draws else ():
        share, rows = _significant_share(change, args.rows, args.draws)
        sys.stdout.write(f"{run.name}: p < 0.05 in {100 * share:.1f} % of {args.draws} samples of {rows} rows\n")


def _read(run: Path) -> tuple[Shares, Shares]:
    """The first and the last evaluation of a run."""
    from open_r1_vision.held_out import read_evaluations

    evaluations = read_evaluations(run)
    if not evaluations:
        raise SystemExit(f"{run} holds no evaluations: give the output folder of a run with `eval_dataset`.")
    ends = (evaluations[min(evaluations)], evaluations[max(evaluations)])
    before, after = ({sample.id: sample.facts_stated for sample in samples} for samples in ends)
    if all(share is None for share in (*before.values(), *after.values())):
        raise SystemExit(
            f"{run} has no `facts_stated`: name visual_facts_reward in its recipe, with weight 0 if need be."
        )
    return before, after


def _pair(name: str, first: Shares, second: Shares) -> Pairs:
    if first.keys() != second.keys():
        raise SystemExit(f"{name} were evaluated on different rows: evaluate both on the same.")
    pairs = [(first[row], second[row]) for row in first]
    if len(_with_facts(pairs)) < 2:
        raise SystemExit(f"{name} share fewer than two rows with facts: there is nothing to compare.")
    return pairs


def _with_facts(pairs: Pairs) -> list[tuple[float, float]]:
    return [(first, second) for first, second in pairs if first is not None and second is not None]


def _compare(name: str, pairs: Pairs) -> str:
    from open_r1_vision.statistics import mcnemar, mean_interval, wilson_interval

    kept = _with_facts(pairs)
    left_out = len(pairs) - len(kept)
    rows = f"{len(kept)} ({left_out} without facts left out)" if left_out else str(len(kept))
    first, second = map(list, zip(*kept, strict=True))
    change = mcnemar(first, second)
    shares = " → ".join(str(mean_interval(side)) for side in (first, second))
    rights = " → ".join(str(wilson_interval(side)) for side in (first, second))
    return f"| {name} | {rows} | {shares} | {rights} | {change.lost} | {change.gained} | {change.p_value:.1g} |"


def _common_name(runs: Sequence[Path]) -> str:
    """What runs are called that differ in how their names end, such as `a_seed*`; empty where they share no start."""
    start = os.path.commonprefix([run.name for run in runs])
    return f"{start}*" if start else ""


def _significant_share(pairs: Pairs, rows: int, draws: int) -> tuple[float, int]:
    """The share of samples with p < 0.05, and of how many rows they are."""
    from open_r1_vision.statistics import mcnemar

    kept = _with_facts(pairs)
    rows = min(rows, len(kept))
    rng = random.Random(0)
    samples = (zip(*rng.sample(kept, rows), strict=True) for _ in range(draws))
    return sum(mcnemar(*map(list, sample)).p_value < 0.05 for sample in samples) / draws, rows


if __name__ == "__main__":
    main()
