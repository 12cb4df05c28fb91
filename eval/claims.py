# SPDX-License-Identifier: Apache-2.0
"""What each paper claims, and what is seen on the starter: every method against plain GRPO, with the same budget.

    make claims                         three seeds, an hour and a half on two cores; goes on where it was stopped
    python eval/claims.py --quick       one seed, few steps and pages: whether all of it runs, no more
    python eval/claims.py --only Hint-GRPO RACRO

Runs that are finished are not run again. At the end the table stands in docs/results.md, between its two marks, and in
the terminal. Held-out rows are counted once: the mean of a row's scores over the seeds, its paired difference with
Student's 95 % interval and a permutation test; groups of completions are paired by step and place, and clustered by
row. p is corrected by Holm's method over all lines.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import yaml

from open_r1_vision.files import write_whole

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- claims: written by eval/claims.py -->", "<!-- end of claims -->"

#: Scores of both sides for each item, and the items' clusters.
Pairs = tuple[list[float], list[float], list[str] | None]


@dataclass(frozen=True)
class Run:
    """A run for each seed, see claims.yaml."""

    recipe: str
    settings: dict[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    module: str = "train"
    own_steps: bool = False
    not_quick: bool = False


@dataclass(frozen=True)
class Claim:
    """A line of the table: the second of `runs` is claimed to be above the first."""

    method: str
    paper: str
    here: str
    runs: tuple[str, str]
    measure: str


PLAN = yaml.safe_load((ROOT / "eval" / "claims.yaml").read_text(encoding="utf-8"))
RUNS = {name: Run(**entry) for name, entry in PLAN["runs"].items()}
CLAIMS = tuple(Claim(**entry) for entry in PLAN["claims"])


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed, few steps and rows; writes no document")
    parser.add_argument("--only", nargs="+", choices=sorted({claim.method for claim in CLAIMS}), help="methods")
    parser.add_argument("--seeds", nargs="+", type=int, help="0 1 2 by default, 0 with --quick")
    parser.add_argument("--processes", type=int, default=2, help="of each run, with one thread each")
    parser.add_argument("--output_dir", type=Path, help="runs/claims by default, runs/claims_quick with --quick")
    args = parser.parse_args(argv)
    claims = [claim for claim in CLAIMS if not args.only or claim.method in args.only]
    if args.quick:
        claims = [claim for claim in claims if not any(RUNS[name].not_quick for name in claim.runs)]
    study = Study(
        args.output_dir or Path("runs/claims_quick" if args.quick else "runs/claims"),
        tuple(args.seeds or ((0,) if args.quick else (0, 1, 2))),
        args.quick,
        args.processes,
    )
    study.run_all(claims)
    table = "\n".join(format_table(claims, study))
    sys.stdout.write(table + "\n")
    if not args.quick and not args.only:
        document = ROOT / "docs" / "results.md"
        document.write_text(between_marks(document.read_text(encoding="utf-8"), table), encoding="utf-8")


@dataclass
class Study:
    """All runs of a study, in one folder.

    Attributes:
        folder: a folder for each run and seed, and seconds.json.
        seeds: of runs that don't have their own.
        quick: whether runs are cut short.
        processes: of each run.
        launch: starts a command and waits for it.
    """

    folder: Path
    seeds: tuple[int, ...]
    quick: bool = False
    processes: int = 2
    launch: Callable[[list[str]], None] = field(default_factory=lambda: launch)

    @property
    def size(self) -> dict[str, int]:
        """Steps of a run, and held-out rows."""
        return PLAN["quick"] if self.quick else {name: PLAN[name] for name in ("steps", "rows")}

    def folder_of(self, name: str, seed: int) -> Path:
        """The output folder of a run."""
        seeds = RUNS[name].seeds
        return self.folder / f"{name}_seed{seeds[0] if seeds else seed}"

    def run_all(self, claims: Sequence[Claim]) -> None:
        """Make every run that the claims need and that is not finished, seed by seed."""
        wanted = {name for claim in claims for name in claim.runs}
        names = [name for name in RUNS if name in wanted or any(name in RUNS[one].needs for one in wanted)]
        for seed in self.seeds:
            for name in names:
                if not RUNS[name].seeds or seed == self.seeds[0]:
                    self._run(name, seed)

    def _run(self, name: str, seed: int) -> None:
        folder = self.folder_of(name, seed)
        if self.is_finished(folder):
            return
        start = time.monotonic()
        try:
            self.launch(self.command(name, seed))
        finally:
            # seconds of an interrupted run count too
            seconds = self.seconds()
            seconds[folder.name] = seconds.get(folder.name, 0.0) + time.monotonic() - start
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(self.folder / "seconds.json", json.dumps(seconds, indent=1))
        if not self.is_finished(folder):
            raise SystemExit(f"{folder} is not finished, though its command ended well: look at what it wrote.")

    @staticmethod
    def is_finished(folder: Path) -> bool:
        """Whether a run has left its results, or a curriculum its split rows."""
        return (folder / "results.json").is_file() or (folder / "splits" / "splits.json").is_file()

    def command(self, name: str, seed: int) -> list[str]:
        """The command of a run."""
        run = RUNS[name]
        folders = {other: str(self.folder_of(other, seed)) for other in RUNS}
        settings = {key: _fill(value, folders) for key, value in run.settings.items()}
        if not run.own_steps:
            settings |= {"max_steps": str(self.size["steps"]), "eval_every": str(self.size["steps"])}
            settings["eval_dataset_options"] = json.dumps({"count": self.size["rows"]})
        settings |= {"seed": str(run.seeds[0] if run.seeds else seed), "output_dir": folders[name]}
        words = ["--config", _fill(run.recipe, folders)]
        for key, value in settings.items():
            words += [f"--{key}", *([value] if value.startswith("{") else value.split(" "))]
        if run.module == "curriculum":
            return [sys.executable, "-m", "open_r1_vision.curriculum", *words, "--processes", str(self.processes)]
        torchrun = ["torch.distributed.run", "--standalone", f"--nproc_per_node={self.processes}"]
        return [sys.executable, "-m", *torchrun, "-m", f"open_r1_vision.{run.module}", *words]

    def seconds(self) -> dict[str, float]:
        """Seconds of each run by the name of its folder, set-up and evaluations included."""
        path = self.folder / "seconds.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def launch(command: list[str]) -> None:
    """Run a command, one thread for each process; what it writes is seen.

    Raises:
        SystemExit: it failed.
    """
    sys.stdout.write("\n" + " ".join(command) + "\n")
    sys.stdout.flush()
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
    if code:
        raise SystemExit(f"This command ended with {code}; when its cause is mended, start the same study again.")


def _fill(text: str, folders: dict[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda match: folders[match[1]], text)


# ---- from runs to numbers


def collect(claim: Claim, study: Study) -> Pairs:
    """Both sides of a claim, item by item."""
    if claim.measure == "signal":
        return _collect_groups(claim, study)
    score = _read_again if claim.measure == "read" else _last_scores
    sides = []
    for name in claim.runs:
        of_seeds = [score(study.folder_of(name, seed), claim.measure) for seed in study.seeds]
        sides.append({row: fmean(scores[row] for scores in of_seeds) for row in of_seeds[0]})
    first, second = sides
    if first.keys() != second.keys():
        raise SystemExit(f"{' and '.join(claim.runs)} were evaluated on other rows: delete one of them.")
    return [first[row] for row in first], [second[row] for row in first], None


def _last_scores(folder: Path, measure: str) -> dict[str, float]:
    """What each held-out row scores after training; caption exactness and facts count if they are whole."""
    from open_r1_vision.held_out import read_evaluations

    evaluations = read_evaluations(folder)
    return {sample.id: float(getattr(sample, measure) >= 1) for sample in evaluations[max(evaluations)]}


def _read_again(folder: Path, measure: str) -> dict[str, float]:
    """What the frozen reader of RACRO's recipe answers from the captions after training."""
    from open_r1_vision.held_out import read_evaluations
    from open_r1_vision.reasoners import build_reasoner
    from open_r1_vision.reasoners.config import ReasonerConfig
    from open_r1_vision.rewards.answers import score_answer
    from open_r1_vision.starter import digits
    from open_r1_vision.trainers.caption import build_reader
    from open_r1_vision.trainers.caption_config import CaptionGRPOConfig

    recipe = yaml.safe_load((ROOT / RUNS["reader_captions"].recipe).read_text(encoding="utf-8"))
    names = ("reader_prompt", "reader_template", "reader_answer")
    options = [recipe.get(name, getattr(CaptionGRPOConfig, name)) for name in names]
    evaluations = read_evaluations(folder)
    samples = evaluations[max(evaluations)]
    rows = {row["id"]: row for row in digits.rows("test", count=len(samples)).remove_columns("images")}
    asked = [rows[sample.id] for sample in samples]
    reasoner = build_reasoner(ReasonerConfig.from_mapping(recipe["reasoner"]))
    try:
        reader = build_reader(reasoner, *options)
        readings = reader.read([sample.caption for sample in samples], [row["problem"] for row in asked])
    finally:
        reasoner.close()
    return {
        row["id"]: score_answer(reading.answer, row["solution"], row["problem_type"], problem=row["problem"])
        for row, reading in zip(asked, readings, strict=True)
    }


def _collect_groups(claim: Claim, study: Study) -> Pairs:
    """Whether the accuracy differs in each group; both runs meet the same rows in the same order."""
    first: list[float] = []
    second: list[float] = []
    rows: list[str] = []
    for seed in study.seeds:
        sides = [_groups(study.folder_of(name, seed)) for name in claim.runs]
        if [row for row, _ in sides[0]] != [row for row, _ in sides[1]]:
            raise SystemExit(f"{' and '.join(claim.runs)} met other rows with seed {seed}: delete one of them.")
        rows += [row for row, _ in sides[0]]
        first += [signal for _, signal in sides[0]]
        second += [signal for _, signal in sides[1]]
    return first, second, rows


def _groups(folder: Path) -> list[tuple[str, float]]:
    """The row of each group, and 1.0 where its accuracies differ."""
    import pandas as pd

    from open_r1_vision.report import read_results

    size = int(read_results(folder)["settings"]["num_generations"])
    groups = []
    for path in sorted((folder / "completions").glob("*.parquet")):
        table = pd.read_parquet(path, columns=["id", "accuracy_reward"])
        for start in range(0, len(table), size):
            group = table.iloc[start : start + size]
            groups.append((str(group["id"].iloc[0]), float(group["accuracy_reward"].nunique() > 1)))
    return groups


def format_table(claims: Sequence[Claim], study: Study) -> list[str]:
    """The table in Markdown."""
    from open_r1_vision.compare import estimate, holm, paired_difference

    pairs = [collect(claim, study) for claim in claims]
    differences = [paired_difference(first, second, clusters) for first, second, clusters in pairs]
    corrected = holm([difference.p_value for difference in differences])
    seconds = study.seconds()
    lines = [
        "| method | the paper | here, the second against the first | first | second | points | p (Holm) | minutes "
        "| command |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for claim, (first, second, clusters), difference, p_value in zip(
        claims, pairs, differences, corrected, strict=True
    ):
        names = set(claim.runs)
        names |= {need for name in names for need in RUNS[name].needs}
        folders = {study.folder_of(name, seed).name for name in names for seed in study.seeds}
        low, high = (f"{100 * bound:+.1f}" for bound in difference.interval or (float("nan"),) * 2)
        minutes = sum(seconds.get(folder, 0.0) for folder in folders) / 60
        lines.append(
            f"| {claim.method} | {claim.paper} | {claim.here} | {estimate(first, clusters)} | "
            f"{estimate(second, clusters)} | {100 * difference.difference:+.1f} [{low}, {high}] | "
            f"{'' if p_value is None else format(p_value, '.1g')} | {minutes:.0f} | `--only {claim.method}` |"
        )
    total = sum(seconds.values()) / 60
    notes = [
        f"Seeds {', '.join(map(str, study.seeds))}; {study.size['steps']} steps of 32 questions and 8 completions "
        f"(PeBR-R1: seed 0, 30 of 16 questions); {study.size['rows']} held-out rows; {total:.0f} minutes for all runs "
        f"on {study.processes} cores, some of which serve several lines. A command is `python eval/claims.py` with "
        "what stands in the line.",
        *PLAN["notes"],
    ]
    return [*lines, *(line for note in notes for line in ("", *textwrap.wrap(note, 119)))]


def between_marks(document: str, table: str) -> str:
    """The document with the table between its marks.

    Raises:
        ValueError: it has no marks.
    """
    if BEGIN not in document or END not in document:
        raise ValueError(f"docs/results.md lacks the lines {BEGIN!r} and {END!r}: put them where the table belongs.")
    before, rest = document.split(BEGIN, 1)
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{rest.split(END, 1)[1]}"


if __name__ == "__main__":
    main()
