# SPDX-License-Identifier: Apache-2.0
"""An image encoder and a text encoder that share a space: CLIP, SigLIP, FG-CLIP and their like, and their cosines.

A text is cut at the length that the encoder was made for. Encoders with a branch for long texts use it: FG-CLIP takes
248 tokens, FG-CLIP 2 takes 196.
"""

import functools
import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from datasets import Image
from PIL.Image import Image as Picture
from PIL.Image import Resampling
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer

# transformers itself gives this name only where there is torchvision; the class falls back to PIL
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from open_r1_vision.image_keys import image_key
from open_r1_vision.importing import import_callable, is_dotted_path
from open_r1_vision.models import without_zero3

#: Argument of a text encoder that takes long texts, with the value that asks for it and the tokens that it takes.
_LONG_TEXT = {"walk_short_pos": (False, 248), "walk_type": ("long", 196)}
_METHODS = ("get_image_features", "get_text_features")


class DualEncoder:
    """A loaded model with its processors.

    Args:
        model: has `get_image_features` and `get_text_features`.
        image_processor: makes the first's arguments.
        tokenizer: makes the second's.
    """

    def __init__(self, model: Any, image_processor: Any, tokenizer: Any) -> None:
        self.model, self.image_processor, self.tokenizer = model, image_processor, tokenizer
        config = getattr(model.config, "text_config", model.config)
        self.max_tokens: int = getattr(config, "max_position_embeddings", 77)
        self._text_options: dict[str, Any] = {}
        accepted = inspect.signature(model.get_text_features).parameters
        for name, (value, length) in _LONG_TEXT.items():
            if name in accepted:
                self._text_options, self.max_tokens = {name: value}, length

    @torch.inference_mode()
    def cosines(
        self,
        pairs: Sequence[tuple[Any, str]],
        *,
        batch_size: int = 32,
        max_tokens: int | None = None,
        squash: bool = True,
    ) -> list[float]:
        """The cosine of each image with its text; what occurs several times is encoded once.

        Args:
            pairs: an image in any form that a row may have, and a text.
            batch_size: images or texts that are encoded together.
            max_tokens: of a text; by default the encoder's own number.
            squash: make images squares of the encoder's size, whatever their shape.
        """
        pictures = [_decode(image) for image, _ in pairs]
        texts = [text for _, text in pairs]
        length = max_tokens or self.max_tokens
        image_vectors = _encode_once(pictures, image_key, lambda batch: self._encode_images(batch, squash), batch_size)
        text_vectors = _encode_once(
            texts, lambda text: text, lambda batch: self._encode_texts(batch, length), batch_size
        )
        return (image_vectors * text_vectors).sum(-1).tolist()

    def _encode_images(self, pictures: Sequence[Picture], squash: bool) -> torch.Tensor:
        side = self._image_side() if squash else None
        if side:
            pictures = [picture.resize((side, side), Resampling.BICUBIC) for picture in pictures]
        inputs = self.image_processor(images=list(pictures), return_tensors="pt")
        return _normalise(self.model.get_image_features(**self._on_device(inputs)))

    def _encode_texts(self, texts: Sequence[str], length: int) -> torch.Tensor:
        # SigLIP was trained on texts of full length, and the others do not see what pads them
        inputs = self.tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        )
        accepted = inspect.signature(self.model.get_text_features).parameters
        inputs = {name: value for name, value in inputs.items() if name in accepted}
        return _normalise(self.model.get_text_features(**self._on_device(inputs), **self._text_options))

    def _image_side(self) -> int | None:
        """Pixels of the images that the encoder takes; None where they may have any size."""
        if "pixel_attention_mask" in getattr(self.image_processor, "model_input_names", ()):
            return None
        config = getattr(self.model.config, "vision_config", self.model.config)
        side = getattr(config, "image_size", None)
        return side if isinstance(side, int) else None

    def _on_device(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        weight = next(self.model.parameters())
        return {
            name: value.to(weight.device, weight.dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
        }


def load_dual_encoder(name: str, device: str | None, dtype: str, trust_remote_code: bool = False) -> DualEncoder:
    """Load a dual encoder, or give the one that this process has loaded before.

    Args:
        name: folder, hub id, or dotted path of a function that returns a folder.
        device: None for the device of the training.
        dtype: of the weights, such as `float32`.
        trust_remote_code: whether code in the folder may run.

    Raises:
        ValueError: there is no dual encoder, or an option is not known.
    """
    if not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise ValueError(f"dtype is {dtype!r}, which torch does not know: set it to float32, bfloat16 or float16.")
    return _load_once(name, str(device or PartialState().device), dtype, trust_remote_code)


@functools.cache
def _load_once(name: str, device: str, dtype: str, trust_remote_code: bool) -> DualEncoder:
    folder = import_callable(name)() if is_dotted_path(name) and not Path(name).exists() else name
    options = {"trust_remote_code": trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(folder, **options)
        auto = _auto_class(config, trust_remote_code)
        with without_zero3():
            model = auto.from_pretrained(folder, dtype=getattr(torch, dtype), **options)
    except (OSError, ValueError, ImportError) as error:
        hint = (
            " Its own code must be allowed: set trust_remote_code: true." if "trust_remote_code" in str(error) else ""
        )
        reason = next(filter(None, str(error).splitlines()), type(error).__name__)
        raise ValueError(
            f"No dual encoder could be loaded from {folder!r} ({reason}).{hint} Set `encoder` to the folder or hub id "
            "of a CLIP, SigLIP or FG-CLIP model; without a network, `hf download` it before."
        ) from error
    missing = [method for method in _METHODS if not hasattr(model, method)]
    if missing:
        raise ValueError(
            f"{folder!r} holds a {type(model).__name__}, which has no {' and no '.join(missing)}, so it is no dual "
            "encoder: set `encoder` to the folder or hub id of a CLIP, SigLIP or FG-CLIP model."
        )
    try:
        image_processor = AutoImageProcessor.from_pretrained(folder, **options)
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
    except (OSError, ValueError, ImportError) as error:
        raise ValueError(
            f"The encoder {folder!r} has weights, but its image processor or tokenizer can't be loaded ({error}): "
            "copy preprocessor_config.json and the tokenizer's files from the model that it was made from."
        ) from error
    try:
        model = model.to(device)
    except (AssertionError, RuntimeError) as error:  # torch has both for a device that is not there
        raise ValueError(
            f"The encoder {folder!r} can't be put on the device {device!r} ({error}): set `device` to one that this "
            "machine has and that has room, such as cpu, or leave it out for the device of the training."
        ) from error
    return DualEncoder(model.eval().requires_grad_(False), image_processor, tokenizer)


def _auto_class(config: Any, trust_remote_code: bool) -> Any:
    """AutoModel; where the folder's own code is registered for causal language models alone, as FG-CLIP's is, that."""
    own = (getattr(config, "auto_map", None) or {}) if trust_remote_code else {}
    return AutoModelForCausalLM if "AutoModelForCausalLM" in own and "AutoModel" not in own else AutoModel


def _encode_once(
    items: Sequence[Any],
    key: Callable[[Any], Hashable],
    encode: Callable[[Sequence[Any]], torch.Tensor],
    batch_size: int,
) -> torch.Tensor:
    keys = [key(item) for item in items]
    unique = dict(zip(keys, items, strict=True))
    values = list(unique.values())
    vectors = torch.cat([encode(values[start : start + batch_size]) for start in range(0, len(values), batch_size)])
    places = {name: place for place, name in enumerate(unique)}
    return vectors[[places[name] for name in keys]]


def _decode(image: Any) -> Picture:
    if not isinstance(image, Picture):
        from open_r1_vision.data.images import encode_images

        (encoded,) = encode_images([image], ".")
        image = Image().decode_example(encoded)
    return image.convert("RGB")


def _normalise(features: Any) -> torch.Tensor:
    """Vectors of length 1; transformers wraps features in an output, models with their own code do not."""
    vectors = features if isinstance(features, torch.Tensor) else features.pooler_output
    return torch.nn.functional.normalize(vectors.float(), dim=-1)
