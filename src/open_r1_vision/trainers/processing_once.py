# SPDX-License-Identifier: Apache-2.0
"""Each distinct image and prompt through template, tokenizer and image processor once a step."""

import copy
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import BatchFeature, PreTrainedTokenizerBase, ProcessorMixin
from transformers.image_processing_base import BatchFeature as ImageFeatures
from transformers.image_utils import make_flat_list_of_images
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from open_r1_vision.image_keys import ImageKeys
from open_r1_vision.trainers.chats_once import RememberingChats, RememberingReplies, RememberingTexts

if TYPE_CHECKING:
    from trl import GRPOTrainer as Base
else:
    Base = object

#: Image processors that give patches one after the other, whatever the other images are, by the name of the class:
#: the one for torchvision can't be imported without it. Qwen2-VL, Qwen2.5-VL and Qwen3-VL share them.
_PATCHERS = {"Qwen2VLImageProcessor", Qwen2VLImageProcessorPil.__name__}
#: What a processor gives for each row, and for each image or patch.
_OF_ROWS = {"input_ids", "attention_mask", "mm_token_type_ids"}
_OF_IMAGES = {"pixel_values", "image_grid_thw"}
#: Arguments that don't change what a row is made of.
_LAYOUT = {"padding", "return_tensors"}


class ProcessingOnce(Base):
    """Stands before `trl.GRPOTrainer` among the bases of a trainer.

    TRL renders, tokenizes and processes each prompt twice for each completion: for sampling and for the loss. Here all
    calls of a step share what was done, so that each distinct prompt is rendered and tokenized once, and each distinct
    image processed once; the chats that hints or the reading of captions need, too. What a gate has decoded isn't
    decoded again. What template, tokenizer and processor return is the same to the bit. Image processors other than
    Qwen's see all images of all completions, as they may fit images to one another.

    Overrides `_generate_and_score_completions`.
    """

    processing_class: Any
    timed: Any

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        processor = self.processing_class
        self.processing_class = remembering(processor, self.timed)
        try:
            return super()._generate_and_score_completions(inputs)
        finally:
            self.processing_class = processor


def remembering(processor: Any, timed: Callable[[str], AbstractContextManager] | None = None) -> Any:
    """A processor or tokenizer that does as the given one, and remembers chats and images as long as it lives.

    Args:
        processor: of which to make one.
        timed: gives the context in which it works, by the name of the activity, `preparing`.
    """
    cls = type(processor)
    parts: tuple[type, ...]
    if isinstance(processor, PreTrainedTokenizerBase):
        parts = (RememberingReplies, RememberingChats, RememberingTexts)
    elif isinstance(processor, ProcessorMixin):
        image_processor = getattr(processor, "image_processor", None)
        is_patcher = bool({base.__name__ for base in type(image_processor).__mro__} & _PATCHERS)
        parts = (RememberingReplies, RememberingChats, *((_RememberingRows,) if is_patcher else ()))
    else:
        return processor
    other: Any = copy.copy(processor)
    # of the same name, which is written where a processor is saved
    other.__class__ = type(cls.__name__, (*parts, cls), {"__module__": cls.__module__})
    other.image_keys = ImageKeys()
    other.timed = timed or (lambda activity: nullcontext())
    other.calls_by_chat, other.under_way = {}, None
    other.rows_by_key, other.texts_by_ids = {}, {}
    if _RememberingRows in parts:
        other.image_processor = _RememberingImages(image_processor, other.image_keys)
    return other


class _RememberingImages:
    """An image processor that processes each distinct image once."""

    def __init__(self, image_processor: Any, image_keys: ImageKeys) -> None:
        self._image_processor = image_processor
        self._image_keys = image_keys
        self._features: dict[Hashable, dict[str, Any]] = {}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._image_processor, name)

    def __call__(self, images: Any, *args: Any, return_tensors: Any = None, **kwargs: Any) -> Any:
        flat: Any = make_flat_list_of_images(images)
        if args or not flat:
            return self._image_processor(images, *args, return_tensors=return_tensors, **kwargs)
        settings = repr(sorted(kwargs.items()))
        keys: list[Hashable] = [(settings, self._image_keys(image)) for image in flat]
        missing = {key: image for key, image in zip(keys, flat, strict=True) if key not in self._features}
        if missing:
            features = self._image_processor(list(missing.values()), **kwargs)
            if features.keys() != _OF_IMAGES:
                return self._image_processor(images, return_tensors=return_tensors, **kwargs)
            self._features.update(zip(missing, _split(features, [1] * len(missing)), strict=True))
        data = _join([self._features[key] for key in keys])
        return ImageFeatures(data, tensor_type=return_tensors)


class _RememberingRows:
    """The part of a processor that processes each distinct row once: its text with its images."""

    rows_by_key: dict[Hashable, dict[str, Any]]
    image_keys: ImageKeys

    def __call__(self, images: Any = None, text: Any = None, **kwargs: Any) -> Any:
        given: Any = self
        full: Any = super()
        of_rows = images if images is not None else [[]] * len(text or ())
        if kwargs.keys() - _LAYOUT - _without_value(kwargs) or not _is_nested(text, of_rows):
            return full.__call__(images=images, text=text, **kwargs)
        keys = [(words, tuple(map(self.image_keys, of_row))) for words, of_row in zip(text, of_rows, strict=True)]
        missing = {
            key: (words, of_row)
            for key, words, of_row in zip(keys, text, of_rows, strict=True)
            if key not in self.rows_by_key
        }
        if missing:
            new_text, new_images = map(list, zip(*missing.values(), strict=True))
            features = full.__call__(images=new_images if any(new_images) else None, text=new_text)
            if features.keys() - _OF_ROWS - _OF_IMAGES:
                return full.__call__(images=images, text=text, **kwargs)
            parts = _split(features, [len(of_row) for of_row in new_images])
            self.rows_by_key.update(zip(missing, parts, strict=True))
        rows = [self.rows_by_key[key] for key in keys]
        data = _join([{name: row[name] for name in _OF_IMAGES if name in row} for row in rows])
        for name in _OF_ROWS & rows[0].keys():
            data[name] = [list(row[name]) for row in rows]
        if kwargs.get("padding"):
            token_types = data.pop("mm_token_type_ids", None)
            texts = {name: data.pop(name) for name in ("input_ids", "attention_mask")}
            data.update(given.tokenizer.pad(texts, padding=kwargs["padding"]))
            if token_types is not None:
                data["mm_token_type_ids"] = given.create_mm_token_type_ids(data["input_ids"])
        return BatchFeature(
            data, tensor_type=kwargs.get("return_tensors"), skip_tensor_conversion=given.skip_tensor_conversion
        )


def _without_value(kwargs: dict[str, Any]) -> set[str]:
    return {name for name in ("videos", "audio") if kwargs.get(name) is None}


def _is_nested(text: Any, images: Any) -> bool:
    """Whether there is a list of images for each text of a list."""
    return (
        isinstance(text, list)
        and bool(text)
        and isinstance(images, list)
        and len(images) == len(text)
        and all(isinstance(words, str) for words in text)
        and all(isinstance(of_row, list) for of_row in images)
    )


def _split(features: Any, counts: Sequence[int]) -> list[dict[str, Any]]:
    """The features of each part of a batch: of each row, or of each image where only images were processed."""
    parts: list[dict[str, Any]] = [{} for _ in counts]
    for name in _OF_ROWS & features.keys():
        for part, values in zip(parts, features[name], strict=True):
            part[name] = values
    if "image_grid_thw" not in features:
        return parts
    image, patch = 0, 0
    for part, count in zip(parts, counts, strict=True):
        grids = features["image_grid_thw"][image : image + count]
        num_patches = int(grids.prod(-1).sum())
        if count:
            part["image_grid_thw"] = grids
            part["pixel_values"] = features["pixel_values"][patch : patch + num_patches]
        image, patch = image + count, patch + num_patches
    return parts


def _join(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """What belongs to images, of several parts."""
    joined = {}
    for name in sorted(_OF_IMAGES):
        values = [part[name] for part in parts if name in part]
        if values:
            joined[name] = torch.cat(values) if isinstance(values[0], torch.Tensor) else np.concatenate(values)
    return joined
