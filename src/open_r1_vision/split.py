# SPDX-License-Identifier: Apache-2.0
"""Split sampled rows by how many of their samples are right.

    python -m open_r1_vision.split --samples runs/samples --output_dir runs/splits
    python -m open_r1_vision.split --samples runs/samples --output_dir runs/other --scorer my_module.my_reward

easy: all right; hard: none; medium: the rest (PeBR-R1, arXiv 2509.13031). Rows without all of their samples, or with
one that got no score, are kept apart as `incomplete`. A training recipe names a split as
`dataset: open_r1_vision.data.splits.rows`, `dataset_split: easy`, `dataset_options: {path: runs/splits}`.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from open_r1_vision.arguments import print_help, read_recipe
from open_r1_vision.distributed import end_with_launcher, is_main_process

if TYPE_CHECKING:
    from open_r1_vision.sampling.records import Held

RATES_FILE = "pass_rates.json"
PLOT_FILE = "pass_rates.png"
_ROUNDING = 1e-9


@dataclass
class SplitArguments:
    """How samples are scored, and where the splits begin."""

    samples: str = field(metadata={"help": "Folder that open_r1_vision.sample wrote."})
    output_dir: str = field(
        default="runs/splits", metadata={"help": "Folder of the splits; files in it are replaced."}
    )
    scorer: str = field(
        default="open_r1_vision.rewards.accuracy_reward",
        metadata={"help": "Dotted path of the function that scores samples, called as a reward is."},
    )
    scorer_kwargs: dict | str | None = field(default=None, metadata={"help": "Its settings, as a mapping."})
    answer_form: str | None = field(
        default="tags", metadata={"help": "Where completions give their answer, for scorers that take it."}
    )
    right_from: float = field(default=1.0, metadata={"help": "A sample is right with at least this score."})
    easy_from: float = field(default=1.0, metadata={"help": "A row is easy if at least this share of it is right."})
    hard_up_to: float = field(default=0.0, metadata={"help": "A row is hard if at most this share of it is right."})

    def __post_init__(self) -> None:
        if isinstance(self.scorer_kwargs, str):
            try:
                self.scorer_kwargs = json.loads(self.scorer_kwargs)
            except ValueError as error:
                raise ValueError(f"scorer_kwargs is {self.scorer_kwargs!r}, which is not JSON ({error}).") from error
        if not 0 <= self.hard_up_to < self.easy_from <= 1:
            raise ValueError(
                f"hard_up_to is {self.hard_up_to:g} and easy_from {self.easy_from:g}, but they are pass rates, the "
                "first below the second: set them so that 0 <= hard_up_to < easy_from <= 1."
            )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 2 when nothing could be done."""
    words = sys.argv[1:] if argv is None else list(argv)
    if {"-h", "--help"} & set(words):
        further = "A recipe with these keys may be given with --config."
        print_help("open_r1_vision.split", [SplitArguments], __doc__, further, "--samples FOLDER")
        return 0
    if not is_main_process():
        return 0  # there is nothing to share out
    from open_r1_vision.sampling.options import read_part

    try:
        recipe = read_recipe(words)
        found = split_samples(read_part(recipe, SplitArguments))
    except (ValueError, FileNotFoundError) as error:
        sys.stdout.write(f"error: {error}\n")
        return 2
    sys.stdout.write(format_splits(found))
    return 0


def split_samples(args: SplitArguments) -> dict[str, Any]:
    """Score samples, split their rows, and write lists of ids, pass rates and a plot.

    Returns:
        What splits.json holds, and `reasons`: how many rows are incomplete for which reason.

    Raises:
        ValueError: no samples, a scorer that can't be used, or a data set that has changed.
    """
    import hashlib

    from open_r1_vision.data.loading import load_rows
    from open_r1_vision.data.splits import SPLITS_FILE
    from open_r1_vision.files import write_whole
    from open_r1_vision.sampling.records import SampleFolder, read_refused, read_settings
    from open_r1_vision.sampling.run import row_settings
    from open_r1_vision.sampling.scoring import load_scorer, score

    settings = read_settings(args.samples)
    source = {name: settings[name] for name in ("dataset", "dataset_split", "dataset_options")}
    rows = load_rows(source["dataset"], source["dataset_split"], **source["dataset_options"])
    if any(settings[name] != value for name, value in row_settings(rows).items()):
        raise ValueError(
            f"The rows of {source['dataset']!r} are not those of which {args.samples!r} holds samples: other ids, "
            "problems or numbers of images. Restore the data set, or sample it again."
        )
    kwargs: Any = args.scorer_kwargs
    scorer = load_scorer(args.scorer, kwargs, rows, args.answer_form)
    ids, count = list(rows["id"]), settings["num_generations"]
    held = SampleFolder(args.samples).held()
    scores = score(scorer, rows, held, count)
    num_right = {
        row_id: sum(value >= args.right_from for value in values if value is not None)
        for row_id, values in scores.items()
        if None not in values
    }
    digest = hashlib.sha256()
    for line in held.lines(ids, count):
        digest.update(line)
    found = {
        "samples": digest.hexdigest(),
        "num_samples": count,
        "source": source,
        "scorer": args.scorer,
        "scorer_kwargs": kwargs or {},
        "answer_form": args.answer_form,
        **{name: getattr(args, name) for name in ("right_from", "easy_from", "hard_up_to")},
        "histogram": [sum(right == number for right in num_right.values()) for number in range(count + 1)],
        "splits": assign(ids, num_right, count, args.easy_from, args.hard_up_to),
    }
    folder = Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    rates = {row_id: right / count for row_id, right in sorted(num_right.items())}
    write_whole(folder / RATES_FILE, json.dumps(rates, indent=0) + "\n")
    draw_histogram(folder / PLOT_FILE, found)
    # last, since it says that the rest is there
    write_whole(folder / SPLITS_FILE, json.dumps(found, indent=1) + "\n")
    reasons = _reasons(found["splits"]["incomplete"], held, read_refused(held, ids), scores, count)
    return {**found, "reasons": reasons, "folder": str(folder)}


def assign(
    ids: Sequence[str], num_right: Mapping[str, int], count: int, easy_from: float, hard_up_to: float
) -> dict[str, list[str]]:
    """The sorted ids of each split; every id is in exactly one.

    Args:
        ids: of all rows.
        num_right: right samples of each row that has all of its `count` samples scored.
        count: samples of a row.
        easy_from: lowest pass rate of an easy row.
        hard_up_to: highest pass rate of a hard row.
    """
    splits: dict[str, list[str]] = {"easy": [], "medium": [], "hard": [], "incomplete": []}
    for row_id in sorted(ids):
        if row_id not in num_right:
            name = "incomplete"
        elif num_right[row_id] / count >= easy_from - _ROUNDING:
            name = "easy"
        elif num_right[row_id] / count <= hard_up_to + _ROUNDING:
            name = "hard"
        else:
            name = "medium"
        splits[name].append(row_id)
    return splits


def format_splits(found: Mapping[str, Any]) -> str:
    """The splits and their sizes, for a person."""
    total = sum(map(len, found["splits"].values()))
    lines = [f"{total} rows, {found['num_samples']} samples each, scored by {found['scorer']}"]
    for name, ids in found["splits"].items():
        lines.append(f"{name:<11}{len(ids):>8}  {100 * len(ids) / max(total, 1):5.1f} %")
    lines += [f"  {reason}: {count} rows" for reason, count in found["reasons"].items()]
    return "\n".join([*lines, f"written    {found['folder']}", ""])


def draw_histogram(path: Path, found: Mapping[str, Any]) -> None:
    """Draw how many rows have how many right samples, coloured by split."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    count = found["num_samples"]
    colours = {"hard": "#c44e52", "medium": "#dd8452", "easy": "#55a868"}
    names = [
        next(
            name
            for name, ids in assign(["row"], {"row": right}, count, found["easy_from"], found["hard_up_to"]).items()
            if ids
        )
        for right in range(count + 1)
    ]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    bars = axes.bar(range(count + 1), found["histogram"], color=[colours[name] for name in names])
    axes.bar_label(bars, fontsize=8)
    axes.set_xticks(range(count + 1), [f"{right}/{count}" for right in range(count + 1)])
    axes.set_xlabel("right samples of a row")
    axes.set_ylabel("rows")
    axes.margins(y=0.12)
    sizes = {name: len(ids) for name, ids in found["splits"].items()}
    patches = [Patch(color=colour, label=f"{name}: {sizes[name]} rows") for name, colour in colours.items()]
    axes.legend(handles=patches, fontsize=9, loc="upper center")
    axes.set_title(f"Pass rates of {sum(found['histogram'])} rows, {sizes['incomplete']} incomplete ones apart")
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, dpi=120)


def _reasons(
    incomplete: Sequence[str], held: "Held", refused: Mapping[str, str], scores: Mapping[str, Any], count: int
) -> dict[str, int]:
    reasons: dict[str, int] = {}
    for row_id in incomplete:
        if row_id in refused:
            reason = f"left out, {refused[row_id].partition(':')[0]}"
        elif row_id in scores:
            reason = "a sample without score"
        else:
            reason = f"{count - len(held.missing(row_id, count))} of {count} samples"
        reasons[reason] = reasons.get(reason, 0) + 1
    return dict(sorted(reasons.items()))


if __name__ == "__main__":
    end_with_launcher()
    sys.exit(main())
