# SPDX-License-Identifier: Apache-2.0
"""Tiny models of every architecture that can share prompts, and batches to compare both ways of scoring with."""

import torch
import transformers
from tiny_models import _TEXT, IDS, build_processor, image
from trl.trainer.utils import add_fused_lm_head

from open_r1_vision.shared_prefix import prepare
from open_r1_vision.trainers.shared_prefix import SharedPass

VISION = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
TEXT = {"qwen2": "Qwen2", "llama": "Llama", "qwen3": "Qwen3"}
ARCHITECTURES = (*VISION, *TEXT)


def load(architecture, model_folder, implementation="sdpa", **kwargs):
    """A model with TRL's head that takes packed rows."""
    if architecture in VISION:
        model = transformers.AutoModelForImageTextToText.from_pretrained(
            model_folder(architecture), attn_implementation=implementation, **kwargs
        )
    else:
        torch.manual_seed(0)
        config = getattr(transformers, f"{TEXT[architecture]}Config")(**_TEXT, head_dim=16)
        config._attn_implementation = implementation
        model = getattr(transformers, f"{TEXT[architecture]}ForCausalLM")(config)
    add_fused_lm_head(model, temperature=0.9, outputs=("log_probs", "entropy"))
    prepare(model)
    return model.train()


def batch(architecture, prompts, completion_lengths):
    """Padded inputs of a forward pass, and each row's count of images.

    Args:
        architecture: of the model.
        prompts: for each row the index of its prompt and the indices of its images; prompts get longer by their index.
        completion_lengths: of each row.
    """
    tokenizer_ids = []
    pictures = []
    processor = build_processor(architecture if architecture in VISION else "qwen2_5_vl")
    for index, images in prompts:
        content = [{"type": "image"}] * len(images) + [{"type": "text", "text": "How many?" + " please" * index}]
        chat = [{"role": "user", "content": content}]
        tokenizer_ids.append(processor.apply_chat_template(chat, add_generation_prompt=True))
        pictures.append([image(k, 56 + 28 * (k % 2)) for k in images])
    encoded = processor(
        text=tokenizer_ids,
        images=pictures if any(pictures) else None,
        padding=True,
        padding_side="left",
        return_tensors="pt",
    )
    torch.manual_seed(1)
    longest = max(completion_lengths)
    mask = (torch.arange(longest) < torch.tensor(completion_lengths)[:, None]).long()
    completions = torch.randint(97, 123, mask.shape).where(mask.bool(), torch.tensor(IDS["<|endoftext|>"]))
    inputs = {
        "input_ids": torch.cat([encoded["input_ids"], completions], 1),
        "attention_mask": torch.cat([encoded["attention_mask"], mask], 1),
    }
    if any(pictures):
        types = encoded["mm_token_type_ids"]
        inputs["mm_token_type_ids"] = torch.cat([types, types.new_zeros(mask.shape)], 1)
        inputs |= {name: encoded[name] for name in ("pixel_values", "image_grid_thw")}
    return inputs, [len(of_row) for of_row in pictures]


def score(model, inputs, num_images, num_completion_tokens, shared):
    """Log-probabilities, entropies and the gradients of a sum of both with odd weights; and the share saved."""
    model.zero_grad()
    outputs, share_saved = _forward(model, inputs, num_images, num_completion_tokens, shared)
    values = [x[:, -num_completion_tokens:] for x in (outputs.log_probs, outputs.entropy)]
    weights = torch.sin(torch.arange(values[0].numel(), device=values[0].device)).view_as(values[0])
    (weights * (values[0] + 0.3 * values[1])).sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return *(value.detach() for value in values), gradients, share_saved


@torch.no_grad()
def score_only(model, inputs, num_images, num_completion_tokens, shared):
    """Log-probabilities."""
    outputs, _ = _forward(model, inputs, num_images, num_completion_tokens, shared)
    return outputs.log_probs[:, -num_completion_tokens:]


def _forward(model, inputs, num_images, num_completion_tokens, shared):
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    labels[:, :-num_completion_tokens] = -100
    call = SharedPass(model, model, num_completion_tokens, num_images) if shared else model
    outputs = call(**inputs, labels=labels, fused_lm_head=True)
    return outputs, call.shares_saved[0] if shared else 0.0
