# SPDX-License-Identifier: Apache-2.0
"""Calibrated decoding by its definition: row by row, both sequences from scratch for every token."""

import math

import torch
from tiny_models import IDS, VISION_IDS, image

#: Tokens that these tests never let a model choose. Padding is one: the repetition penalty of transformers counts it.
PAD = IDS["<|endoftext|>"]
BARRED = [*VISION_IDS, PAD]


def sharpen(model):
    """Make weights so large that images, positions and earlier tokens matter to the next one."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and ("language_model.layers" in name or "lm_head" in name):
                weight.mul_(10)


def build_chats(image_counts, seed=0):
    """Chats with so many images of different sizes and questions of 1 to 40 bytes."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, 4, (len(image_counts), 2, 2), generator=generator).mul(28).tolist()
    lengths = torch.randint(1, 41, (len(image_counts),), generator=generator).tolist()
    chats = []
    for row, (count, length) in enumerate(zip(image_counts, lengths, strict=True)):
        images = [{"type": "image", "image": image(11 * row + k, *sizes[row][k])} for k in range(count)]
        question = "".join(chr(97 + (row + 7 * k) % 26) for k in range(length))
        chats.append([{"role": "user", "content": [*images, {"type": "text", "text": question}]}])
    return chats


def encode(processor, chat):
    return processor.apply_chat_template(
        [chat], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )


@torch.no_grad()
def both_logits(model, inputs, reply):
    """Raw logits of the next token with and without the images. Without: the prompt less its vision tokens."""
    inputs = dict(inputs)
    prompt = inputs["input_ids"][0].tolist()
    text = [token for token in prompt if token not in VISION_IDS]
    inputs["input_ids"] = torch.tensor([prompt + reply])
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    if "mm_token_type_ids" in inputs:
        types = inputs["mm_token_type_ids"]
        inputs["mm_token_type_ids"] = torch.cat([types, types.new_zeros(1, len(reply))], dim=1)
    with_image = model(**inputs, use_cache=False).logits[0, -1]
    without = model(input_ids=torch.tensor([text + reply]), use_cache=False).logits[0, -1]
    return with_image, without


def calibrated(with_image, without, scale, plausibility=0.0):
    logits = (1 + scale) * with_image - scale * without
    if plausibility:
        shares = with_image.softmax(-1) / with_image.softmax(-1).max()
        logits = torch.where(shares >= plausibility, logits, -math.inf)
    return logits


def greedy_reply(model, processor, chat, num_tokens, scale, plausibility=0.0, ends=(), penalty=1.0):
    """Tokens of the reply up to and with the first of `ends`; vision tokens and padding are never chosen."""
    inputs = encode(processor, chat)
    prompt, reply = inputs["input_ids"][0].tolist(), []
    while len(reply) < num_tokens and not (reply and reply[-1] in ends):
        with_image, without = both_logits(model, inputs, reply)
        has_image = set(VISION_IDS) & set(prompt)
        logits = calibrated(with_image, without, scale, plausibility) if has_image else with_image
        for token in set(prompt + reply):
            logits[token] = logits[token] / penalty if logits[token] > 0 else logits[token] * penalty
        logits[BARRED] = -math.inf
        reply.append(int(logits.argmax()))
    return reply


def trim(ids, ends):
    """Rows of generated tokens, each up to and with the first of `ends`."""
    replies = []
    for row in ids.tolist():
        end = next((place + 1 for place, token in enumerate(row) if token in ends), len(row))
        assert set(row[end:]) <= {PAD}
        replies.append(row[:end])
    return replies
