# SPDX-License-Identifier: Apache-2.0
"""FilteredGRPOTrainer: groups that teach nothing are replaced by fresh prompts while a batch is generated."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from accelerate.utils import gather_object
from transformers import PreTrainedModel
from trl.data_utils import prepare_multimodal_messages

from open_r1_vision.data.rows import count_images
from open_r1_vision.importing import import_callable
from open_r1_vision.rewards.loading import checked, required_columns
from open_r1_vision.trainers.base import VisionGRPOTrainer
from open_r1_vision.trainers.config import VisionGRPOConfig
from open_r1_vision.trainers.gates import score_completions


@dataclass
class FilteredGRPOConfig(VisionGRPOConfig):
    """Options of FilteredGRPOTrainer."""

    filter_gate: str = field(
        default="open_r1_vision.rewards.accuracy_reward",
        metadata={
            "help": "Dotted path of the function that scores completions for the filter, called as a reward is."
        },
    )
    filter_above: float = field(
        default=0.0, metadata={"help": "A group is kept if its mean score is above this, and below filter_below."}
    )
    filter_below: float = field(
        default=1.0,
        metadata={"help": "See filter_above. PeBR-R1's perception stage: 0.9999 and 1.0001; reasoning: 0 and 1."},
    )
    filter_rounds: int = field(
        default=3,
        metadata={"help": "Most fresh prompts for one group; what the last one gives is trained. PeBR-R1: 20."},
    )

    def __post_init__(self) -> None:
        if not self.filter_above < self.filter_below:
            raise ValueError(
                f"filter_above is {self.filter_above} and filter_below {self.filter_below}, so that no group could be "
                "kept: set the first below the second."
            )
        if self.filter_rounds < 1:
            raise ValueError(f"filter_rounds is {self.filter_rounds}: set at least 1, or take VisionGRPOTrainer.")
        super().__post_init__()

    @property
    def named_columns(self) -> tuple[str, ...]:
        """See :class:`VisionGRPOConfig`."""
        return (*super().named_columns, *required_columns(import_callable(self.filter_gate)))


class FilteredGRPOTrainer(VisionGRPOTrainer):
    """GRPO whose groups have a signal: DAPO's dynamic sampling (arXiv 2503.14476), PeBR-R1's online filter.

    For those who skip the pass of `open_r1_vision.sample`. The completions of a batch are scored by a gate; a group
    whose mean score is not strictly between `filter_above` and `filter_below` is given up, a row that is drawn at
    random from the data set takes its place, and is sampled, `filter_rounds` times at most. Unlike DAPO, which goes on
    in the epoch until a batch is full, the epoch's order stays as it is, and so does the number of groups in a batch.
    A row takes the place of one that has images if it has some too. A group whose gate gives no score is kept.

    Which rows are drawn depends on the seed, the step and the round alone: a resumed run draws the same.

    Logged, as shares of the groups: `filter/replaced` (given up at least once) and `filter/left` (not kept, but
    trained after the last round); further `filter/rounds` and `filter/extra_tokens` (sampled for fresh rows, for each
    token of the first sampling).

    Args:
        gate: scores completions; by default the function that `filter_gate` names. The others are VisionGRPOTrainer's.

    Overrides `_generate` and `_generate_single_turn`, which call VisionGRPOTrainer's.

    Raises:
        ValueError: a data set without random access.
    """

    _tag_names = ["trl", "grpo", "open_r1_vision"]
    _name = "FilteredGRPO"

    config_class: ClassVar[type[FilteredGRPOConfig]] = FilteredGRPOConfig
    args: FilteredGRPOConfig

    def __init__(
        self,
        model: str | PreTrainedModel,
        reward_funcs: Any = None,
        args: FilteredGRPOConfig | None = None,
        train_dataset: Any = None,
        *rest: Any,
        gate: Callable[..., Any] | None = None,
        **kwargs: Any,
    ) -> None:
        args = args or self.config_class(output_dir="runs/filtered_grpo")
        super().__init__(model, reward_funcs, args, train_dataset, *rest, **kwargs)
        self.gate: Any = checked(gate or import_callable(self.args.filter_gate), role="gate")
        if not hasattr(train_dataset, "select"):
            raise ValueError(
                "FilteredGRPOTrainer draws rows at random, which a streamed data set can't give: pass a "
                "datasets.Dataset."
            )
        counts = count_images(train_dataset) if "images" in train_dataset.column_names else [0] * len(train_dataset)
        #: Places of rows without, and with, images.
        self._places = [[place for place, count in enumerate(counts) if bool(count) is has] for has in (False, True)]
        self._rows: Any = train_dataset
        self._ids = list(train_dataset["id"]) if "id" in train_dataset.column_names else None
        self._batch_of_step = (-1, 0)
        # the chats of a batch that may be filtered, until they have been sampled
        self._unfiltered: list | None = None

    def _generate(self, prompts: list) -> tuple:
        # the caller's own list, in which fresh prompts take their places
        self._unfiltered = prompts if self.model.training else None
        return super()._generate(prompts)

    def _generate_single_turn(
        self,
        prompt_ids: list,
        images: list | None,
        multimodal_fields: dict,
        num_generations: int,
        *args: Any,
        **kwargs: Any,
    ) -> tuple:
        chats, self._unfiltered = self._unfiltered, None
        ids, logprobs = super()._generate_single_turn(
            prompt_ids, images, multimodal_fields, num_generations, *args, **kwargs
        )
        if chats is None:
            return ids, logprobs
        ids, logprobs = list(ids), None if logprobs is None else list(logprobs)
        group_of = self._groups(len(ids), num_generations)
        replaced: set[int] = set()
        first, extra, rounds = sum(map(len, ids)), 0, 0
        bad = self._without_signal(list(range(len(ids))), ids, group_of)
        self._count_batch()
        while bad and rounds < self.args.filter_rounds:
            places = self._draw(bad, group_of, rounds)
            if not places:
                break
            rounds += 1
            mine = [index for index, group in enumerate(group_of) if group in places]
            for index in mine:
                self._put(index, places[group_of[index]], chats)
            new_ids, new_images, new_logprobs, new = self._sample([chats[index] for index in mine])
            for index, *values in zip(mine, new_ids, new_images, new, strict=True):
                prompt_ids[index], of_row, ids[index] = values
                if images is not None:
                    images[index] = of_row
            if logprobs is not None:
                for index, values in zip(mine, new_logprobs, strict=True):
                    logprobs[index] = values
            extra += sum(map(len, new))
            replaced.update(places)
            stuck = [group for group in bad if group not in places]
            bad = sorted([*stuck, *self._without_signal(mine, ids, group_of)])
        self._log_filter(group_of, replaced, bad, rounds, first, extra)
        return ids, logprobs

    def _groups(self, num_rows: int, num_generations: int) -> list[int]:
        """Over all processes, the number of the group that each local row is a part of."""
        start = self.accelerator.process_index * num_rows
        return [(start + index) // num_generations for index in range(num_rows)]

    def _without_signal(self, indices: Sequence[int], ids: Sequence[list[int]], group_of: Sequence[int]) -> list[int]:
        """The groups, over all processes, among those of the local rows given whose mean score is out of bounds."""
        scores = self._score(indices, [ids[index] for index in indices])
        by_group: dict[int, list[float]] = {}
        for group, score in gather_object([(group_of[i], score) for i, score in zip(indices, scores, strict=True)]):
            by_group.setdefault(group, []).extend([] if score is None else [score])
        above, below = self.args.filter_above, self.args.filter_below
        return sorted(
            group for group, values in by_group.items() if values and not above < sum(values) / len(values) < below
        )

    def _score(self, indices: Sequence[int], ids: Sequence[list[int]]) -> list[float | None]:
        if not indices:
            return []
        rows = [self._batch_rows[index] for index in indices]
        return score_completions(self.gate, rows, ids, self.processing_class, self.state)

    def _count_batch(self) -> None:
        """Count the batches that are generated in one step, which draw different rows."""
        step, count = self._batch_of_step
        self._batch_of_step = (step, count + 1) if step == self.state.global_step else (self.state.global_step, 0)

    def _draw(self, groups: Sequence[int], group_of: Sequence[int], number: int) -> dict[int, int]:
        """A place in the data set for each group that gets a fresh row; the same in every process."""
        rows = gather_object(
            [
                (group, row.get("id"), bool(row["images"]))
                for group, row in zip(group_of, self._batch_rows, strict=True)
            ]
        )
        has_images = {group: has for group, _, has in rows}
        batch = {row_id for _, row_id, _ in rows}
        draw = random.Random(f"{self.args.seed} {self._batch_of_step} {number}")
        pools = [draw.sample(places, min(len(places), len(groups) + len(batch))) for places in self._places]
        fresh = [[place for place in pool if self._ids is None or self._ids[place] not in batch] for pool in pools]
        return {group: fresh[has_images[group]].pop() for group in groups if fresh[has_images[group]]}

    def _put(self, index: int, place: int, chats: list) -> None:
        """Let a row of the data set take the place of a row of the batch."""
        fresh = dict(self._rows[place])
        image = fresh.get("image")
        images = fresh["images"] if fresh.get("images") is not None else [] if image is None else [image]
        self._batch_rows[index] = {**fresh, "images": images}
        chats[index] = _chat(self._batch_rows[index])

    def _sample(self, chats: list) -> tuple[list, list, list, list]:
        """Prompt ids, images, log-probabilities and completion ids of fresh rows, by one call of the backend."""
        count = len(chats)
        if self.accelerator.num_processes > 1:
            # every process takes part: vLLM with tensor parallelism gathers prompts, ZeRO-3 gathers weights
            chats = chats + [_chat(self._batch_rows[0])] * (max(gather_object([len(chats)])) - len(chats))
        if not chats:
            return [], [], [], []
        prompt_ids, images, fields = self._encode(chats)
        limit = self.args.max_prompt_tokens
        if limit is not None and any(len(ids) > limit for ids in prompt_ids):
            raise ValueError(
                f"A row that was drawn for the filter has a prompt of {max(map(len, prompt_ids))} tokens, but "
                f"max_prompt_tokens is {limit}: `python -m open_r1_vision.check_data` finds all such rows."
            )
        ids, logprobs = super()._generate_single_turn(prompt_ids, images, fields, num_generations=1)
        parts = (prompt_ids, images or [None] * len(chats), logprobs or [None] * len(chats), ids)
        return tuple(list(part)[:count] for part in parts)  # type: ignore[return-value]

    def _log_filter(
        self, group_of: Sequence[int], replaced: set[int], bad: list[int], rounds: int, first: int, extra: int
    ) -> None:
        counts = gather_object([(first, extra)])
        num_groups = max(gather_object([max(group_of)])) + 1
        self._log_metric("filter/replaced", len(replaced) / num_groups)
        self._log_metric("filter/left", len(bad) / num_groups)
        self._log_metric("filter/rounds", float(rounds))
        first, extra = (sum(count[side] for count in counts) for side in (0, 1))
        self._log_metric("filter/extra_tokens", extra / max(1, first))


def _chat(row: dict) -> list[dict]:
    """A row's prompt with its images; as it is without any, since templates of text models take no list of parts."""
    return prepare_multimodal_messages(row["prompt"], images=row["images"]) if row["images"] else row["prompt"]
