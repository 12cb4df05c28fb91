# SPDX-License-Identifier: Apache-2.0
"""Greedy replies of a model in this process, for evaluation outside of a trainer."""

from typing import Any

import torch
from transformers import AutoModelForImageTextToText

from open_r1_vision.models import find_model, load_processor


class GreedyGenerator:
    """A model folder that replies to chats.

    Args:
        model: folder, hub id, or dotted path, see :func:`open_r1_vision.models.find_model`.
        device: where the model runs; by default a GPU where there is one.
        dtype: precision of the weights; by default bfloat16 on a GPU and float32 elsewhere.
        min_pixels: images with fewer pixels are enlarged.
        max_pixels: images with more pixels are reduced.
        revision: branch, tag or commit of a hub model.
    """

    def __init__(
        self,
        model: str,
        device: str | None = None,
        dtype: torch.dtype | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        revision: str | None = None,
    ) -> None:
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        folder = find_model(model)
        self.processor = load_processor(folder, min_pixels, max_pixels, revision)
        dtype = dtype or (torch.bfloat16 if self.device.startswith("cuda") else torch.float32)
        loaded: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype, revision=revision or "main")
        self.model = loaded.to(self.device).eval()

    def __call__(self, prompts: list[list[dict]], max_new_tokens: int) -> list[str]:
        """Reply to each chat, greedily.

        Args:
            prompts: chats; images lie in the messages' content.
            max_new_tokens: most tokens of a reply.
        """
        inputs = encode_chats(self.processor, prompts, self.device)
        with torch.inference_mode():
            # some models' own settings hold a penalty, which the trainer's greedy replies don't have
            output = self.model.generate(
                **inputs, max_new_tokens=max_new_tokens, do_sample=False, repetition_penalty=1.0
            )
        return self.processor.tokenizer.batch_decode(
            output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )


def encode_chats(processor: Any, prompts: list[list[dict]], device: Any) -> Any:
    """What `model.generate` takes for a batch of chats, padded on the left, with the reply to come."""
    inputs = processor.apply_chat_template(
        prompts,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True, "padding_side": "left"},
    )
    return inputs.to(device)
