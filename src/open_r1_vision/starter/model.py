# SPDX-License-Identifier: Apache-2.0
"""The starter's policy: Qwen2.5-VL's architecture at 2.2 million parameters, with a tokenizer of 512 tokens.

`policy()` is the folder of the shipped checkpoint, `new_policy()` a fresh one with random weights; recipes name them
by their dotted paths.
"""

import json
import random
import tempfile
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from open_r1_vision.models import without_video
from open_r1_vision.prompts import load_prompt
from open_r1_vision.starter import digits, figures
from open_r1_vision.starter.page import CELL_PIXELS, LONGEST_CAPTION, PAGE_PIXELS, draw_cells

VOCABULARY_SIZE = 512
#: About 1 / sqrt(hidden size). With the architecture's 0.02, made for widths in the thousands, layers this narrow
#: barely change their input, and the model has not begun to look at the image after 250 steps.
INITIALIZER_RANGE = 0.06
TAGS = ("info", "think", "answer")
#: The order fixes the ids, 0 to 6.
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
PROMPTS = ("starter", "starter_reader")

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def policy() -> str:
    """Folder of the checkpoint that `recipes/starter/warm_up.yaml` made."""
    command = "torchrun --nproc_per_node=2 -m open_r1_vision.sft --config recipes/starter/warm_up.yaml"
    return find_shipped("checkpoint", "checkpoint", command)


def find_shipped(folder: str, what: str, command: str) -> str:
    """A model folder of the package.

    Args:
        folder: its name.
        what: what it holds, for the message.
        command: what made it.

    Raises:
        FileNotFoundError: the package came without it.
    """
    path = Path(str(resources.files("open_r1_vision.starter"))) / folder
    if not (path / "config.json").is_file():
        raise FileNotFoundError(f"The starter's {what} is not in {path}. Make it with `{command}`.")
    return str(path)


def new_policy(seed: int = 0) -> str:
    """Write a policy with random weights to a temporary folder and return the folder."""
    folder = tempfile.mkdtemp(prefix="open_r1_vision_starter_")
    save_new_policy(folder, seed)
    return folder


def save_new_policy(folder: str, seed: int = 0) -> None:
    """Write model, processor and generation config with weights drawn from `seed` to `folder`."""
    tokenizer = build_tokenizer()
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(build_config(tokenizer))
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.pad_token_id,
        eos_token_id=[tokenizer.eos_token_id, tokenizer.pad_token_id],
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(folder)
    build_processor(tokenizer).save_pretrained(folder)


def build_config(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig:
    """Shape of the policy. Heads are 32 wide, the least that vLLM's CPU attention takes."""
    ids: dict[str, Any] = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": VOCABULARY_SIZE,
            "hidden_size": 192,
            "intermediate_size": 512,
            "num_hidden_layers": 4,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "max_position_embeddings": 1024,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
            "tie_word_embeddings": True,
            "initializer_range": INITIALIZER_RANGE,
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={
            "depth": 2,
            "hidden_size": 96,
            "intermediate_size": 256,
            "num_heads": 3,
            "out_hidden_size": 192,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "initializer_range": INITIALIZER_RANGE,
            "window_size": PAGE_PIXELS,
            "fullatt_block_indexes": [1],
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )


def build_processor(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLProcessor:
    """The architecture's own processor; pages pass it at their size."""
    image_processor = Qwen2VLImageProcessorPil(
        min_pixels=CELL_PIXELS**2,
        max_pixels=4 * PAGE_PIXELS**2,
        # white paper becomes 0, so that an empty patch says nothing
        image_mean=[1.0, 1.0, 1.0],
        image_std=[0.5, 0.5, 0.5],
    )
    processor_class = without_video(Qwen2_5_VLProcessor)
    return processor_class(image_processor=image_processor, tokenizer=tokenizer, chat_template=CHAT_TEMPLATE)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The policy's tokenizer, trained on the tasks' own text."""
    return train_tokenizer(_corpus(), SPECIAL_TOKENS, [tag for name in TAGS for tag in (f"<{name}>", f"</{name}>")])


def train_tokenizer(
    corpus: Iterable[str], special_tokens: Sequence[str], added_tokens: Sequence[str]
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer on the text that will be read, so that a number or a word is one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE - len(added_tokens),
        special_tokens=list(special_tokens),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in added_tokens])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", padding_side="left"
    )


def _corpus() -> list[str]:
    """What the tokenizer is trained on: prompts, every number up to 99, and drawn questions with their reasoning."""
    rng = random.Random(0)
    lines = [load_prompt(name) for name in PROMPTS]
    lines += [f" {number}" for number in range(100) for _ in range(50)]
    for fewest, most in ((2, 5), (5, LONGEST_CAPTION), (5, LONGEST_CAPTION)):
        for _ in range(1000):
            cells = draw_cells(rng, rng.randint(fewest, most))
            numbers = [rng.randint(0, 9) for _ in cells]
            shapes = [(rng.choice(tuple(figures.COLOURS)), rng.choice(figures.SHAPES)) for _ in cells]
            for question, facts in (
                (digits.ask(rng, numbers), digits.describe(numbers, cells)),
                (figures.ask(rng, shapes), figures.describe(shapes, cells)),
            ):
                caption = " ; ".join(facts)
                lines += [f"user\n{question.problem}", f"assistant\n {caption} {' '.join(question.steps)} "]
                lines += [f"user\n{question.problem}\n {caption}"]
    return lines


def describe_size(folder: str) -> str:
    """Number of parameters and bytes of weights of a saved policy, for a terminal."""
    weights = Path(folder) / "model.safetensors"
    with weights.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    shapes = [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
    parameters = sum(int(torch.tensor(shape).prod()) for shape in shapes)
    return f"{parameters / 1e6:.2f}M parameters, {weights.stat().st_size / 1e6:.1f} MB"
