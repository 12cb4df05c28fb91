# SPDX-License-Identifier: Apache-2.0
r"""The starter's text reasoner: the language part of its policy, taught to answer from captions in `\boxed{}`.

`reader()` is the folder of the one that ships with the package, and that captions are trained with; it is frozen.
`from_policy()` is where its training starts. Recipes name both by their dotted paths.
"""

import tempfile
from typing import Any

import torch
from transformers import (
    AutoModelForImageTextToText,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
)

from open_r1_vision.starter.model import CHAT_TEMPLATE, find_shipped, policy

#: What both architectures call alike. Without images, Qwen2.5-VL's positions are Llama's.
_SHARED_SETTINGS = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "max_position_embeddings", "tie_word_embeddings", "rms_norm_eps", "initializer_range"),
    *("bos_token_id", "eos_token_id", "pad_token_id"),
)


def reader() -> str:
    """Folder of the reasoner that `recipes/starter/reasoner.yaml` made."""
    command = "torchrun --nproc_per_node=2 -m open_r1_vision.sft --config recipes/starter/reasoner.yaml"
    return find_shipped("reader", "reasoner", command)


def from_policy() -> str:
    """Write the language part of the shipped policy as a text model to a temporary folder and return the folder."""
    folder = tempfile.mkdtemp(prefix="open_r1_vision_reasoner_")
    save_language_part(policy(), folder)
    return folder


def save_language_part(policy_folder: str, folder: str) -> None:
    """Write a Qwen2.5-VL's language model as a Llama, and its tokenizer with the starter's chat template.

    A Llama with biases, because AutoTokenizer gives a Qwen2 Qwen's own way to split digits, whatever its folder says.
    """
    tokenizer: Any = AutoTokenizer.from_pretrained(policy_folder)
    source: Any = AutoModelForImageTextToText.from_pretrained(policy_folder, dtype=torch.float32)
    config = source.config.get_text_config()
    model = LlamaForCausalLM(_as_llama(config))
    weights = source.model.language_model.state_dict()
    # the one bias that Qwen2.5-VL lacks
    weights |= {name: bias for name, bias in model.model.state_dict().items() if name.endswith("o_proj.bias")}
    model.model.load_state_dict(weights)
    model.tie_weights()
    model.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
    )
    model.save_pretrained(folder)
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)


def _as_llama(config: Any) -> LlamaConfig:
    rope = {"rope_type": "default", "rope_theta": config.rope_parameters["rope_theta"]}
    shared = {name: getattr(config, name) for name in _SHARED_SETTINGS}
    return LlamaConfig(**shared, rope_parameters=rope, attention_bias=True)
