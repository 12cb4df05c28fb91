# SPDX-License-Identifier: Apache-2.0
"""Make `key_words` from reference descriptions: those of PeBR-R1 (arXiv 2509.13031) are not published.

    python -m open_r1_vision.data.key_words --dataset rows --description_column caption --output words
    python -m open_r1_vision.data.key_words --dataset rows --reasoner writer.yaml --output words

The first takes names, numbers and labels by rule (see `key_word_rules`); the second asks a text model for the words
that matter to the question. Either way a key word is one that the description names. `dataset: words/rows` in a
recipe reads the result, all rows with a column `key_words`, which is empty where there is no description.

A description is a text, a list of texts or messages; in those with headed sections or tags it is what stands after
`### Image Description:`, or in `<info>` or `<CAPTION>`. The output folder has `rows`, images included, and
`replies.jsonl`, from which the same command goes on after an end of any kind.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, List, Value, concatenate_datasets

from open_r1_vision.data import asking
from open_r1_vision.data.checks import check_columns
from open_r1_vision.data.conversion import Conversion
from open_r1_vision.data.key_word_rules import find_key_words, keep_named
from open_r1_vision.data.loading import load_rows
from open_r1_vision.data.replies import ReplyFile
from open_r1_vision.data.rows import IMAGE_MARKER
from open_r1_vision.prompts import fill_prompt, load_template
from open_r1_vision.reasoners.config import read_block
from open_r1_vision.reasoners.fencing import fence, harmless
from open_r1_vision.rewards.answers import completion_text
from open_r1_vision.rewards.headers import extract_description, split_sections
from open_r1_vision.rewards.key_words import clean_key_words
from open_r1_vision.rewards.tags import extract_section

#: What a reply must be.
SCHEMA = asking.list_schema("key_words")
_TAGS = ("info", "CAPTION", "caption", "description")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code is 1 when nothing was written."""
    options = _build_parser().parse_args(argv)
    try:
        text = _make(options)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{text}\n")
    return 0


def _make(options: argparse.Namespace) -> str:
    for name in ("max_key_words", "max_words", "limit"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise ValueError(f"--{name} is {getattr(options, name)}: set at least 1.")
    config = asking.read_reasoner(options.reasoner, SCHEMA) if options.reasoner else None
    dataset_options = read_block(options.dataset_options, "dataset_options") if options.dataset_options else {}
    dataset = load_rows(options.dataset, options.dataset_split, **dataset_options)
    if options.limit is not None:
        dataset = dataset.select(range(min(options.limit, len(dataset))))
    descriptions = read_descriptions(dataset, options.description_column)
    names = ("dataset", "dataset_split", "description_column", "max_key_words")
    settings = {**{name: getattr(options, name) for name in names}, "dataset_options": dataset_options}
    prompt = load_template(options.prompt, "max_key_words") if config else ""
    if config:
        settings |= {"prompt": prompt, **asking.reply_settings(config)}
    else:
        settings["max_words"] = options.max_words
    replies = ReplyFile(options.output, settings, options.overwrite)
    try:
        failures: dict[str, str] = {}
        if config:
            problems = dict(zip(dataset["id"], dataset["problem"], strict=True))
            system_prompt = fill_prompt(prompt, max_key_words=str(options.max_key_words))
            chats = {
                row_id: extraction_chat(problems[row_id], text, system_prompt) for row_id, text in descriptions.items()
            }
            words, failures = asking.ask_rows(chats, "key_words", replies, config, "Listing key words")
            asking.check_failures(failures, len(chats), config)
            words = {row_id: _settle(listed, descriptions[row_id], row_id) for row_id, listed in words.items()}
        else:
            words = {
                row_id: find_key_words(text, options.max_key_words, options.max_words)
                for row_id, text in descriptions.items()
            }
        words = {row_id: listed[: options.max_key_words] for row_id, listed in words.items()}
        result, report = add_key_words(dataset, descriptions, words, failures, options.drop_empty)
        return f"{asking.save_rows(result, options.output)}: {report}"
    finally:
        replies.close()


def read_descriptions(dataset: Dataset, column: str) -> dict[str, str]:
    """The description of each row that has one, by id.

    Raises:
        ValueError: the column is missing, an id occurs twice, or no row has a description.
    """
    check_columns(dataset, {"key_words": [column]})
    ids = list(dataset["id"])
    twice = next((row_id for row_id in ids if ids.count(row_id) > 1), None) if len(set(ids)) < len(ids) else None
    if twice is not None:
        raise ValueError(f"The id {twice!r} occurs more than once: give every row an id of its own.")
    values = dataset.select_columns([column]).to_list()
    texts = {row_id: reference_description(row[column]) for row_id, row in zip(ids, values, strict=True)}
    found = {row_id: text for row_id, text in texts.items() if text}
    if not found:
        raise ValueError(f"No row has a description in `{column}`: set --description_column to where they stand.")
    return found


def reference_description(value: Any) -> str:
    """The description that a column's value holds; empty where there is none."""
    if isinstance(value, list):
        is_messages = all(isinstance(item, Mapping) for item in value)
        value = completion_text(value) if is_messages else "\n".join(str(item) for item in value)
    text = "" if value is None else str(value).strip()
    if split_sections(text)[1]:
        return extract_description(text) or ""
    tagged = [section for tag in _TAGS if (section := extract_section(text, tag))]
    return tagged[0] if tagged else text


def extraction_chat(problem: str, description: str, system_prompt: str) -> list[dict[str, str]]:
    """The chat that asks for the key words of a row. Both texts stand in fences, so that neither can end itself."""
    problem = problem.replace(IMAGE_MARKER, " ").strip()
    parts = [
        fence(problem, "question", beside=harmless(description)),
        f"{fence(description, 'description', beside=harmless(problem))} List the key words, as JSON alone.",
    ]
    return [{"role": "system", "content": system_prompt}, {"role": "user", "content": "\n\n".join(parts)}]


def add_key_words(
    dataset: Dataset,
    descriptions: Mapping[str, str],
    words: Mapping[str, list[str]],
    failures: Mapping[str, str],
    drop_empty: bool = False,
) -> tuple[Dataset, str]:
    """The rows with the column `key_words`, and what became of them.

    Raises:
        ValueError: no row has key words.
    """
    conversion = Conversion()
    kept, lists = [], []
    for index, row_id in enumerate(dataset["id"]):
        listed = words.get(row_id, [])
        reason = None
        if row_id in failures:
            reason = f"no reply: {failures[row_id].partition(':')[0]}"
        elif row_id not in descriptions:
            reason = "no description"
        elif not listed:
            reason = "no key words"
        if reason and drop_empty:
            conversion.drop(reason, row_id)
            continue
        conversion.kept[reason or "key words"] += 1
        conversion.rows.append({"id": row_id})
        kept.append(index)
        lists.append(listed)
    num_words, num_rows = sum(map(len, lists)), sum(map(bool, lists))
    if not num_rows:
        raise ValueError(f"No row has key words.\n{conversion.report()}")
    column = Dataset.from_dict({"key_words": lists}, features=Features({"key_words": List(Value("string"))}))
    result = dataset.select(kept)
    if "key_words" in result.column_names:
        result = result.remove_columns("key_words")
    report = f"{conversion.report()}\n{num_words} key words, {num_words / num_rows:.1f} a row that has any."
    return concatenate_datasets([result, column], axis=1), report


def _settle(listed: list[str], description: str, row_id: str) -> list[str]:
    """A reply's key words that the description names, each once."""
    return keep_named(clean_key_words([" ".join(word.split()) for word in listed], row_id), description)


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m open_r1_vision.data.key_words",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--dataset", required=True, help="as in a recipe: a file, a folder, a dotted path, or a hub id")
    add("--dataset_split", default="train")
    add("--dataset_options", metavar="JSON", help="as in a recipe")
    add("--description_column", default="description", help="the reference descriptions")
    add("--reasoner", metavar="JSON", help="a recipe's `reasoner` block: JSON, or a file; by default the rule")
    add("--output", type=Path, required=True, metavar="FOLDER", help="where replies and rows go")
    add("--prompt", default="key_words", help="what the model is told; a packaged prompt or a path")
    add("--max_key_words", type=int, default=12, help="most key words of a row")
    add("--max_words", type=int, default=1, help="of the rule: words next to each other that make one key word")
    add("--drop_empty", action="store_true", help="leave out rows without key words")
    add("--limit", type=int, metavar="N", help="only the first N rows")
    add("--overwrite", action="store_true", help="start anew in a folder with other settings")
    return parser


if __name__ == "__main__":
    sys.exit(main())
