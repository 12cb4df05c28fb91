# SPDX-License-Identifier: Apache-2.0
"""Completions without signal stay out of the policy update.

Axes: B completions of a micro-batch, T completion tokens; N completions of all processes, K rewards.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from trl.trainer.utils import split_pixel_values_by_grid, unsplit_pixel_values_by_grid

if TYPE_CHECKING:
    from trl import GRPOTrainer as Base
else:
    Base = object


@dataclass
class MicroBatch:
    """What an update knows of its micro-batch when the model is to be run.

    Attributes:
        kept: rows that have a signal.
        constants: (B, T) log-probabilities that stand for those of other rows.
        mask: (B, T), 1 for tokens in the loss.
        entropy: sum of the entropies of tokens in the loss, of rows that the model was run on; set by then.
        num_tokens: how many these are.
    """

    kept: list[int]
    constants: torch.Tensor
    mask: torch.Tensor
    entropy: float = 0.0
    num_tokens: float = 0.0


class WithoutSignal(Base):
    """Stands before SharedPrefix and GRPOTrainer among the bases of a trainer, which calls `choose_skipping`.

    A completion whose advantage is zero, or that has no token in the loss, has no gradient where `beta` is 0. The
    model is not run on it, forward or backward. Loss, gradients and denominators stay TRL's for every loss type, up to
    rounding. A micro-batch without any signal sends two tokens through the model, and an empty image if it has images,
    with weight 0: so a parameter gets a gradient of zero where it would have got one, which optimizers tell from none,
    and every process makes as many passes as the others, which DDP and ZeRO wait for.

    Nothing is skipped while `beta` is not 0, nor with the entropy bonus, `top_entropy_quantile` or a router's loss,
    which look at all completions, nor under FSDP or torch.compile. Where a model has dropout, it draws other random
    numbers.

    Of equal rewards the advantages are zero here, which in TRL they are only up to rounding: its mean of eight numbers
    0.3 is not 0.3, and the difference is divided by 1e-4. So a group with equal rewards is never trained on noise,
    whether rows are skipped or not.

    Logged: `update/rows_skipped`, the share of completions that were left out, in [0, 1]. TRL's `entropy`, and
    `vespo/phi_seq_mean`, are then of completions with signal; a step that has none logs no entropy.

    Overrides `_compute_loss`, `_get_per_token_logps_and_entropies` and `_generate_and_score_completions`; each calls
    GRPOTrainer's.
    """

    args: Any
    model: Any
    _logs: dict[str, Any]
    _shares_prefixes: bool
    _skips_rows = False
    _micro_batch: MicroBatch | None = None

    def choose_skipping(self) -> None:
        """Skip rows without signal where `args.skip_without_signal` wants it and the result is the same.

        Raises:
            ValueError: `args.skip_without_signal` is true and the result would be another one.
        """
        wanted = self.args.skip_without_signal
        reason = self._reason_against_skipping()
        if wanted and self.args.beta != 0:
            reason = f"beta is {self.args.beta:g}, so that the KL term moves the policy on all completions"
        if wanted and reason is not None:
            raise ValueError(
                f"skip_without_signal is true, but {reason}: no completion can be left out of the update. Leave "
                "skip_without_signal out, which skips where that changes nothing, or change the other option."
            )
        self._skips_rows = wanted is not False and reason is None

    def _reason_against_skipping(self) -> str | None:
        if self._entropy_bonus_enabled:
            return "entropy_coef or use_adaptive_entropy is set, and the entropy bonus acts on all completions"
        if self.top_entropy_quantile < 1:
            return "top_entropy_quantile is set, and the entropies of all completions decide which tokens are trained"
        if self.aux_loss_enabled:
            return "the router's loss is over all completions"
        if self.is_fsdp_enabled:
            return "it runs under FSDP, where this was never tried"
        if self.args.torch_compile:
            return "the model is compiled, and micro-batches would have different numbers of rows"
        return None

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        if not self._skips_rows or self.beta != 0 or not self.model.training:
            return super()._compute_loss(model, inputs)
        mask = inputs["completion_mask"] * inputs.get("tool_mask", 1)
        moves = (inputs["advantages"].reshape(len(mask), -1) != 0).any(1) & (mask != 0).any(1)
        old = inputs.get("old_per_token_logps")
        # of a ratio of 1, which can't overflow
        constants = torch.zeros(mask.shape, device=mask.device) if old is None else old
        batch = MicroBatch(moves.nonzero().flatten().tolist(), constants, mask)
        self._micro_batch = batch
        try:
            loss = super()._compute_loss(model, inputs)
        finally:
            self._micro_batch = None
        self._log_update(batch)
        return loss

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        *args: Any,
        **kwargs: Any,
    ) -> tuple:
        batch = self._micro_batch
        if batch is None:
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, *args, **kwargs
            )
        every = len(batch.kept) == len(input_ids)
        if batch.kept and not every:
            rows = select_rows({"input_ids": input_ids, "attention_mask": attention_mask, **kwargs}, batch.kept)
        elif batch.kept:
            rows = {"input_ids": input_ids, "attention_mask": attention_mask, **kwargs}
        else:
            rows = _stand_in(input_ids, logits_to_keep, kwargs)
        images = kwargs.get("num_images") or []
        self.runs_vision_tower_for_nothing = any(images) and not any(images[row] for row in batch.kept)
        try:
            logps, entropies, aux_loss = super()._get_per_token_logps_and_entropies(
                model,
                rows.pop("input_ids"),
                rows.pop("attention_mask"),
                rows.pop("columns", logits_to_keep),
                *args,
                **rows,
            )
        finally:
            self.runs_vision_tower_for_nothing = False
        constants = batch.constants.to(logps.dtype)
        if not batch.kept:
            self._forget_share_saved()
            return constants + 0.0 * logps.sum(), torch.zeros_like(constants), aux_loss
        kept = torch.tensor(batch.kept, device=logps.device)
        mask = batch.mask[kept]
        batch.entropy, batch.num_tokens = (entropies * mask).sum().item(), mask.sum().item()
        if every:
            return logps, entropies, aux_loss
        return (
            constants.index_copy(0, kept, logps),
            torch.zeros_like(constants).index_copy(0, kept, entropies.to(constants.dtype)),
            aux_loss,
        )

    def _forget_share_saved(self) -> None:
        """Take the stand-in's share out of what SharedPrefix logs."""
        shares = self._metrics["train"]["shared_prefix/tokens_saved"]
        if self._shares_prefixes:
            shares.pop()
        if not shares:
            del self._metrics["train"]["shared_prefix/tokens_saved"]

    def _log_update(self, batch: MicroBatch) -> None:
        num_rows = len(batch.mask)
        counts = [batch.entropy, batch.num_tokens, float(num_rows - len(batch.kept)), float(num_rows)]
        totals = self.accelerator.reduce(torch.tensor(counts, device=batch.mask.device), reduction="sum")
        entropy, num_tokens, skipped, num_rows = totals.tolist()
        metrics = self._metrics["train"]
        metrics["update/rows_skipped"].append(skipped / num_rows)
        if not skipped:
            return
        # TRL's own has zeros where nothing was computed
        metrics["entropy"].pop()
        if num_tokens:
            metrics["entropy"].append(entropy / num_tokens)
        if not metrics["entropy"]:
            del metrics["entropy"]

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        names = self.reward_func_names
        if not self.model.training or len(set(names)) < len(names):
            return output
        # as the rewards of all processes were logged
        rewards_NK = torch.tensor([list(self._logs["rewards"][name]) for name in names], dtype=torch.float32).T
        summed = self.multi_objective_aggregation == "sum_then_normalize"
        if summed:
            unscorable_N = rewards_NK.isnan().all(1)
            rewards_NK = (rewards_NK * self.reward_weights.cpu()).nansum(1, keepdim=True)
            rewards_NK[unscorable_N] = torch.nan
        equal_N = of_equal_groups(rewards_NK, self.num_generations or 1)
        logged = self._logs["advantages"]
        for row in equal_N.nonzero().flatten().tolist():
            logged[row] = 0.0
        start = self.accelerator.process_index * len(inputs)
        output["advantages"][equal_N[start : start + len(inputs)].to(output["advantages"].device)] = 0.0
        return output


def of_equal_groups(rewards_NK: torch.Tensor, group_size: int) -> torch.Tensor:
    """Which completions are of a group in which each reward is the same for all, or NaN. (N,)"""
    groups = rewards_NK.view(-1, group_size, rewards_NK.shape[1])
    least = groups.nan_to_num(nan=torch.inf).amin(1)
    most = groups.nan_to_num(nan=-torch.inf).amax(1)
    return (least >= most).all(1).repeat_interleave(group_size)


def select_rows(inputs: dict[str, Any], rows: list[int]) -> dict[str, Any]:
    """Some rows of what GRPOTrainer's passes take, images included.

    Args:
        inputs: values for each row, for each image, patch or tile, or for none of these; None where there is nothing.
        rows: which, in their order.
    """
    num_rows = len(inputs["input_ids"])
    parts: dict[str, Any] = split_pixel_values_by_grid(
        {name: value for name, value in inputs.items() if value is not None}
    )
    selected: dict[str, Any] = {}
    for name, value in parts.items():
        if isinstance(value, list) and len(value) == num_rows:
            selected[name] = [value[row] for row in rows]
        elif isinstance(value, torch.Tensor) and value.ndim and len(value) == num_rows:
            selected[name] = value[torch.tensor(rows, device=value.device)]
        else:
            selected[name] = value
    return unsplit_pixel_values_by_grid(selected)


def _stand_in(input_ids: torch.Tensor, num_columns: int, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The end of a prompt and the first token after it, without images, for which the model has a place anyway."""
    ids = input_ids[:1, -num_columns - 1 :][:, :2]
    kinds = {
        name: torch.zeros_like(ids) for name in ("token_type_ids", "mm_token_type_ids") if kwargs.get(name) is not None
    }
    flags = {name: value for name, value in kwargs.items() if isinstance(value, bool)}
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "columns": 1, **kinds, **flags}
