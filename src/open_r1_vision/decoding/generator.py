# SPDX-License-Identifier: Apache-2.0
"""Replies to chats, greedy or sampled, with text-bias calibrated decoding."""

import copy
import inspect
import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, GenerationConfig, GenerationMixin, PreTrainedModel
from transformers.generation import GenerationMode

from open_r1_vision.decoding.calibration import Calibration
from open_r1_vision.decoding.spans import SpanTracker
from open_r1_vision.decoding.streams import CalibrationHook, TextStream, hooked
from open_r1_vision.generation import encode_chats

logger = logging.getLogger(__name__)

#: What the stream without images passes to the model.
_INPUTS = ("input_ids", "attention_mask", "position_ids", "past_key_values")
#: Arguments of `model.generate` that are not settings of its config, and that calibration goes with.
_ARGUMENTS = {"logits_processor", "stopping_criteria", "prefix_allowed_tokens_fn"}
_IMAGE_PARTS = ("image", "image_url")


class CalibratedGenerator:
    """A model that replies to chats with calibrated decoding: (1 + s) * logits(image) - s * logits(no image).

    Method and options: :mod:`open_r1_vision.decoding.calibration`. The stream without images reads the same chat
    without its image parts and then the same reply, whichever token is chosen. Logits are mixed in float32 before any
    other logits processor. Batches may be of any size; each row stops for itself. A chat without image is decoded
    plainly.

    Args:
        model: a model as `AutoModelForImageTextToText` loads it, in evaluation mode.
        processor: its processor, see :func:`open_r1_vision.models.load_processor`.
        calibration: how to calibrate.
        seed: makes sampled replies repeatable: a new generator with the same seed gives the same replies, call by
            call. None draws from torch's global generator.
        options: of `model.generate`, for instance `do_sample=True, temperature=0.7, top_p=0.9`. Greedy by default.

    Raises:
        ValueError: a model that takes other inputs or decodes in its own way, or options other than those of greedy
            and sampled generation, beam search for one.
    """

    def __init__(
        self, model: Any, processor: Any, calibration: Calibration, seed: int | None = None, **options: Any
    ) -> None:
        _check_model(model)
        self.model = model
        self.processor = processor
        self.calibration = calibration
        self.options = {"do_sample": False, **options}
        _generation_config(model, self.options)
        self._seeds = None if seed is None else random.Random(seed)
        self._mentioned_plain_rows = False

    def __call__(self, prompts: list[list[dict]], max_new_tokens: int) -> list[str]:
        """Reply to each chat.

        Args:
            prompts: chats; images lie in the messages' content.
            max_new_tokens: most tokens of a reply.

        Returns:
            One reply for each chat (`num_return_sequences` in a row, where that is set), without special tokens.
        """
        ids = self.generate_ids(prompts, max_new_tokens)
        return self.processor.tokenizer.batch_decode(ids, skip_special_tokens=True)

    def generate_ids(self, prompts: list[list[dict]], max_new_tokens: int) -> torch.Tensor:
        """The tokens of the replies, of shape (replies, longest reply), padded behind the end of each."""
        num_copies = _generation_config(self.model, self.options).num_return_sequences or 1
        hook = self._hook(prompts, num_copies)
        inputs = encode_chats(self.processor, prompts, self.model.device)
        with torch.inference_mode(), self._own_draws(), hooked(self.model, hook):
            # the hook keeps count of the steps, which a compiled forward pass would not
            output = self.model.generate(**inputs, **self.options, max_new_tokens=max_new_tokens, disable_compile=True)
        return output[:, inputs["input_ids"].shape[1] :]

    def _hook(self, prompts: list[list[dict]], num_copies: int) -> CalibrationHook | None:
        """The hook for one batch; None where decoding is plain."""
        if self.calibration.scale == 0:
            return None
        rows = [row for row, chat in enumerate(prompts) if any(map(_has_image, chat))]
        if len(rows) < len(prompts) and not self._mentioned_plain_rows:
            logger.warning(
                "%d of %d chats hold no image, so there is nothing to calibrate against: such chats are decoded "
                "plainly. This is said once.",
                len(prompts) - len(rows),
                len(prompts),
            )
            self._mentioned_plain_rows = True
        if not rows:
            return None
        texts = [[_without_images(message) for message in prompts[row]] for row in rows]
        text = encode_chats(self.processor, texts, self.model.device)
        ids, mask = (text[name].repeat_interleave(num_copies, dim=0) for name in ("input_ids", "attention_mask"))
        places = [row * num_copies + number for row in rows for number in range(num_copies)]
        span = self.calibration.span
        tracker = SpanTracker(self.processor.tokenizer, span, len(places)) if span else None
        stream = TextStream(self.model, ids, mask)
        return CalibrationHook(self.calibration, stream, torch.tensor(places, device=ids.device), tracker)

    @contextmanager
    def _own_draws(self) -> Iterator[None]:
        """Draw from the seed's numbers, and leave torch's global generator as it was; without a seed draw from it."""
        if self._seeds is None:
            yield
            return
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self._seeds.getrandbits(63))
            yield


def _parts(message: dict) -> list[dict]:
    content = message.get("content")
    return content if isinstance(content, list) else []


def _has_image(message: dict) -> bool:
    return any(part.get("type") in _IMAGE_PARTS for part in _parts(message))


def _without_images(message: dict) -> dict:
    kept = [part for part in _parts(message) if part.get("type") not in _IMAGE_PARTS]
    if any(part.get("type") == "video" for part in kept):
        raise ValueError(
            "A chat holds a video, but calibration compares a chat with images and the same chat without: give frames "
            "of the video as images."
        )
    return {**message, "content": kept} if _parts(message) else message


def _check_model(model: Any) -> None:
    """Refuse models that don't take part in the two streams."""
    if not isinstance(model, PreTrainedModel):
        reason = (
            "it is no model of transformers (of a PEFT model give `get_base_model()`, of a wrapped one the inside)"
        )
    elif type(model.config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        reason = "AutoModelForImageTextToText doesn't load its architecture"
    elif model.config.is_encoder_decoder:
        reason = "it encodes the prompt once and has no prompt in its decoder"
    elif getattr(type(model), "generate", None) is not GenerationMixin.generate:
        reason = "it has a `generate` of its own, or none"
    elif missing := set(_INPUTS) - set(inspect.signature(model.forward).parameters):
        reason = f"its forward takes no {' and no '.join(sorted(missing))}"
    else:
        return
    raise ValueError(
        f"{type(model).__name__} can't be calibrated: {reason}. Take a model that AutoModelForImageTextToText loads "
        "and that reads images and text in one decoder, such as Qwen2-VL, Qwen2.5-VL, Qwen3-VL or LLaVA."
    )


def _generation_config(model: Any, options: dict[str, Any]) -> GenerationConfig:
    """The settings that `model.generate` will have, or why calibration doesn't go with them."""
    config = copy.deepcopy(model.generation_config)
    unknown = (set(config.update(**options)) - _ARGUMENTS) | ({"max_new_tokens"} & set(options))
    if unknown:
        raise ValueError(
            f"{', '.join(sorted(unknown))} can't be given: options are the settings of a GenerationConfig one by one, "
            f"and {', '.join(sorted(_ARGUMENTS))}; max_new_tokens is given with each call."
        )
    mode = config.get_generation_mode()
    if mode not in (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE):
        raise ValueError(
            f"These options, with the model's generation_config, mean {mode.value.replace('_', ' ')}, but calibrated "
            "decoding follows one reply for each row: leave the options for greedy or sampled replies (num_beams=1)."
        )
    for name, neutral in (("guidance_scale", 1), ("prefill_chunk_size", None)):
        if getattr(config, name) not in (None, neutral):
            raise ValueError(
                f"{name} is {getattr(config, name)!r}, which runs forward passes of its own between those of "
                f"calibrated decoding: set {name}=None, in the options or in the model's generation_config."
            )
    return config
