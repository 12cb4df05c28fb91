# SPDX-License-Identifier: Apache-2.0
"""A tiny random language model with a chat template: it writes nonsense, always the same."""

import torch
from tiny_models import END, IDS, build_tokenizer
from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role + '\n' + message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if shout is defined %}HEY {% endif %}{% endif %}"
)


def save_text_model(folder, template=TEMPLATE, **generation):
    """Write a model of 0.2 million parameters and a tokenizer of one token a byte; room for 256 tokens.

    Args:
        folder: where to.
        template: the chat template.
        generation: what the model's own generation settings say beside its end tokens.
    """
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=264,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=IDS["<|endoftext|>"],
        eos_token_id=END,
        pad_token_id=IDS["<|endoftext|>"],
    )
    model = Qwen2ForCausalLM(config)
    model.generation_config = GenerationConfig(eos_token_id=[END, IDS["<|endoftext|>"]], **generation)
    model.save_pretrained(folder)
    tokenizer = build_tokenizer()
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return str(folder)
