# SPDX-License-Identifier: Apache-2.0
"""Sampling by transformers with each distinct prompt read once."""

import functools
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from open_r1_vision.decoding.groups import GroupDecoding, find_obstacle
from open_r1_vision.image_keys import ImageKeys

if TYPE_CHECKING:
    from trl import GRPOTrainer as Base
else:
    Base = object

logger = logging.getLogger(__name__)


class GroupGeneration(Base):
    """Stands before `trl.GRPOTrainer` among the bases of a trainer whose options have `group_generation`.

    Where neither vLLM nor continuous batching samples, rows with equal prompts and images share one pass over the
    prompt, and rows that have ended leave the batch, see :mod:`open_r1_vision.decoding.groups`. All else stays TRL's:
    settings, unwrapping, gathering of sharded weights, what counts as a completion. The completions are those of
    TRL at the same seed, but for rounding; where a model has dropout and TRL samples with it, the rows of a group
    share what is dropped while their prompt is read.

    Models, settings and inputs that this can't do are left to TRL, which is said once.

    Overrides `_generate_single_turn`.
    """

    args: Any
    _said_obstacles: set[str] | None = None
    # the wrapped policy that was unwrapped last, and what was inside
    _wrapped_policy: Any = None
    _policy: Any = None

    def _generate_single_turn(
        self,
        prompt_ids: list,
        images: list | None,
        multimodal_fields: dict,
        num_generations: int,
        has_tool_images: bool = False,
    ) -> tuple:
        decoding = None
        samples_here = not (self.use_vllm or self.use_transformers_continuous_batching)
        if self.args.group_generation and samples_here:
            policy = self._find_policy()
            model = policy.get_base_model() if hasattr(policy, "get_base_model") else policy
            prompts = distinct(prompt_ids, images, multimodal_fields)
            obstacle = prompts if isinstance(prompts, str) else self._find_obstacle(policy, model)
            if obstacle is None:
                assert isinstance(prompts, Prompts)
                prompt_ids, images, multimodal_fields = prompts.ids, prompts.images, prompts.fields
                decoding = GroupDecoding(prompts.rows, prompts.image_counts)
            else:
                self._say(obstacle)
        with nullcontext() if decoding is None else _decoded_by(model, decoding):
            return super()._generate_single_turn(
                prompt_ids, images, multimodal_fields, num_generations, has_tool_images
            )

    def _find_policy(self) -> Any:
        """The policy that `generate` is called on; looked for once, as unwrapping takes as long as some tokens."""
        if self._wrapped_policy is not self.model_wrapped:
            self._wrapped_policy = self.model_wrapped
            self._policy = self.accelerator.unwrap_model(self.model_wrapped)
        return self._policy

    def _find_obstacle(self, policy: Any, model: Any) -> str | None:
        if self.tools:
            return "tools write into the completions"
        peft_config = getattr(policy, "active_peft_config", None)
        if peft_config is not None and peft_config.is_prompt_learning:
            return "the adapter puts tokens of its own before the prompt"
        return find_obstacle(model, self.generation_config)

    def _say(self, obstacle: str) -> None:
        self._said_obstacles = self._said_obstacles or set()
        if obstacle not in self._said_obstacles:
            self._said_obstacles.add(obstacle)
            logger.warning(
                "Each completion reads its prompt anew: %s, which group_generation can't do. The completions are the "
                "same, and take longer. This is said once; set group_generation to false to leave it out.",
                obstacle,
            )


@dataclass
class Prompts:
    """The different prompts of a batch.

    Attributes:
        ids: token ids of each.
        images: images of each, as TRL has them; None where no prompt has any.
        fields: what the processor gave for them beside the ids.
        image_counts: number of images of each.
        rows: for each row of the batch, the index of its prompt.
    """

    ids: list
    images: list | None
    fields: dict[str, Any]
    image_counts: list[int]
    rows: list[int]


def distinct(prompt_ids: list, images: list | None, fields: dict[str, Any]) -> Prompts | str:
    """The different prompts of a batch, in the order in which they come first.

    Args:
        prompt_ids: token ids of each row.
        images: images of each row, in a list or None.
        fields: values for each token (lists of lists), or for each image or patch (tensors or arrays).

    Returns:
        The prompts, or what keeps them from being told apart.
    """
    of_rows = [tuple(row or ()) for row in images] if images is not None else [()] * len(prompt_ids)
    counts = [len(row) for row in of_rows]
    known = {"pixel_values", "image_grid_thw"}
    per_token = {name for name, values in fields.items() if is_per_token(values, prompt_ids)}
    if odd := sorted(fields.keys() - known - per_token):
        return f"the processor gives {', '.join(odd)}"
    grids = fields.get("image_grid_thw")
    if any(len(fields[name]) != sum(counts) for name in fields if name == "image_grid_thw"):
        return "the processor gives other numbers of grids than of images"
    if grids is None and len(fields.get("pixel_values", ())) not in (0, sum(counts)):
        return "the processor gives several parts for an image"

    image_key = ImageKeys()
    places: dict[Any, int] = {}
    firsts: list[int] = []
    rows = []
    for index, (ids, of_row) in enumerate(zip(prompt_ids, of_rows, strict=True)):
        key = (tuple(ids), tuple(map(image_key, of_row)))
        if key not in places:
            places[key] = len(firsts)
            firsts.append(index)
        rows.append(places[key])
    return Prompts(
        ids=[prompt_ids[index] for index in firsts],
        images=None if images is None else [images[index] for index in firsts],
        fields=_select(fields, per_token, counts, firsts),
        image_counts=[counts[index] for index in firsts],
        rows=rows,
    )


def is_per_token(values: Any, prompt_ids: Sequence[Sequence[int]]) -> bool:
    """Whether a multimodal field has one value for each token of each prompt."""
    return (
        isinstance(values, list)
        and len(values) == len(prompt_ids)
        and all(isinstance(of_row, list) for of_row in values)
        and all(len(of_row) == len(ids) for of_row, ids in zip(values, prompt_ids, strict=True))
    )


def _select(fields: dict[str, Any], per_token: set[str], counts: list[int], rows: list[int]) -> dict[str, Any]:
    """The fields of some rows."""
    if rows == list(range(len(counts))):
        return fields
    selected: dict[str, Any] = {name: [fields[name][row] for row in rows] for name in per_token}
    for name in fields.keys() - per_token:
        values = torch.as_tensor(fields[name])
        sizes = counts
        if name == "pixel_values" and "image_grid_thw" in fields:
            grids = torch.split(torch.as_tensor(fields["image_grid_thw"]), counts)
            sizes = [int(of_row.prod(-1).sum()) for of_row in grids]
        parts = torch.split(values, sizes)
        selected[name] = torch.cat([parts[row] for row in rows])
    return selected


@contextmanager
def _decoded_by(model: Any, decoding: GroupDecoding) -> Iterator[None]:
    """Let a model's `generate` run another loop."""
    # on this object alone, where TRL finds it
    before = vars(model).get("generate")
    model.generate = functools.partial(model.generate, custom_generate=decoding)
    try:
        yield
    finally:
        del model.generate
        if before is not None:
            model.generate = before
