# SPDX-License-Identifier: Apache-2.0
"""The policy update over prompts that groups share: each prompt, and each image of it, goes through the model once."""

import logging
from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from trl.trainer.utils import split_pixel_values_by_grid, split_tensor_dict, unsplit_pixel_values_by_grid

from open_r1_vision.shared_prefix import pack, prepare, reason_against

if TYPE_CHECKING:
    from trl import GRPOTrainer as Base
else:
    Base = object

logger = logging.getLogger(__name__)

#: Key of a scored batch with the index of each row's group.
GROUP_KEY = "group_index"


class SharedPrefix(Base):
    """Stands before GRPOTrainer among the bases of a trainer, which calls `share_prefixes` with its models.

    - Log-probabilities and entropies, of the policy and of the reference, come from one pass over each distinct
      prompt and its completions, see :mod:`open_r1_vision.shared_prefix`. They are those of separate passes up to
      rounding; where a model or its adapters have dropout (TRL's `lora_dropout` is 0.05 unless set), the completions
      of a prompt share what is dropped while it is read.
    - The rows of a group follow each other in the micro-batches, whether prompts are shared or not; a group that is
      larger than a micro-batch, or lies on several processes, is shared in parts. Groups come in the order in which
      TRL's shuffle brings their first rows, which costs no random number. So an optimizer step over a whole sampling
      adds up to TRL's, but for loss_type bnpo, the entropy bonus and `top_entropy_quantile`, which average or choose
      over each micro-batch; with several steps for a sampling, each has other rows than TRL's.

    Logged: `shared_prefix/tokens_saved`, the share of tokens of prompts and completions that an update didn't compute
    again, in [0, 1).

    Overrides `_get_per_token_logps_and_entropies`, `_generate_and_score_completions` and `_prepare_inputs`; each calls
    GRPOTrainer's.
    """

    args: Any
    model: Any
    _buffered_inputs: Any
    _shares_prefixes: bool

    def share_prefixes(self, *models: Any) -> None:
        """Let models take shared prompts, where `args.shared_prefix` wants it and their architecture can.

        Raises:
            ValueError: `args.shared_prefix` is true and the architecture can't.
        """
        wanted = self.args.shared_prefix
        bare = [self.accelerator.unwrap_model(model) for model in models]
        reason = self._reason_against_sharing(bare) if wanted is not False else None
        if reason is not None and wanted:
            raise ValueError(
                f"shared_prefix is true, but {bare[0].config._name_or_path!r} can't share prompts: {reason}. Leave "
                "shared_prefix out, or set it to false, to encode each prompt once for each of its completions."
            )
        if reason is not None and self.accelerator.is_main_process:
            logger.warning("Each prompt is encoded once for each of its completions: %s.", reason)
        if wanted and self.args.per_device_train_batch_size == 1 and self.accelerator.is_main_process:
            logger.warning(
                "shared_prefix is true, but a micro-batch holds 1 completion, which has nothing to share its prompt "
                "with: raise per_device_train_batch_size, or with prompts_per_step max_completions_per_device."
            )
        self._shares_prefixes = wanted is not False and reason is None
        if self._shares_prefixes:
            for model in bare:
                prepare(_core(model))

    def _reason_against_sharing(self, models: Sequence[Any]) -> str | None:
        if self.is_fsdp_enabled:
            return "it runs under FSDP, where this was never tried"
        if self.args.torch_compile:
            return "it is compiled, and packed batches all have shapes of their own"
        return next((reason for reason in map(reason_against, models) if reason is not None), None)

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        *args: Any,
        num_images: list[int] | None = None,
        **kwargs: Any,
    ) -> tuple:
        if self._shares_prefixes:
            model = SharedPass(model, _core(self.accelerator.unwrap_model(model)), logits_to_keep, num_images)
        outputs = super()._get_per_token_logps_and_entropies(
            model, input_ids, attention_mask, logits_to_keep, *args, num_images=num_images, **kwargs
        )
        if self._shares_prefixes and torch.is_grad_enabled():
            self._metrics["train"]["shared_prefix/tokens_saved"] += model.shares_saved
        return outputs

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        if self.model.training:
            rows = torch.arange(len(inputs)) + self.accelerator.process_index * len(inputs)
            output[GROUP_KEY] = rows // (self.num_generations or 1)
        return output

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        before = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        if not self.model.training or self._buffered_inputs is before:
            return inputs
        self._buffered_inputs = keep_groups_together(self._buffered_inputs)
        return self._buffered_inputs[self._step % self.args.steps_per_generation]


def keep_groups_together(batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Deal rows to micro-batches of the same sizes again, group by group.

    Args:
        batches: shuffled micro-batches of GRPOTrainer, with `group_index`.

    Returns:
        As many micro-batches of as many rows; groups in the order in which they come up in `batches`, and so the rows
        of a group.
    """
    if len(batches) == 1:
        return batches
    parts: list[dict[str, Any]] = [split_pixel_values_by_grid(batch) for batch in batches]
    # a dict keeps the order of insertion, and sorted that of equal keys
    groups: list[int] = torch.cat([part[GROUP_KEY] for part in parts]).tolist()
    rank = {group: index for index, group in enumerate(dict.fromkeys(groups))}
    order = sorted(range(len(groups)), key=lambda row: rank[groups[row]])
    whole = {key: _reorder([part[key] for part in parts], order) for key in parts[0]}
    dealt: list[Any] = split_tensor_dict(whole, len(batches))
    return [unsplit_pixel_values_by_grid(batch) for batch in dealt]


def _reorder(parts: list[Any], order: list[int]) -> Any:
    """Join the micro-batches' values and put rows in order; what isn't row by row is the same in all of them."""
    if isinstance(parts[0], list):
        rows = [row for part in parts for row in part]
        return [rows[index] for index in order]
    if isinstance(parts[0], torch.Tensor) and parts[0].ndim:
        return torch.cat(parts)[torch.tensor(order, device=parts[0].device)]
    return parts[0]


def _core(model: Any) -> Any:
    """The language model within PEFT's wrapping."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


class SharedPass:
    """Stands in for a model in GRPOTrainer's passes, one after the other over consecutive rows of a batch.

    Args:
        model: gets the passes; wrapped for DDP or DeepSpeed as it may be.
        core: the language model within it.
        num_completion_tokens: columns of completions in a batch.
        num_images: images of each row of the whole batch.
    """

    def __init__(self, model: Any, core: Any, num_completion_tokens: int, num_images: list[int] | None) -> None:
        self.model = model
        self.core = core
        self.num_completion_tokens = num_completion_tokens
        self.num_images = num_images
        self.num_rows_done = 0
        self.shares_saved: list[float] = []

    def __call__(self, *, labels: torch.Tensor, fused_lm_head: bool, **inputs: Any) -> Any:
        start, self.num_rows_done = self.num_rows_done, self.num_rows_done + len(labels)
        packed = pack(
            inputs,
            self.num_completion_tokens,
            None if self.num_images is None else self.num_images[start : self.num_rows_done],
            self._positions,
            self.core.get_decoder().config._attn_implementation,
        )
        self.shares_saved.append(0.0 if packed is None else packed.share_saved)
        if packed is None:
            return self.model(**inputs, labels=labels, fused_lm_head=fused_lm_head)
        # TRL's head takes shifted labels as they are; plain ones tell MissingImages that all processes take part
        outputs = self.model(
            **packed.inputs, labels=packed.labels, shift_labels=packed.labels, fused_lm_head=fused_lm_head
        )
        entropy = None if outputs.entropy is None else packed.unpack(outputs.entropy)
        return SimpleNamespace(log_probs=packed.unpack(outputs.log_probs), entropy=entropy, aux_loss=None)

    def _positions(self, **inputs: Any) -> torch.Tensor:
        """What the model's own passes over rows use: text counts from the first token that isn't padding."""
        grids = inputs.get("image_grid_thw")
        if grids is None or not len(grids):
            return (inputs["attention_mask"].long().cumsum(-1) - 1).clamp(min=0)
        positions, _ = self.core.base_model.get_rope_index(
            inputs["input_ids"],
            mm_token_type_ids=inputs["mm_token_type_ids"],
            image_grid_thw=grids,
            attention_mask=inputs["attention_mask"],
        )
        return positions
