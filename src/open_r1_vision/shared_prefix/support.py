# SPDX-License-Identifier: Apache-2.0
"""Which models take packed rows, and why others don't."""

from typing import Any

from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

#: Architectures whose positions are known here: rotary ones, given from outside, for each token alone.
ARCHITECTURES = ("llama", "qwen2", "qwen2_vl", "qwen2_5_vl", "qwen3", "qwen3_vl")
#: Kinds of rotary positions that don't depend on how long the longest sequence of a batch is.
_ROPES = ("default", "linear", "llama3", "yarn", "mrope")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


def reason_against(model: Any) -> str | None:
    """Why a model's log-probabilities can't be had from packed rows, None if they can.

    Args:
        model: a language model of transformers, or PEFT's wrapping of one.
    """
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        return "its adapter puts tokens of its own before the prompt"
    return reason_against_config(model.config)


def reason_against_config(config: Any) -> str | None:
    """The part of :func:`reason_against` that a model's config tells."""
    text = config.get_text_config()
    kinds = sorted(set(getattr(text, "layer_types", None) or ()) - {"full_attention"})
    if kinds:
        return f"it has layers of the kind {', '.join(kinds)}, which see more or less than prompt and completion"
    if getattr(text, "sliding_window", None) is not None and getattr(text, "use_sliding_window", True):
        return f"its attention slides over {text.sliding_window} tokens"
    experts = next((name for name in _EXPERTS if getattr(text, name, None)), None)
    if experts is not None:
        return f"it routes tokens to {getattr(text, experts)} experts, and routing sees all tokens of a batch"
    if config.model_type not in ARCHITECTURES:
        return f"where {config.model_type} models place tokens isn't known; it is for {', '.join(ARCHITECTURES)}"
    rope = (getattr(text, "rope_parameters", None) or {}).get("rope_type", "default")
    if rope not in _ROPES:
        return f"its rotary positions are of the kind {rope}, which depends on the length of the batch"
    if text._attn_implementation not in ALL_MASK_ATTENTION_FUNCTIONS:
        return f"its attention implementation {text._attn_implementation} has no mask function in transformers"
    return None
