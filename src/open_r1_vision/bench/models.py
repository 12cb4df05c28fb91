# SPDX-License-Identifier: Apache-2.0
"""What is measured: models with random weights, their processor, and what both trainers get."""

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from tokenizers import AddedToken
from transformers import AutoModelForImageTextToText, Qwen2_5_VLConfig

from open_r1_vision.starter.model import SPECIAL_TOKENS, build_processor, build_tokenizer

#: Shapes of Qwen2.5-VL: text and vision. The last is that of Qwen2.5-VL-3B.
SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "tiny": (
        {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2},
        {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "fullatt_block_indexes": [1]},
    ),
    "8m": (
        {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 8},
        {"depth": 4, "hidden_size": 256, "intermediate_size": 704, "num_heads": 8, "fullatt_block_indexes": [3]},
    ),
    "3b": (
        {"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16},
        {
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
    ),
}
VOCABULARY = {"tiny": 512, "8m": 512, "3b": 151936}


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """What benchmarks say of the model, its batch of groups and its device."""
    add_batch_arguments(parser)
    parser.add_argument("--generations", type=int, default=8, help="completions of each prompt, G")


def add_checkpointing_argument(parser: argparse.ArgumentParser) -> None:
    """For benchmarks that go back through the model."""
    parser.add_argument("--gradient-checkpointing", action="store_true", help="compute layers again going back")


def add_batch_arguments(parser: argparse.ArgumentParser) -> None:
    """What benchmarks say of the model, its batch of prompts and its device."""
    parser.add_argument("--shape", choices=list(SHAPES), default="8m", help="of a Qwen2.5-VL with random weights")
    parser.add_argument("--pixels", type=_side, default=448, help="height and width of an image, a multiple of 28")
    parser.add_argument("--images", type=int, default=1, help="images of a prompt")
    parser.add_argument("--prompts", type=int, default=1, help="different prompts of the batch")
    parser.add_argument("--tokens", type=int, default=64, help="most tokens of a completion")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each, after one that doesn't count")
    parser.add_argument("--threads", type=int, default=1, help="of torch, on the CPU")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="precision")
    parser.add_argument("--attention", default="sdpa", help="attention implementation of transformers")
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=["cpu", "cuda"], default=default, help="where the models run")


def _side(text: str) -> int:
    side = int(text)
    if side % 28 or side < 56:
        below = max(side // 28, 2) * 28
        raise argparse.ArgumentTypeError(
            f"{side} is no multiple of 28 from 56 on, so the processor would make the image another size: "
            f"give {below} or {below + 28}"
        )
    return side


def trainer_options(args: argparse.Namespace, folder: str) -> dict[str, Any]:
    """What the configs of both trainers have in common."""
    return {
        "output_dir": folder,
        "per_device_train_batch_size": args.generations,
        "num_generations": args.generations,
        "max_completion_length": args.tokens,
        "bf16": False,
        "use_cpu": args.device == "cpu",
        "report_to": [],
    }


def trainer_inputs() -> dict[str, Any]:
    """What both trainers want and no benchmark looks at: a row, and a reward."""
    rows = Dataset.from_list([{"prompt": [{"role": "user", "content": "?"}], "images": []}])
    return {"reward_funcs": _no_reward, "train_dataset": rows}


def draw_prompts(args: argparse.Namespace) -> list[tuple[list[np.ndarray], str]]:
    """The images, of shape (pixels, pixels, 3), and the question of each prompt; the same at each call."""
    rng = np.random.default_rng(0)
    size = (args.pixels, args.pixels, 3)
    return [
        (
            [rng.integers(0, 255, size, dtype=np.uint8) for _ in range(args.images)],
            f"What does picture {index} show? Say it in a few words.",
        )
        for index in range(args.prompts)
    ]


def build_model(args: argparse.Namespace) -> Any:
    """A model with random weights, the same at each call, made on its device."""
    text, vision = SHAPES[args.shape]
    # an eighth of a head's numbers for the time, the rest for height and width
    half = text["hidden_size"] // text["num_attention_heads"] // 2
    sections = [half // 4, (half - half // 4) // 2, half - half // 4 - (half - half // 4) // 2]
    ids: dict[str, Any] = {token: index for index, token in enumerate(SPECIAL_TOKENS)}
    config = Qwen2_5_VLConfig(
        text_config={
            **text,
            "vocab_size": VOCABULARY[args.shape],
            "num_key_value_heads": 2,
            "max_position_embeddings": 32768,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": sections},
            "tie_word_embeddings": True,
            "initializer_range": _spread(text),
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={
            **vision,
            "out_hidden_size": text["hidden_size"],
            "patch_size": 14,
            "window_size": 112,
            "initializer_range": _spread(vision),
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    with torch.device(args.device):
        # rotary frequencies stay in float32, as in a model that is loaded
        return AutoModelForImageTextToText.from_config(
            config, dtype=getattr(torch, args.dtype), attn_implementation=args.attention
        )


def _spread(config: dict[str, Any]) -> float:
    """Of random weights. The architecture's 0.02 is made for widths in the thousands: a narrow model repeats its last
    token with it, whatever the image and the other tokens are, so that wrong outputs would be equal to right ones."""
    return float(config["hidden_size"] ** -0.5)


def build_processor_for(args: argparse.Namespace) -> Any:
    """The processor; it leaves images of that height and width as they are, if it is a multiple of 28.

    The tokens that the vocabulary has beyond the starter's are made-up words, so that a random completion is a text
    that has as many tokens when it is read again.
    """
    tokenizer = build_tokenizer()
    words = range(len(tokenizer), VOCABULARY[args.shape])
    tokenizer.add_tokens([AddedToken(f"~{index:06d}", normalized=False) for index in words])
    processor: Any = build_processor(tokenizer)
    area = args.pixels**2
    processor.image_processor.size = {"shortest_edge": min(area, 56 * 56), "longest_edge": area}
    return processor


def running_on() -> dict[str, Any]:
    """Generation settings with which every text has all tokens that it may have: no special token is sampled."""
    return {"suppress_tokens": list(range(len(SPECIAL_TOKENS)))}


def build_chats(args: argparse.Namespace, copies: int = 1) -> list[list[dict]]:
    """A chat for each prompt, or several with copies of its images, as a data set gives them."""
    return [
        [
            {
                "role": "user",
                "content": [
                    *({"type": "image", "image": Image.fromarray(array)} for array in arrays),
                    {"type": "text", "text": question},
                ],
            }
        ]
        for arrays, question in draw_prompts(args)
        for _ in range(copies)
    ]


def build_rows(args: argparse.Namespace, **columns: Sequence[Any]) -> Dataset:
    """A data set with a row for each prompt: `id`, `images`, `problem`, `solution`, `problem_type`, `prompt`.

    Args:
        args: sizes.
        columns: further columns.
    """
    rows = [
        {
            "id": f"row-{index}",
            "images": [Image.fromarray(array) for array in arrays],
            "problem": question,
            "solution": "7",
            "problem_type": "number",
            "prompt": [{"role": "user", "content": question}],
            **{name: values[index] for name, values in columns.items()},
        }
        for index, (arrays, question) in enumerate(draw_prompts(args))
    ]
    return Dataset.from_list(rows)


def _no_reward(completions: list, **columns: Any) -> list[float]:
    return [0.0] * len(completions)
