# SPDX-License-Identifier: Apache-2.0
"""Captions of finished runs, read once more by another reasoner: what it answers from them before and after training.

    python eval/reread.py --run runs/starter/racro_cro --reasoner '{"kind": "local",
        "model": "runs/starter/better_reasoner/final", "max_tokens": 64, "batch_size": 128}'

Nothing is trained or generated anew: the captions are those of the first and last evaluation. How they are read is
the run's own (reader_prompt, reader_template, reader_answer). Writes a Markdown table with Wilson's 95 % intervals and
McNemar's exact p, for each run and for all rows of all runs together.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", nargs="+", type=Path, required=True, help="output folders of finished runs")
    parser.add_argument("--reasoner", required=True, help="block of a reasoner as JSON")
    args = parser.parse_args(argv)

    from open_r1_vision.reasoners import ReasonerConfig, build_reasoner
    from open_r1_vision.statistics import mcnemar, wilson_interval

    reasoner = build_reasoner(ReasonerConfig.from_mapping(json.loads(args.reasoner)))
    pairs = {run.name: [_scores(run, when, reasoner) for when in (min, max)] for run in args.run}
    if len(pairs) > 1:
        pairs["all"] = [[score for of_run in side for score in of_run] for side in zip(*pairs.values(), strict=True)]
    lines = ["| run | before | after | points | p |", "|---|---|---|---|---|"]
    for name, (before, after) in pairs.items():
        change = mcnemar(before, after)
        lines.append(
            f"| {name} | {wilson_interval(before)} | {wilson_interval(after)} | {100 * change.difference:+.1f} | "
            f"{change.p_value:.1g} |"
        )
    sys.stdout.write("\n".join(lines) + "\n")


def _scores(run: Path, when: Any, reasoner: Any) -> list[float]:
    """Scores of the answers that the reasoner reads from the captions of the first or last evaluation."""
    from open_r1_vision.data.loading import load_rows
    from open_r1_vision.evaluation import read_evaluations
    from open_r1_vision.report import read_results
    from open_r1_vision.rewards.answers import score_answer
    from open_r1_vision.trainers.caption import build_reader

    settings = read_results(run)["settings"]
    rows = load_rows(
        settings["eval_dataset"], settings["eval_dataset_split"], **settings.get("eval_dataset_options", {})
    )
    evaluations = read_evaluations(run)
    samples = evaluations[when(evaluations)]
    reader = build_reader(
        reasoner, settings["reader_prompt"], settings.get("reader_template"), settings.get("reader_answer", "short")
    )
    readings = reader.read([sample.caption for sample in samples], list(rows["problem"]))
    if [sample.id for sample in samples] != list(rows["id"]):
        raise SystemExit(f"{run} was evaluated on other rows than {settings['eval_dataset']} gives now.")
    failed = [reading.failure for reading in readings if reading.failure]
    if failed:
        raise SystemExit(f"{len(failed)} readings failed, so there is no comparison; the first: {failed[0]}")
    columns = zip(readings, rows["solution"], rows["problem_type"], rows["problem"], strict=True)
    return [score_answer(reading.answer, gold, kind, problem=problem) for reading, gold, kind, problem in columns]


if __name__ == "__main__":
    main()
