# SPDX-License-Identifier: Apache-2.0
"""Make `visual_facts` from reference reasoning, a step of Perception-R1 (arXiv 2506.07218) that was not published.

    python -m open_r1_vision.data.annotate --dataset rows --reasoner judge.yaml --output facts
    python -m open_r1_vision.data.annotate --audit facts/audit.jsonl

Of the rows whose reasoning comes to the right answer, a text model lists what the reasoning takes from the image.
Facts that repeat each other or the question are left out. `dataset: facts/rows` in a recipe reads the result.

The output folder has `rows`, images included; `replies.jsonl`, from which the same command goes on after an end of any
kind, and asks anew where there was no reply; and a sample to label (see `annotation_audit`), of which the second
command gives the share of right facts. The paper found 96 %.

LLaVA-CoT's `reasoning_steps` hold no final answer: take them with --keep_unanswered.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from open_r1_vision.data import asking
from open_r1_vision.data.annotation_audit import measure_labels, write_sample
from open_r1_vision.data.loading import load_rows
from open_r1_vision.data.replies import ReplyFile
from open_r1_vision.data.visual_facts import SCHEMA, add_facts, ask, select_tasks
from open_r1_vision.prompts import fill_prompt, load_template
from open_r1_vision.reasoners import ReasonerConfig
from open_r1_vision.reasoners.config import read_block


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code is 1 when nothing was written."""
    options = _build_parser().parse_args(argv)
    try:
        if options.audit:
            text = f"right facts: {(share := measure_labels(options.audit))} of {share.count} labelled"
        else:
            text = _annotate(options)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{text}\n")
    return 0


def _annotate(options: argparse.Namespace) -> str:
    missing = [name for name in ("dataset", "reasoner", "output") if getattr(options, name) is None]
    if missing:
        raise ValueError(f"--{' and --'.join(missing)} must be set, or --audit to read labels.")
    for name in ("max_facts", "audit_size", "limit"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise ValueError(f"--{name} is {getattr(options, name)}: set at least 1.")
    config = read_reasoner(options.reasoner)
    prompt = load_template(options.prompt, "max_facts")
    dataset_options = read_block(options.dataset_options, "dataset_options") if options.dataset_options else {}
    dataset = load_rows(options.dataset, options.dataset_split, **dataset_options)
    if options.limit is not None:
        dataset = dataset.select(range(min(options.limit, len(dataset))))
    tasks, conversion = select_tasks(dataset, options.reasoning_column, options.answer_column, options.keep_unanswered)
    if not tasks:
        raise ValueError(f"No row can be annotated.\n{conversion.report()}")
    settings = {
        **{name: getattr(options, name) for name in ("dataset", "dataset_split", "reasoning_column", "max_facts")},
        "dataset_options": dataset_options,
        "prompt": prompt,
        **asking.reply_settings(config),
    }
    replies = ReplyFile(options.output, settings, options.overwrite)
    try:
        facts, failures = ask(tasks, fill_prompt(prompt, max_facts=str(options.max_facts)), replies, config)
        asking.check_failures(failures, len(tasks), config)
        annotated, report = add_facts(dataset, tasks, facts, failures, conversion, options.max_facts)
        place = asking.save_rows(annotated, options.output)
        reasonings = {task.row_id: task.reasoning for task in tasks}
        sample = write_sample(
            annotated, reasonings, options.output, options.audit_size, options.seed, options.overwrite
        )
    finally:
        replies.close()
    return f"{place}: {report}\n{sample}"


def read_reasoner(text: str) -> ReasonerConfig:
    """The reasoner that an option names, asked for a list of facts."""
    return asking.read_reasoner(text, SCHEMA)


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m open_r1_vision.data.annotate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--dataset", help="as in a recipe: a file, a folder, a dotted path, or a hub id")
    add("--dataset_split", default="train")
    add("--dataset_options", metavar="JSON", help="as in a recipe")
    add("--reasoner", metavar="JSON", help="its block of a recipe, or a YAML or JSON file: of the block, or a recipe")
    add("--output", type=Path, metavar="FOLDER", help="where replies, rows and the sample go")
    add("--prompt", default="visual_facts", help="what the model is told; a packaged prompt or a path")
    add("--max_facts", type=int, default=8, help="most facts of a row")
    add("--reasoning_column", default="reasoning_steps", help="the reference reasoning: texts, or one text")
    add("--answer_column", help="the answer that a reasoning without a final answer comes to")
    add("--keep_unanswered", action="store_true", help="take rows whose reasoning comes to no answer, too")
    add("--audit_size", type=int, default=50, help="rows whose facts are to be labelled")
    add("--seed", type=int, default=0, help="of the sample")
    add("--limit", type=int, metavar="N", help="only the first N rows")
    add("--overwrite", action="store_true", help="start anew in a folder with other settings, or with labels")
    add("--audit", type=Path, metavar="FILE", help="give the share of right facts by the labels in this file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
