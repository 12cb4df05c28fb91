# SPDX-License-Identifier: Apache-2.0
"""Batches without any image, in front of a model that expects some."""

from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import nn
from transformers import ProcessorMixin

if TYPE_CHECKING:
    from transformers import Trainer as Base
else:
    Base = object


class MissingImages(Base):
    """Stands before a `transformers.Trainer` among the bases of a trainer, which calls it for each of its models.

    Rows without images may then stand beside rows with images, also across processes under DeepSpeed ZeRO.

    Overrides nothing.
    """

    processing_class: Any
    #: Set while a pass must leave the vision tower's parameters with gradients, images or not.
    runs_vision_tower_for_nothing = False

    def accept_batches_without_images(self, model: Any) -> None:
        """Let forward passes without images leave the vision tower out, or, under ZeRO, run it for nothing.

        ZeRO gathers and reduces parameters module by module, so a process that skips the vision tower leaves the
        others waiting. There an empty image goes through it, after the embedding as in a real pass, with weight 0.
        """
        needs_vision_tower = False

        def drop_empty_images(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            nonlocal needs_vision_tower
            pixel_values = kwargs.get("pixel_values")
            has_images = pixel_values is not None and len(pixel_values) > 0
            # only passes over labelled sequences run on every process in step
            must_run = self.is_deepspeed_enabled or self.runs_vision_tower_for_nothing
            needs_vision_tower = must_run and not has_images and "labels" in kwargs
            if pixel_values is not None and not has_images:
                kwargs = {
                    name: value for name, value in kwargs.items() if name not in ("pixel_values", "image_grid_thw")
                }
            return args, kwargs

        def add_nothing(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            nonlocal needs_vision_tower
            if needs_vision_tower:
                needs_vision_tower = False
                embeddings = kwargs["inputs_embeds"]
                features = dict(model.get_image_features(**self._empty_image()))
                features.pop("last_hidden_state", None)  # a real pass doesn't use it
                nothing = _sum_nothing(features)
                kwargs = {**kwargs, "inputs_embeds": embeddings + nothing.to(embeddings.dtype)}
            return args, kwargs

        # a model may have been another trainer's before
        for handle in vars(model).get("_hooks_for_missing_images", ()):
            handle.remove()
        if isinstance(self.processing_class, ProcessorMixin):
            model._hooks_for_missing_images = [
                model.register_forward_pre_hook(drop_empty_images, with_kwargs=True),
                # between embedding and decoder, and before any hook of DeepSpeed's on the decoder: ZeRO-3 needs the
                # modules in one order on every process, on the way back too
                model.get_decoder().register_forward_pre_hook(add_nothing, with_kwargs=True, prepend=True),
            ]

    def _empty_image(self) -> dict[str, torch.Tensor]:
        inputs = self.processing_class.image_processor(images=[Image.new("RGB", (56, 56))], return_tensors="pt")
        return {name: value.to(self.accelerator.device) for name, value in inputs.items()}


def _sum_nothing(value: Any) -> torch.Tensor:
    """Zero, of every tensor in a model output, so that each of them is used."""
    if isinstance(value, torch.Tensor):
        # in this order: a sum of half-precision numbers may be infinite, and no number times zero
        return (0.0 * value).sum()
    parts = value.values() if isinstance(value, dict) else value
    return torch.stack([_sum_nothing(part) for part in parts if part is not None]).sum()
