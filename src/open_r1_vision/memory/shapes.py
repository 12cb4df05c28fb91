# SPDX-License-Identifier: Apache-2.0
"""Shapes of models: what memory depends on, from a configuration, without weights.

Parameters are counted exactly, by building the model on PyTorch's meta device, which holds no numbers. The models of
the recipes are known here by their published configurations, so that nothing has to be downloaded for an estimate.
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Bytes that one block keeps for its backward pass, and the gradients within it, for each token and each number of the
#: block's width (`hidden`), its queries, its keys and its MLP, in bfloat16. The kept ones are what autograd's
#: saved-tensor hooks show, the MLP's have one and a half times as much for gradients that live at the same time, and
#: Qwen3's norms of queries and keys are in float32; the sums meet the peaks of PyTorch's MemTracker (see the tests).
_TEXT_BLOCK = {"qwen2": (16, 4, 4, 12), "qwen3": (16, 14, 14, 12)}
#: The image encoder's have 16 more for the projector behind it.
_VISION_BLOCK = {"qwen2_vl": (40, 8), "qwen2_5_vl": (48, 12), "qwen3_vl": (40, 8)}


def _text(hidden: int, layers: int, heads: int, key_heads: int, mlp: int, vocabulary: int, **more: Any) -> dict:
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size")
    values = (hidden, layers, heads, key_heads, mlp)
    return {**dict(zip(names, values, strict=True)), "vocab_size": vocabulary, **more}


def _vision3(depth: int, hidden: int, mlp: int, out: int, deepstack: list[int]) -> dict:
    return {
        "depth": depth,
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "num_heads": 16,
        "out_hidden_size": out,
        "deepstack_visual_indexes": deepstack,
    }


def _qwen2(family: str, text: dict, vision: dict, tied: bool) -> dict:
    return {"model_type": family, "text_config": text, "vision_config": vision, "tie_word_embeddings": tied}


#: Published configurations by hub id, as far as shapes depend on them.
KNOWN: dict[str, dict[str, Any]] = {
    "Qwen/Qwen2-VL-2B-Instruct": _qwen2(
        "qwen2_vl", _text(1536, 28, 12, 2, 8960, 151936, tie_word_embeddings=True), {"hidden_size": 1536}, True
    ),
    "Qwen/Qwen2-VL-7B-Instruct": _qwen2(
        "qwen2_vl", _text(3584, 28, 28, 4, 18944, 152064), {"hidden_size": 3584}, False
    ),
    "Qwen/Qwen2.5-VL-3B-Instruct": _qwen2(
        "qwen2_5_vl",
        _text(2048, 36, 16, 2, 11008, 151936, tie_word_embeddings=True),
        {"hidden_size": 1280, "intermediate_size": 3420, "out_hidden_size": 2048},
        True,
    ),
    "Qwen/Qwen2.5-VL-7B-Instruct": _qwen2(
        "qwen2_5_vl",
        _text(3584, 28, 28, 4, 18944, 152064),
        {"hidden_size": 1280, "intermediate_size": 3420, "out_hidden_size": 3584},
        False,
    ),
    "Qwen/Qwen3-VL-4B-Instruct": _qwen2(
        "qwen3_vl",
        _text(2560, 36, 32, 8, 9728, 151936, head_dim=128, tie_word_embeddings=True),
        _vision3(24, 1024, 4096, 2560, [5, 11, 17]),
        True,
    ),
    "Qwen/Qwen3-VL-8B-Instruct": _qwen2(
        "qwen3_vl",
        _text(4096, 36, 32, 8, 12288, 151936, head_dim=128),
        _vision3(27, 1152, 4304, 4096, [8, 16, 24]),
        False,
    ),
}


@dataclass(frozen=True)
class ModelShape:
    """What memory depends on. Widths are numbers per token of one layer.

    Attributes:
        parameters: of the whole model, tied ones once.
        layers: of the decoder.
        hidden: width of the decoder.
        queries: width of all heads' queries.
        keys: width of all heads' keys; values are as many.
        mlp: width within an MLP.
        vocabulary: tokens.
        block_bytes: what a layer keeps for each token, see :attr:`layer_bytes_per_token`.
        vision_layers: blocks of the image encoder.
        vision_hidden: its width.
        vision_block_bytes: what a block keeps for each patch.
        patches_per_token: patches that are merged into one token of the decoder.
        pixels_per_token: pixels of an image behind one token.
        tied: the embedding is the output layer too.
    """

    parameters: int
    layers: int
    hidden: int
    queries: int
    keys: int
    mlp: int
    vocabulary: int
    block_bytes: int
    vision_layers: int
    vision_hidden: int
    vision_block_bytes: int
    patches_per_token: int
    pixels_per_token: int
    tied: bool

    @property
    def key_value_bytes(self) -> int:
        """Of one token in a bfloat16 cache: keys and values of all layers."""
        return 2 * self.layers * self.keys * 2


def read_config(model: str) -> Any:
    """The configuration of a model: a folder's, or the published one of a hub id.

    Raises:
        ValueError: neither is to be found.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    if model in KNOWN and not Path(model).exists():
        known = dict(KNOWN[model])
        return CONFIG_MAPPING[known.pop("model_type")](**known)
    try:
        return AutoConfig.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"There is no configuration of {model!r} to estimate memory from ({str(error).splitlines()[0]}): name a "
            f"folder with a config.json, or one of {', '.join(KNOWN)}."
        ) from error


@functools.lru_cache(maxsize=32)
def read_shape(model: str) -> ModelShape:
    """The shape of a model, by folder or hub id.

    Raises:
        ValueError: no such configuration, or an architecture whose shapes are not known here.
    """
    return shape_of(read_config(model))


def shape_of(config: Any) -> ModelShape:
    """The shape of a configuration.

    Raises:
        ValueError: an architecture whose shapes are not known here.
    """
    family = config.model_type
    if family not in _VISION_BLOCK:
        raise ValueError(
            f"Memory is estimated for {', '.join(_VISION_BLOCK)}, not for {family!r}: its layers keep other tensors."
        )
    text, vision = config.get_text_config(), config.vision_config
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    queries, keys = text.num_attention_heads * head, text.num_key_value_heads * head
    block = _TEXT_BLOCK["qwen3" if family == "qwen3_vl" else "qwen2"]
    vision_hidden = vision.embed_dim if family == "qwen2_vl" else vision.hidden_size
    vision_mlp = vision_hidden * vision.mlp_ratio if family == "qwen2_vl" else vision.intermediate_size
    of_hidden, of_mlp = _VISION_BLOCK[family]
    return ModelShape(
        parameters=count_parameters(config),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        queries=queries,
        keys=keys,
        mlp=text.intermediate_size,
        vocabulary=text.vocab_size,
        block_bytes=sum(
            bytes_ * width
            for bytes_, width in zip(block, (text.hidden_size, queries, keys, text.intermediate_size), strict=True)
        ),
        vision_layers=vision.depth,
        vision_hidden=vision_hidden,
        vision_block_bytes=int(of_hidden * vision_hidden + of_mlp * vision_mlp),
        patches_per_token=vision.spatial_merge_size**2,
        pixels_per_token=(vision.patch_size * vision.spatial_merge_size) ** 2,
        tied=bool(config.tie_word_embeddings),
    )


def build_on_meta(config: Any) -> Any:
    """The model of a configuration, without numbers."""
    import torch
    from transformers import AutoModelForImageTextToText

    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config)


def count_parameters(config: Any) -> int:
    """All parameters, tied ones once."""
    return sum(parameter.numel() for parameter in build_on_meta(config).parameters())


def count_adapter(model: str, rank: int, targets: tuple[str, ...] | str | None) -> int:
    """Parameters that LoRA adds to a model and trains: `rank` numbers for each input and output of a layer.

    Args:
        model: folder or hub id.
        rank: of the adapters.
        targets: names of the layers that get one, as `lora_target_modules` names them; None for PEFT's default.
    """
    return rank * _count_widths(model, targets)


@functools.lru_cache(maxsize=32)
def _count_widths(model: str, targets: tuple[str, ...] | str | None) -> int:
    """Inputs and outputs of the layers that PEFT would adapt: the parameters of an adapter of rank 1."""
    from peft import LoraConfig, get_peft_model

    chosen = list(targets) if isinstance(targets, tuple) else targets
    adapted = get_peft_model(
        build_on_meta(read_config(model)),
        LoraConfig(r=1, target_modules=chosen, task_type="CAUSAL_LM"),
        low_cpu_mem_usage=True,  # or its numbers would be drawn
    )
    return sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
