# SPDX-License-Identifier: Apache-2.0
"""WarmUpTrainer: TRL's SFTTrainer, with checkpoints that a run can resume from, and a word on images cut in two."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from trl import SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from open_r1_vision.models import vision_token_ids
from open_r1_vision.trainers.missing_images import MissingImages
from open_r1_vision.trainers.whole_checkpoints import WholeCheckpoints


class WarmUpTrainer(WholeCheckpoints, MissingImages, SFTTrainer):
    """Supervised learning of completions.

    Takes the arguments of `trl.SFTTrainer`, and differs in these points: its checkpoints, see WholeCheckpoints;
    lessons without images beside others under DeepSpeed ZeRO, see MissingImages; and a lesson of which `max_length`
    would cut off a part of an image stops the run with its id, where TRL does not say which it is.
    """

    _tag_names = ["trl", "sft", "open_r1_vision"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        collator: Any = self.data_collator
        model: Any = self.accelerator.unwrap_model(self.model)
        if self.is_deepspeed_enabled:
            self.accept_batches_without_images(model)
        self.drop_unused_weight_renames()
        if isinstance(collator, DataCollatorForVisionLanguageModeling) and collator.max_length is not None:
            self.data_collator = CuttingCollator(collator, vision_token_ids(model.config))


class CuttingCollator:
    """Cuts lessons at `max_length` as the collator that it is given does, but never an image.

    Args:
        collator: makes the batches.
        vision_tokens: ids of the tokens that stand for images.
    """

    def __init__(self, collator: DataCollatorForVisionLanguageModeling, vision_tokens: set[int]) -> None:
        self.max_length = collator.max_length
        self._whole: Any = replace(collator, max_length=None)
        self._vision_tokens = torch.tensor(sorted(vision_tokens))

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> Any:
        """A batch.

        Raises:
            ValueError: an image goes beyond `max_length`.
        """
        ids = [example.get("id", "without id") for example in examples]
        batch = self._whole(list(examples))
        size_BL = batch["input_ids"].shape
        if size_BL[1] <= self.max_length:
            return batch
        rest_BL = batch["input_ids"][:, self.max_length :]
        cut = torch.isin(rest_BL, self._vision_tokens).any(-1).tolist()
        if any(cut):
            index = cut.index(True)
            length = int(batch["attention_mask"][index].sum())
            raise ValueError(
                f"The lesson {ids[index]!r} has {length} tokens, and max_length {self.max_length} would cut off a "
                "part of an image. Set max_length to more (null for no limit), or max_pixels to less."
            )
        for name, value in batch.items():
            if isinstance(value, torch.Tensor) and value.shape == size_BL:
                batch[name] = value[:, : self.max_length]
        return batch
