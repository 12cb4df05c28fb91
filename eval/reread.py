# SPDX-License-Identifier: Apache-2.0
"""Captions of finished runs, read once more by other reasoners: what they answer from them before and after training.

    python eval/reread.py --run runs/starter/racro_cro --reasoner recipes/starter/racro_cro.yaml \\
        '{"kind": "local", "model": "runs/starter/better_reasoner/final", "max_tokens": 64, "batch_size": 128}'

A reasoner is its block as JSON, or a YAML or JSON file that is the block or has one under `reasoner`, as a recipe.
Nothing is trained or generated anew: the captions are those of the first and last evaluation. How they are read is
the run's own (reader_prompt, reader_template, reader_answer).

Writes a Markdown table with Wilson's 95 % intervals and McNemar's exact p, for each run and for all rows of all runs
together; the latter counts a held-out row once for each seed, as if the runs were independent of one another. With
several reasoners a second table pairs the first with each other one on the same captions, those after training. Where
a reasoner reads a caption several times (`n`), the caption is right if all readings are, and a line below has the mean
over all readings with Student's interval.
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

#: A score for each row.
Scores = list[float]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", nargs="+", type=Path, required=True, help="output folders of finished runs")
    parser.add_argument(
        "--reasoner", nargs="+", action="extend", required=True, help="blocks of reasoners: JSON, or files with one"
    )
    args = parser.parse_args(argv)
    try:
        lines = compare(args.run, args.reasoner)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {' '.join(str(error).split())}") from error
    sys.stdout.write("\n".join(lines) + "\n")


def compare(folders: Sequence[Path], blocks: Sequence[str]) -> list[str]:
    """The lines of both tables.

    Raises:
        ValueError: a run or a reasoner that can't be used; no caption has been read then.
    """
    from open_r1_vision.reasoners import build_reasoner
    from open_r1_vision.trainers.caption import build_reader

    configs = [_read_config(place, block) for place, block in enumerate(blocks, start=1)]
    runs = [_read_run(folder) for folder in folders]
    names = _name_reasoners([str(config.model) for config in configs])
    # for each reasoner and each run, scores before and after
    scores: list[list[tuple[Scores, Scores]]] = []
    with ExitStack() as stack:
        reasoners = []
        for config in configs:
            reasoners.append(build_reasoner(config))
            stack.callback(reasoners[-1].close)
        readers = [[build_reader(reasoner, *run.reader_options) for run in runs] for reasoner in reasoners]
        for of_reasoner in readers:
            both = zip(runs, of_reasoner, strict=True)
            scores.append([(run.score(reader, run.before), run.score(reader, run.after)) for run, reader in both])
    run_names = [run.folder.name for run in runs]
    lines = ["| run | reasoner | before | after | points | p |", "|---|---|---|---|---|---|"]
    for config, name, of_runs in zip(configs, names, scores, strict=True):
        for run_name, sides in _with_all(run_names, of_runs):
            lines += _compare(f"{run_name} | {name}", *sides, config.n)
    if len(names) > 1:
        lines += ["", "| run | reasoners, after | first | second | points | p |", "|---|---|---|---|---|---|"]
    for config, name, of_runs in zip(configs[1:], names[1:], scores[1:], strict=True):
        after = [(first[1], second[1]) for first, second in zip(scores[0], of_runs, strict=True)]
        for run_name, sides in _with_all(run_names, after):
            lines += _compare(f"{run_name} | {names[0]}, {name}", *sides, max(configs[0].n, config.n))
    return lines


@dataclass
class _Run:
    """The captions of a finished run, the rows that they are of, and how they are read."""

    folder: Path
    before: list[str | None]
    after: list[str | None]
    rows: Any
    reader_options: tuple[str, str | None, str]

    def score(self, reader: Any, captions: list[str | None]) -> Scores:
        """What the answers are worth that the reader finds in the captions, the mean where it reads n times."""
        from open_r1_vision.rewards.answers import score_answer

        problems = list(self.rows["problem"])
        readings = reader.read(captions, problems)
        failed = [reading.failure for reading in readings if reading.failure]
        if failed:
            raise ValueError(
                f"{len(failed)} of {len(readings)} readings of {self.folder} failed, so there is no comparison; the "
                f"first: {failed[0]}"
            )
        columns = zip(readings, self.rows["solution"], self.rows["problem_type"], problems, strict=True)
        return [
            fmean(score_answer(answer, gold, kind, problem=problem) for answer in reading.answers)
            for reading, gold, kind, problem in columns
        ]


def _read_config(place: int, text: str) -> Any:
    from open_r1_vision.reasoners.config import ReasonerConfig, read_block

    try:
        config = ReasonerConfig.from_mapping(read_block(text))
    except ValueError as error:
        raise ValueError(f"--reasoner {place}: {error}") from error
    if config.kind == "policy":
        raise ValueError(f"--reasoner {place}: kind is policy, but no policy is live here: set local or endpoint.")
    return config


def _read_run(folder: Path) -> _Run:
    """A run whose evaluations are of the rows that its data set gives now."""
    from open_r1_vision.arguments import DataArguments
    from open_r1_vision.data.loading import load_rows
    from open_r1_vision.held_out import read_evaluations
    from open_r1_vision.report import read_results
    from open_r1_vision.runs import RESULTS_FILE
    from open_r1_vision.trainers.caption_config import CaptionGRPOConfig

    if not (folder / RESULTS_FILE).is_file():
        raise ValueError(f"{folder} holds no {RESULTS_FILE}: give the output folder of a finished run.")
    settings = read_results(folder)["settings"]
    evaluations = read_evaluations(folder)
    if not evaluations or not settings.get("eval_dataset"):
        raise ValueError(f"{folder} holds no evaluations: give the output folder of a run with `eval_dataset`.")
    names = ("eval_dataset", "eval_dataset_split", "eval_dataset_options")
    data = DataArguments(dataset="", **{name: settings[name] for name in names if name in settings})
    rows = load_rows(settings["eval_dataset"], data.eval_dataset_split, **(data.eval_dataset_options or {}))
    first, last = evaluations[min(evaluations)], evaluations[max(evaluations)]
    for samples in (first, last):
        if [sample.id for sample in samples] != list(rows["id"]):
            raise ValueError(f"{folder} was evaluated on other rows than {settings['eval_dataset']} gives now.")
    if all(sample.caption is None for sample in (*first, *last)):
        raise ValueError(f"{folder} holds no captions: give the output folder of a run that writes them.")
    # a recipe need not say what is the default
    options = (
        settings.get(name, getattr(CaptionGRPOConfig, name))
        for name in ("reader_prompt", "reader_template", "reader_answer")
    )
    before, after = ([sample.caption for sample in samples] for samples in (first, last))
    return _Run(folder, before, after, rows, tuple(options))


def _name_reasoners(models: list[str]) -> list[str]:
    """Short names: what a dotted path ends on, the last two parts of other paths; with a number if they are alike."""
    from open_r1_vision.importing import is_dotted_path

    names = [
        model.rpartition(".")[2] if is_dotted_path(model) else "/".join(Path(model).parts[-2:]) for model in models
    ]
    return [f"{name} ({place})" if names.count(name) > 1 else name for place, name in enumerate(names, start=1)]


def _with_all(names: list[str], pairs: list[tuple[Scores, Scores]]) -> list[tuple[str, tuple[Scores, Scores]]]:
    """The scores of each run with its name, and behind several runs those of all."""
    named = list(zip(names, pairs, strict=True))
    first, second = ([score for of_run in side for score in of_run] for side in zip(*pairs, strict=True))
    return [*named, ("all", (first, second))] if len(named) > 1 else named


def _compare(name: str, first: Scores, second: Scores, readings: int) -> list[str]:
    from open_r1_vision.statistics import mcnemar, mean_interval, wilson_interval

    change = mcnemar(first, second)
    points = f"{100 * change.difference:+.1f}"
    right = f"| {wilson_interval(first)} | {wilson_interval(second)} | {points} | {change.p_value:.1g} |"
    if readings == 1:
        return [f"| {name} {right}"]
    points = f"{100 * (fmean(second) - fmean(first)):+.1f}"
    return [
        f"| {name}, all readings right {right}",
        f"| {name}, mean of the readings | {mean_interval(first)} | {mean_interval(second)} | {points} | |",
    ]


if __name__ == "__main__":
    main()
