# SPDX-License-Identifier: Apache-2.0
"""Check a recipe's data set before training on it.

    python -m open_r1_vision.check_data --config recipes/starter/visionary_r1.yaml --limit 1000

Prints one line per problem (row id, check, message), a table of the checks, and a summary. The exit code is 1 when
there are problems or the recipe can't be used, else 0. What is checked: :mod:`open_r1_vision.data.checks`.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset

    from open_r1_vision.data.checks import Inspection


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the heavy imports wait until the options are known to be right."""
    options, recipe_arguments = _build_parser().parse_known_args(argv)
    if options.limit is not None and options.limit < 1:
        raise SystemExit(f"--limit is {options.limit}: set at least 1 row, or leave it out.")
    _refuse_existing(options.write_clean, options.overwrite)
    try:
        dataset, inspection = _inspect_recipe(recipe_arguments, options.split, options.limit)
    except (ValueError, FileNotFoundError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(format_report(inspection))
    if options.write_clean:
        sys.stdout.write(write_clean(dataset, inspection.good_rows(), options.write_clean))
    return 1 if inspection.problems else 0


def format_report(inspection: "Inspection") -> str:
    """Everything found: a line per problem, a table of the checks, and a summary."""
    lines = [f"{problem.row_id}\t{problem.check}\t{problem.message}" for problem in inspection.problems]
    if lines:
        table = [("check", "rows", "for example"), *_count_by_check(inspection)]
        widths = [max(len(row[column]) for row in table) for column in range(2)]
        lines += ["", *(f"{check:{widths[0]}}  {rows:>{widths[1]}}  {example}" for check, rows, example in table), ""]
    bad = inspection.num_rows - len(inspection.good_rows())
    summary = f"{inspection.num_rows} rows checked, {bad or 'none'} with problems"
    for name, values in (("prompt tokens", inspection.prompt_tokens), ("images per row", inspection.images_per_row)):
        if values:
            summary += f"; {name} {min(values)} / {statistics.median(values):g} / {max(values)} (min / median / max)"
    return "\n".join([*lines, f"{summary}.", ""])


def write_clean(dataset: "Dataset", good: Sequence[int], path: str) -> str:
    """Save the good rows, images included, as a folder that `dataset: PATH` in a recipe reads back."""
    if not good:
        return f"Nothing written to {path}: no row is good.\n"
    dataset.select(good).save_to_disk(path)
    return f"{len(good)} good rows written to {path}.\n"


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m open_r1_vision.check_data",
        description=f"{(__doc__ or '').splitlines()[0]} Exit code 1 when there are problems.",
        epilog="Further options are those of `open_r1_vision.train`: --config RECIPE --dataset PATH ...",
        allow_abbrev=False,
    )
    parser.add_argument("--split", choices=("train", "eval"), default="train", help="which of the recipe's data sets")
    parser.add_argument("--limit", type=int, metavar="N", help="check only the first N rows")
    parser.add_argument("--write-clean", metavar="PATH", help="save the good rows that were checked to this folder")
    parser.add_argument("--overwrite", action="store_true", help="let --write-clean replace an existing folder")
    return parser


def _refuse_existing(path: str | None, overwrite: bool) -> None:
    if path and Path(path).exists() and not overwrite:
        raise SystemExit(
            f"{path!r} exists already: give --write-clean another folder, or allow this with --overwrite."
        )


def _inspect_recipe(recipe_arguments: list[str], split: str, limit: int | None) -> tuple["Dataset", "Inspection"]:
    """Load what the recipe names, as training would, and check it."""
    from open_r1_vision.arguments import ScriptArguments, parse_recipe, read_recipe
    from open_r1_vision.importing import import_callable

    recipe = read_recipe(recipe_arguments)
    # how the run is spread over devices does not matter here, and its packages may be missing on this machine
    recipe = recipe.without("deepspeed")
    trainer_class: Any = import_callable(recipe.as_plain().get("trainer") or ScriptArguments.trainer)

    from trl import ModelConfig

    from open_r1_vision.data.checks import check_columns, inspect_rows
    from open_r1_vision.data.loading import load_rows
    from open_r1_vision.models import find_model, load_processor
    from open_r1_vision.rewards.loading import columns_by_reward, load_rewards

    script, training, model = parse_recipe(recipe, (ScriptArguments, trainer_class.config_class, ModelConfig))
    named = (script.dataset, script.dataset_split, script.dataset_options)
    if split == "eval":
        named = (script.eval_dataset, script.eval_dataset_split, script.eval_dataset_options)
    name, split_name, options = named
    if not name:
        raise ValueError(
            "The recipe sets no `eval_dataset`, which --split eval checks: set it, or check --split train."
        )
    dataset = load_rows(name, split_name, **options)
    if limit is not None:
        dataset = dataset.select(range(min(limit, len(dataset))))
    rewards = load_rewards(script.reward_funcs, script.reward_kwargs, dataset.column_names)
    needs = {**columns_by_reward(rewards), trainer_class.__name__: list(trainer_class.required_columns)}
    check_columns(dataset, {**needs, "an option": training.named_columns})
    return dataset, inspect_rows(
        dataset,
        processor=load_processor(find_model(model.model_name_or_path), script.min_pixels, script.max_pixels),
        **script.prompt_texts,
        max_prompt_tokens=training.max_prompt_tokens,
        required_columns=[column for columns in needs.values() for column in columns],
    )


def _count_by_check(inspection: "Inspection") -> list[tuple[str, str, str]]:
    """Per check, most frequent first: its name, the number of rows, and some of their ids."""
    rows: dict[str, dict[int, str]] = {}
    for problem in inspection.problems:
        rows.setdefault(problem.check, {})[problem.index] = problem.row_id
    ordered = sorted(rows.items(), key=lambda item: -len(item[1]))
    return [(check, str(len(ids)), ", ".join(list(dict.fromkeys(ids.values()))[:3])) for check, ids in ordered]


if __name__ == "__main__":
    sys.exit(main())
