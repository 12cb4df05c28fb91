# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that are known to be whole, for every trainer of this library."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import PreTrainedModel

from open_r1_vision import checkpoints

if TYPE_CHECKING:
    from transformers import Trainer as Base
else:
    Base = object


class WholeCheckpoints(Base):
    """Stands before a `transformers.Trainer` among the bases of a trainer.

    - Checkpoints are marked when they are whole, and older ones are deleted only after that.
    - A run that was ended after its last checkpoint trains no further: transformers 5.23 makes one more step where
      that checkpoint lies within an epoch.
    - A resumed run gets the checkpoint's weights: outside DeepSpeed, transformers 5.23 leaves out all whose names in
      the file are not the module's, as those of Qwen2-VL and Qwen2.5-VL, and only warns.

    Overrides `_run_epoch`, `_save_checkpoint`, `_load_from_checkpoint` and `_load_best_model`; each calls the
    trainer's, the last two only where it loads every weight.

    A trainer calls `drop_unused_weight_renames` once its model is loaded.
    """

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True  # the trainer looks at it after a step only
        else:
            super()._run_epoch(*args, **kwargs)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        checkpoint = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            checkpoints.mark_incomplete(checkpoint)
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            checkpoints.mark_complete(checkpoint)
            best = self.state.best_model_checkpoint
            checkpoints.rotate(checkpoint.parent, limit, Path(best) if best else None)
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        target: Any = self.model if model is None else model
        if self.is_fsdp_enabled or not isinstance(target, PreTrainedModel):
            super()._load_from_checkpoint(resume_from_checkpoint, target)
        else:
            # Trainer loads by the names in the file, but these are the hub's: only from_pretrained translates them
            target.load_state_dict(type(target).from_pretrained(resume_from_checkpoint).state_dict())

    def _load_best_model(self) -> None:
        if self.is_deepspeed_enabled or self.is_fsdp_enabled or not isinstance(self.model, PreTrainedModel):
            super()._load_best_model()
        else:
            self._load_from_checkpoint(str(self.state.best_model_checkpoint))

    def drop_unused_weight_renames(self) -> None:
        """Keep a checkpoint's own parameter names: under ZeRO-3 transformers notes renames that it never applied."""
        model: Any = self.accelerator.unwrap_model(self.model)
        renames = getattr(model, "_weight_conversions", None)
        if self.is_deepspeed_enabled and renames:
            model._weight_conversions = [rename for rename in renames if rename.was_used()]
