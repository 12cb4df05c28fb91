# SPDX-License-Identifier: Apache-2.0
"""What evaluation passes around: items of a benchmark, records of what a model said to them, metrics over both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

#: How an item is put to a model: as the benchmark's authors do, or as the model was trained.
PROMPT_STYLES = ("benchmark", "method")
JUDGES = ("rule", "llm", "none")
#: All but `ok` score 0 in the headline.
STATUSES = ("ok", "truncated", "failed", "no_answer")
#: Between a source and a group of items in it: `image 1f00 / question 5`.
GROUP_MARK = " / "


@dataclass(frozen=True)
class Item:
    """One question of a benchmark.

    Attributes:
        index: unique in the benchmark; a string even where the table has integers.
        question: as the source has it.
        images: PIL images, or callables without argument that give one, decoded when needed.
        answer: the gold answer; None where the split has none.
        options: text by letter; empty where the answer is free.
        fields: the columns of the source but its images, strings kept as they are.
        cluster: items of one cluster share a source, such as an image or a problem; None for an independent item.
            Where several problems share an image it is both: `image 1f00 / problem 5`.
        group_size: items of its problem in the data file, all of which an official metric may want.
    """

    index: str
    question: str
    images: tuple[Any, ...] = ()
    answer: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    cluster: str | None = None
    group_size: int = 1

    def open_images(self) -> list[Any]:
        """The images, decoded.

        Raises:
            ValueError: one of them is no image.
        """
        return [image() if callable(image) else image for image in self.images]


def source_of(cluster: str | None) -> str | None:
    """What the items of a cluster have in common with all others that are not independent of them."""
    return None if cluster is None else cluster.partition(GROUP_MARK)[0]


def shared_source(cluster: str | None) -> str | None:
    """The source of a cluster that shares it with other clusters; None for one that is independent as a whole."""
    return source_of(cluster) if cluster is not None and GROUP_MARK in cluster else None


@dataclass(frozen=True)
class Record:
    """What a model said to an item, and what it earned: one line of `samples.jsonl`, keys in this order.

    Attributes:
        dataset: the benchmark's name.
        index: of the item.
        sample: 0 to n - 1, of n samples of the item.
        prompt_sha: sha256 of the messages, images by their content.
        prompt_style: one of `PROMPT_STYLES`.
        raw: the model's text.
        answer: what was extracted from it.
        extractor: name of the rule that found it.
        gold: the gold answer.
        score: in [0, 1]; None where there is no gold.
        judged_by: one of `JUDGES`.
        status: one of `STATUSES`.
        tokens: generated; None where a server does not say.
        seed: of the sample; None where it was greedy.
        cluster: of the item.
    """

    dataset: str
    index: str
    sample: int
    prompt_sha: str
    prompt_style: str
    raw: str
    answer: str | None
    extractor: str
    gold: str | None
    score: float | None
    judged_by: str
    status: str
    tokens: int | None
    seed: int | None
    cluster: str | None


@dataclass(frozen=True)
class Metric:
    """One figure of a benchmark.

    Attributes:
        name: in full, such as `wemath_strict`.
        value: in [0, 1].
        n: items, or groups of them, that it is over.
        interval: 95 %, Wilson's or clustered; None where there is none.
    """

    name: str
    value: float
    n: int
    interval: tuple[float, float] | None = None


class Benchmark(Protocol):
    """What each file in `evaluate.benchmarks` offers; see `evaluate.benchmarks.find`."""

    @property
    def name(self) -> str: ...

    @property
    def needs_file(self) -> bool:
        """Whether `read` needs a path."""
        ...

    def read(self, path: Path | None) -> list[Item]:
        """The items of a data file.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: a row that can't be used, with its file and number.
        """
        ...

    def messages(
        self, item: Item, style: str, *, system_prompt: str | None = None, user_prompt: str | None = None
    ) -> list[dict]:
        """The chat for an item, images in the content as `{"type": "image", "image": PIL}`.

        Args:
            item: of this benchmark.
            style: one of `PROMPT_STYLES`.
            system_prompt: text of a system message.
            user_prompt: template with `{problem}` around the text.

        Raises:
            ValueError: an unknown style, or an image that is none.
        """
        ...

    def extract(self, item: Item, text: str) -> tuple[str | None, str]:
        """The answer that a text gives, None when there is none, and the name of the rule that found it."""
        ...

    def score(self, item: Item, answer: str | None) -> float | None:
        """How right an answer is, in [0, 1]; None where the item has no gold answer."""
        ...

    def metrics(self, items: Sequence[Item], records: Sequence[Record]) -> list[Metric]:
        """The official metric first, then its parts.

        Raises:
            ValueError: records of items that are not there.
        """
        ...
