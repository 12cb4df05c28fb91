# SPDX-License-Identifier: Apache-2.0
"""The starter's text reasoners: Qwen2's architecture, small enough to answer a batch of captions in a second.

They read captions of pages with RACRO's prompts and answer in `<think>` and a box. Both are frozen in RL. `small()`
is the one that captions are trained with; `large()` makes fewer mistakes and takes its place without training anything
anew. `new_small()` and `new_large()` have random weights; recipes name all four by their dotted paths.
"""

import tempfile
from importlib import resources
from pathlib import Path

import torch
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from open_r1_vision.starter import reading
from open_r1_vision.starter.model import (
    CHAT_TEMPLATE,
    INITIALIZER_RANGE,
    SPECIAL_TOKENS,
    VOCABULARY_SIZE,
    train_tokenizer,
)

#: Hidden size, intermediate size, layers. Heads are 32 wide, as the policy's.
SIZES = {"small": (96, 256, 3), "large": (160, 432, 3)}
_HEAD_SIZE = 32


def small() -> str:
    """Folder of the reasoner that `recipes/starter/reasoner.yaml` made."""
    return _shipped("small")


def large() -> str:
    """Folder of the better one, which the same recipe made with `model_name_or_path` set to `new_large`."""
    return _shipped("large")


def new_small() -> str:
    """Write a small one with random weights to a temporary folder and return the folder."""
    return _new("small")


def new_large() -> str:
    """As `new_small`, for the large one."""
    return _new("large")


def save_new_reasoner(folder: str, size: str, seed: int = 0) -> None:
    """Write model and tokenizer with weights drawn from `seed` to `folder`."""
    tokenizer = build_tokenizer()
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(build_config(tokenizer, size))
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def build_config(tokenizer: PreTrainedTokenizerFast, size: str) -> Qwen2Config:
    """Shape of a reasoner, `small` or `large`."""
    hidden, intermediate, layers = SIZES[size]
    return Qwen2Config(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=hidden // _HEAD_SIZE,
        num_key_value_heads=1,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        initializer_range=INITIALIZER_RANGE,
        bos_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of its own, trained on the lessons and on RACRO's prompts."""
    tokenizer = train_tokenizer(reading.corpus(), SPECIAL_TOKENS[:3], added_tokens=("<think>", "</think>"))
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _shipped(size: str) -> str:
    folder = Path(str(resources.files("open_r1_vision.starter"))) / "reasoners" / size
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"The starter's {size} reasoner is not in {folder}. Make it with "
            "`torchrun --nproc_per_node=2 -m open_r1_vision.sft --config recipes/starter/reasoner.yaml "
            f"--model_name_or_path open_r1_vision.starter.reasoner.new_{size}`."
        )
    return str(folder)


def _new(size: str) -> str:
    folder = tempfile.mkdtemp(prefix=f"open_r1_vision_{size}_reasoner_")
    save_new_reasoner(folder, size)
    return folder
