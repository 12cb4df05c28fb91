# SPDX-License-Identifier: Apache-2.0
"""Which rows of a batch share a prompt, and the row that holds each of these prompts once.

Axes: B rows of the batch, P prompt tokens and C completion tokens (both padded), L tokens of the packed row, N of them
whose next token is scored.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

#: What a batch may hold. Anything else, such as tiles of other image processors, isn't understood here.
_UNDERSTOOD = {"input_ids", "attention_mask", "pixel_values", "image_grid_thw", "mm_token_type_ids"}


@dataclass(frozen=True)
class Group:
    """A prefix in the packed row and the segments that follow it.

    Attributes:
        start: index of the prefix's first token.
        prefix: number of its tokens, from 0.
        lengths: number of tokens of each segment, from 1.
        places: index of each token of the segments in a grid of `len(lengths)` times `max(lengths)`, row by row; None
            where that grid has no gaps.
    """

    start: int
    prefix: int
    lengths: tuple[int, ...]
    places: torch.Tensor | None

    @property
    def end(self) -> int:
        """Index after the last segment's last token."""
        return self.start + self.prefix + sum(self.lengths)


@dataclass
class Layout:
    """What attention and LM head must know of a packed row. It travels through the model as a keyword argument.

    So it is at hand too when a checkpointed layer is computed again in the backward pass.

    Attributes:
        groups: in the row's order, without gaps.
        scored: (N,) indices of the tokens whose next token is scored.
        implementation: the attention implementation to build on, such as `sdpa`.
    """

    groups: tuple[Group, ...]
    scored: torch.Tensor
    implementation: str
    _masks: dict[tuple, Any] = field(default_factory=dict, repr=False)

    def causal_mask(self, num_queries: int, num_keys: int, query: torch.Tensor) -> Any:
        """The mask by which the last `num_queries` of `num_keys` tokens see those before them and themselves.

        It is what the implementation expects, None included, and made once for all layers.
        """
        key = (num_queries, num_keys, query.dtype)
        if key not in self._masks:
            self._masks[key] = ALL_MASK_ATTENTION_FUNCTIONS[self.implementation](
                batch_size=1,
                q_length=num_queries,
                kv_length=num_keys,
                q_offset=num_keys - num_queries,
                # SDPA's own causal mask is aligned at the top left, which is right for squares only
                allow_is_causal_skip=num_queries == num_keys,
                dtype=query.dtype,
                device=query.device,
            )
        return self._masks[key]


@dataclass(frozen=True)
class Packed:
    """A batch as one row.

    Attributes:
        inputs: keyword arguments of the model, position ids and layout included.
        labels: (1, N) tokens that are scored.
        rows: (N,) rows of the batch that these tokens come from.
        columns: (N,) their columns among the completion tokens.
        shape: B and C.
        share_saved: tokens that aren't computed again, of all that aren't padding, in [0, 1).
    """

    inputs: dict[str, Any]
    labels: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor
    shape: tuple[int, int]
    share_saved: float

    def unpack(self, values: torch.Tensor) -> torch.Tensor:
        """Put values of scored tokens (1, N) where they belong (B, C); 0 stands elsewhere."""
        return values.new_zeros(self.shape).index_put((self.rows, self.columns), values[0])


def pack(
    inputs: dict[str, Any],
    num_completion_tokens: int,
    num_images: Sequence[int] | None,
    positions: Callable[..., torch.Tensor],
    implementation: str,
) -> Packed | None:
    """Pack a batch, if that saves anything.

    Args:
        inputs: keyword arguments of a forward pass over the batch: `input_ids` and `attention_mask` (B, P + C) with
            prompts padded on the left and completions on the right, perhaps `mm_token_type_ids` (B, P + C), and
            `pixel_values` with `image_grid_thw` of all rows' images one after the other.
        num_completion_tokens: C.
        num_images: images of each row, None without any.
        positions: called with `inputs` as keyword arguments, gives each token's position, (B, P + C) or (3, B, P + C).
        implementation: the attention implementation to build on.

    Returns:
        None where no two rows share their prompt and its images, nothing is scored, or the batch holds something that
        can't be packed: padding elsewhere, images in completions, inputs of unknown meaning.
    """
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    num_prompt_tokens = ids.size(1) - num_completion_tokens
    if inputs.keys() - _UNDERSTOOD or not _can_be_cut(inputs, num_prompt_tokens):
        return None
    prompts = mask[:, :num_prompt_tokens].sum(1).tolist()
    completions = mask[:, num_prompt_tokens:].sum(1).tolist()
    images = _Images.of(inputs, num_images, len(ids))
    groups = _find_groups(ids[:, :num_prompt_tokens], prompts, images)
    if len(groups) == len(ids) or not sum(completions):
        return None

    width, device = ids.size(1), ids.device
    source: list[torch.Tensor] = []
    scored: list[torch.Tensor] = []
    packed_groups = []
    start = 0
    for rows in groups:
        first, prefix = rows[0], prompts[rows[0]] - 1
        # the last prompt token belongs to the segments: what it predicts is scored
        last = num_prompt_tokens - 1
        source.append(torch.arange(last - prefix, last) + first * width)
        source += [torch.arange(last, last + completions[row]) + row * width for row in rows]
        lengths = tuple(completions[row] for row in rows if completions[row])
        group = Group(start, prefix, lengths, _places(lengths, device))
        scored.append(torch.arange(start + prefix, group.end))
        packed_groups.append(group)
        start = group.end
    source_L = torch.cat(source).to(device)
    scored_N = torch.cat(scored).to(device)
    labelled_N = source_L[scored_N] + 1

    positions_ = positions(**inputs).flatten(-2)[..., source_L].unsqueeze(-2)
    packed_inputs = {
        "input_ids": ids.flatten()[source_L][None],
        # four axes pass for a ready mask; an attention that reads this one, and so isn't ours, fails
        "attention_mask": torch.empty(1, 1, 1, 0, dtype=torch.bool, device=device),
        "position_ids": positions_,
        "shared_prefix": Layout(tuple(packed_groups), scored_N, implementation),
    }
    if images is not None:
        packed_inputs |= images.select([rows[0] for rows in groups])
    return Packed(
        packed_inputs,
        ids.flatten()[labelled_N][None],
        labelled_N // width,
        labelled_N % width - num_prompt_tokens,
        (len(ids), num_completion_tokens),
        1 - len(source_L) / (sum(prompts) + sum(completions)),
    )


def _can_be_cut(inputs: dict[str, Any], num_prompt_tokens: int) -> bool:
    """Whether tokens lie together around the cut between prompts and completions, and from there on are text."""
    mask = inputs["attention_mask"].bool()
    is_text = inputs.get("mm_token_type_ids", torch.zeros_like(mask))[:, num_prompt_tokens - 1 :] == 0
    prompts, completions = mask[:, :num_prompt_tokens].int(), mask[:, num_prompt_tokens:].int()
    in_order = torch.stack([(prompts.diff() >= 0).all(), (completions.diff() <= 0).all(), is_text.all()])
    return bool(in_order.all() and mask[:, num_prompt_tokens - 1].all())


def _find_groups(prompt_ids: torch.Tensor, lengths: list[int], images: "_Images | None") -> list[list[int]]:
    """Rows with one prompt and the same images, together; groups in the order of their first rows."""
    groups: list[list[int]] = []
    by_prompt: dict[tuple[int, ...], list[list[int]]] = {}
    for row, ids in enumerate(prompt_ids.tolist()):
        candidates = by_prompt.setdefault(tuple(ids[len(ids) - lengths[row] :]), [])
        group = next((rows for rows in candidates if images is None or images.are_equal(rows[0], row)), None)
        if group is None:
            candidates.append([row])
            groups.append(candidates[-1])
        else:
            group.append(row)
    return groups


def _places(lengths: tuple[int, ...], device: torch.device) -> torch.Tensor | None:
    longest = max(lengths, default=0)
    if all(length == longest for length in lengths):
        return None
    starts = range(0, longest * len(lengths), longest)
    return torch.cat([torch.arange(length) + at for length, at in zip(lengths, starts, strict=True)]).to(device)


@dataclass(frozen=True)
class _Images:
    """Pixels and grids of the images, row by row."""

    pixels: list[torch.Tensor]
    grids: list[torch.Tensor]

    @classmethod
    def of(cls, inputs: dict[str, Any], num_images: Sequence[int] | None, num_rows: int) -> "_Images | None":
        if "pixel_values" not in inputs:
            return None
        counts = list(num_images or [0] * num_rows)
        patches_of_images = iter(inputs["image_grid_thw"].prod(-1).tolist())
        patches_of_rows = [sum(next(patches_of_images) for _ in range(count)) for count in counts]
        grids = torch.split(inputs["image_grid_thw"], counts)
        return cls(list(torch.split(inputs["pixel_values"], patches_of_rows)), list(grids))

    def are_equal(self, one: int, other: int) -> bool:
        return torch.equal(self.grids[one], self.grids[other]) and torch.equal(self.pixels[one], self.pixels[other])

    def select(self, rows: list[int]) -> dict[str, torch.Tensor]:
        return {
            "pixel_values": torch.cat([self.pixels[row] for row in rows]),
            "image_grid_thw": torch.cat([self.grids[row] for row in rows]),
        }
