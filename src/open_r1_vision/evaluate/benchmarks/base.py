# SPDX-License-Identifier: Apache-2.0
"""What benchmarks have in common; each file overrides what its own does otherwise."""

import ast
import logging
import re
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from open_r1_vision.evaluate.benchmarks.aggregate import accuracy, accuracy_by, collect_scores
from open_r1_vision.evaluate.benchmarks.extraction import find_answer, find_option, named_option
from open_r1_vision.evaluate.benchmarks.scoring import same_answer
from open_r1_vision.evaluate.items import GROUP_MARK, PROMPT_STYLES, Item, Metric, Record
from open_r1_vision.evaluate.sources import Row, read_rows
from open_r1_vision.evaluate.stored_images import StoredImage
from open_r1_vision.evaluate.tsv import read_list
from open_r1_vision.prompts import fill_prompt
from open_r1_vision.rewards.choices import parse_options, same_choice

logger = logging.getLogger(__name__)

#: Asks for the option where a benchmark's own prompt has no words for it.
CHOOSE = "Please select the correct answer from the options above."
_MARKER = re.compile(r"<image(?: (\d+))?>")


@dataclass(frozen=True)
class TableBenchmark:
    """A benchmark whose items are rows of a table, with options or free answers.

    Attributes:
        name: of this benchmark and prompt, such as `mmmu_pro_10c_cot`.
        family: what its metrics are called by, such as `mmmu_pro_10c`.
        kit_names: what VLMEvalKit calls its data; the first one names exported files.
        splits: of a data set with several splits, the first of these is read.
        needs_file: whether `read` needs a path.
        choices_only: whether every item must have options.
        parts: columns by which accuracy is reported too.
    """

    name: str
    family: str = ""
    kit_names: tuple[str, ...] = ()
    splits: tuple[str, ...] = ("test",)
    needs_file: bool = True
    choices_only: bool = False
    parts: tuple[str, ...] = ()

    def read(self, path: str | Path | None) -> list[Item]:
        """The items of a data file, see :func:`open_r1_vision.evaluate.sources.read_rows`.

        Rows without an image are left out and counted in the log, as VLMEvalKit does.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: a row that can't be used, with its file and number.
        """
        rows = read_rows(self.source(path), self.splits)
        kept = [row for row in rows if row.images]
        if not kept:
            raise ValueError(
                f"{str(path)!r} has {len(rows)} rows and no images: {self.name} needs a column image or image_path."
            )
        if len(kept) < len(rows):
            logger.warning("%s: %d of %d rows have no image and are left out.", path, len(rows) - len(kept), len(rows))
        items = [self.check(self.build(row), row) for row in kept]
        refuse_equal_indices(items, str(path))
        return cluster_by_source(self.grouped(items))

    def grouped(self, items: list[Item]) -> list[Item]:
        """The items, with the clusters that only all of them together show."""
        return items

    def source(self, path: str | Path | None) -> str | Path:
        """The path that was given.

        Raises:
            ValueError: none was.
        """
        if path is None:
            raise ValueError(
                f"{self.name} reads its items from a file, but none was given: give a table, a data set, or a hub id."
            )
        return path

    def build(self, row: Row) -> Item:
        """The item of a row."""
        return Item(
            index=row.text("index"),
            question=self.question(row),
            images=row.images,
            answer=row.text("answer") or None,
            options=row.options(),
            fields=row.columns,
        )

    def question(self, row: Row) -> str:
        """The question of a row.

        Raises:
            ValueError: there is none.
        """
        question = row.text("question")
        if not question:
            raise ValueError(
                f"{row.place}: 'question' is empty or missing; the columns are {', '.join(row.columns)}. Give "
                f"{self.name}'s own data."
            )
        return question

    def check(self, item: Item, row: Row) -> Item:
        """Refuse an item whose options are missing; name its gold option by its letter.

        Raises:
            ValueError: options are missing, or the gold answer is none of them.
        """
        if self.choices_only and len(item.options) < 2:
            raise ValueError(
                f"{row.place}: {len(item.options)} options, but {self.name} asks for a choice. Give options in the "
                "columns A, B, C and so on."
            )
        if not item.options or item.answer is None:
            return item
        letter = named_option(item.answer, item.options)
        if letter is None:
            raise ValueError(
                f"{row.place}: the gold answer {item.answer!r:.80} is none of the options {', '.join(item.options)}. "
                "Correct the answer, or add the option that is missing."
            )
        return replace(item, answer=letter)

    def messages(
        self, item: Item, style: str, *, system_prompt: str | None = None, user_prompt: str | None = None
    ) -> list[dict]:
        """The chat for an item.

        Args:
            item: of this benchmark.
            style: `benchmark` for the layout of the benchmark, `method` for the question as a training row has it.
            system_prompt: text of a system message, by default none.
            user_prompt: template with `{problem}` around the text, by default none.

        Raises:
            ValueError: an unknown style, an image that is broken, or a marker of an image that is not there.
        """
        if style not in PROMPT_STYLES:
            raise ValueError(f"The prompt style is {style!r}: set it to {' or '.join(PROMPT_STYLES)}.")
        text = self.prompt(item) if style == "benchmark" else self.problem(item)
        if user_prompt:
            text = fill_prompt(user_prompt, problem=text)
        return chat(text, item.open_images(), system_prompt, f"{self.name}, item {item.index}")

    def prompt(self, item: Item) -> str:
        """The text that the benchmark asks with; by default the question, and its options in VLMEvalKit's layout."""
        if not item.options or not self.has_option_columns(item):
            return item.question
        hint = str(item.fields.get("hint") or "")
        head = f"Hint: {hint}\n" if hint else ""
        return f"{head}Question: {item.question}\nOptions:\n{option_lines(item)}\n{CHOOSE}"

    def problem(self, item: Item) -> str:
        """The question as a training row has it: the question, and a line for each option that is not yet in it."""
        if not item.options or not self.has_option_columns(item):
            return item.question
        hint = str(item.fields.get("hint") or "")
        return "\n".join([*([hint] if hint else []), item.question, option_lines(item)])

    def has_option_columns(self, item: Item) -> bool:
        """Whether the options stand apart from the question, so that a prompt has to add them."""
        return Row("", item.fields, ()).options() != {}

    def extract(self, item: Item, text: str) -> tuple[str | None, str]:
        """See :mod:`open_r1_vision.evaluate.benchmarks.extraction`."""
        return find_option(text, item.options) if item.options else find_answer(text)

    def score(self, item: Item, answer: str | None) -> float | None:
        """1.0 or 0.0; None where the item has no gold answer."""
        if item.answer is None:
            return None
        if item.options:
            return float(answer is not None and same_choice(answer, item.answer, dict(item.options)))
        return same_answer(answer, item.answer, item.question)

    def metrics(self, items: Sequence[Item], records: Sequence[Record]) -> list[Metric]:
        """The share of right answers over all items, then by each of `parts`.

        Raises:
            ValueError: see :func:`open_r1_vision.evaluate.benchmarks.aggregate.collect_scores`.
        """
        scores = collect_scores(self.name, items, records)
        prefix = self.family or self.name
        metrics = accuracy(f"{prefix}_micro", items, scores)
        for part in self.parts:
            metrics += accuracy_by(f"{prefix}_{part.replace('-', '_')}", items, scores, kinds_by(part))
        return metrics


def field_text(item: Item, name: str) -> str:
    """A column of an item as text, or an entry of its column `metadata`; empty where there is neither."""
    value = item.fields.get(name)
    if value is None or value == "":
        value = _metadata(item).get(name)
    return "" if value is None else str(value)


def kinds_by(name: str) -> Callable[[Item], list[str]]:
    """A function that gives what stands in a column of an item: nothing, a text, or the entries of a list."""

    def kinds(item: Item) -> list[str]:
        text = field_text(item, name)
        if text.startswith("["):
            return [str(one) for one in read_list(text, f"item {item.index}, column {name!r}")]
        return [text] if text else []

    return kinds


def parsed_options(text: str, gold: str) -> dict[str, str]:
    """The options in a question's text, where the gold answer is one of them; empty otherwise."""
    options = parse_options(text)
    return options if options and named_option(gold, options) else {}


def _metadata(item: Item) -> Mapping[str, Any]:
    value = item.fields.get("metadata")
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            return {}
    return value if isinstance(value, Mapping) else {}


def option_lines(item: Item, mark: str = ".") -> str:
    """The options of an item, a line each."""
    return "\n".join(f"{letter}{mark} {text}" for letter, text in item.options.items())


def chat(text: str, images: Sequence[Any], system_prompt: str | None, place: str) -> list[dict]:
    """A chat with images where the text's markers `<image 1>` or `<image>` stand, otherwise before it.

    Images that no marker names come first, so that none is withheld.

    Raises:
        ValueError: a marker of an image that is not there.
    """
    content: list[dict] = []
    named: set[int] = set()
    position = bare = 0
    for marker in _MARKER.finditer(text):
        bare += marker[1] is None
        number = int(marker[1]) if marker[1] else bare
        if not 1 <= number <= len(images):
            raise ValueError(
                f"{place}: the text holds {marker[0]}, but there are {len(images)} images. Give the image, or remove "
                "the marker."
            )
        content += [_text(text[position : marker.start()]), {"type": "image", "image": images[number - 1]}]
        named.add(number)
        position = marker.end()
    content.append(_text(text[position:]))
    first = [{"type": "image", "image": image} for number, image in enumerate(images, 1) if number not in named]
    system = [{"role": "system", "content": [_text(system_prompt)]}] if system_prompt else []
    parts = [part for part in content if part.get("text", "x").strip()]
    return [*system, {"role": "user", "content": [*first, *parts]}]


def _text(text: str) -> dict:
    return {"type": "text", "text": text}


def refuse_equal_indices(items: Sequence[Item], source: str) -> None:
    """Refuse items of which two have one index.

    Raises:
        ValueError: two have.
    """
    index, count = Counter(item.index for item in items).most_common(1)[0]
    if count > 1:
        raise ValueError(
            f"{source!r}: the index {index!r} stands in {count} rows. Indices must be unique; number the rows anew."
        )


def cluster_by_source(items: Sequence[Item]) -> list[Item]:
    """Put items in one cluster that have one already, or that show the same images; one that shares nothing has none.

    Clusters that share images have one source, and stay apart in it: `image 1f00 / question 5`.
    """
    parents: dict[Hashable, Hashable] = {}

    def root(key: Hashable) -> Hashable:
        while parents.setdefault(key, key) != key:
            parents[key] = key = parents[parents[key]]
        return key

    images = [_image_key(item) for item in items]
    for place, (item, image) in enumerate(zip(items, images, strict=True)):
        for name, value in (("cluster", item.cluster), ("image", image)):
            if value is not None:
                parents[root((name, value))] = root(place)
    sources: dict[Hashable, list[int]] = {}
    for place in range(len(items)):
        sources.setdefault(root(place), []).append(place)
    sizes = Counter(item.cluster for item in items)
    found = list(items)
    for places in sources.values():
        clusters = {items[place].cluster for place in places}
        image = next((f"image {key[:16]}" for place in places if (key := images[place])), "")
        for place in places:
            own = items[place].cluster
            name = image if own is None else own if len(clusters) == 1 else f"{image}{GROUP_MARK}{own}"
            size = 1 if own is None else sizes[own]
            found[place] = replace(items[place], cluster=name if len(places) > 1 else None, group_size=size)
    return found


def _image_key(item: Item) -> str | None:
    digests = [image.digest() for image in item.images if isinstance(image, StoredImage)]
    return " ".join(sorted(digests)) if digests and len(digests) == len(item.images) else None
