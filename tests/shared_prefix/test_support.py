# SPDX-License-Identifier: Apache-2.0
"""Which models share prompts: the list, and why others don't."""

from types import SimpleNamespace

import pytest
import transformers
from batches import ARCHITECTURES

from open_r1_vision.shared_prefix import reason_against, support


def test_the_list_is_what_exactness_is_tested_on():
    assert sorted(support.ARCHITECTURES) == sorted(ARCHITECTURES)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_supported(architecture):
    config = transformers.AutoConfig.for_model(architecture)
    config._attn_implementation = "sdpa"
    assert reason_against(SimpleNamespace(config=config)) is None
    for implementation in ("eager", "flash_attention_2", "flex_attention"):
        config._attn_implementation = implementation
        assert reason_against(SimpleNamespace(config=config)) is None


@pytest.mark.parametrize(
    ("architecture", "settings", "reason"),
    [
        ("gemma3_text", {}, "layers of the kind sliding_attention"),
        ("gpt_oss", {}, "layers of the kind sliding_attention"),
        ("qwen2", {"use_sliding_window": True, "max_window_layers": 1}, "layers of the kind sliding_attention"),
        ("qwen2_5_vl_text", {"use_sliding_window": True, "max_window_layers": 1}, "sliding_attention"),
        ("qwen3_next", {}, "layers of the kind linear_attention"),
        ("mistral", {}, "its attention slides over 4096 tokens"),
        ("mixtral", {}, "routes tokens to 8 experts"),
        ("qwen3_moe", {}, "routes tokens to 128 experts"),
        ("qwen3_vl_moe", {}, "routes tokens to"),
        ("deepseek_v3", {}, "routes tokens to 256 experts"),
        ("gpt2", {}, "where gpt2 models place tokens isn't known"),
        ("bloom", {}, "where bloom models place tokens isn't known"),
        ("mistral", {"sliding_window": None}, "where mistral models place tokens isn't known"),
        ("llava", {}, "where llava models place tokens isn't known"),
        (
            "llama",
            {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}},
            "rotary positions are of the kind dynamic",
        ),
        ("llama", {"attn_implementation": "of_my_own"}, "of_my_own has no mask function"),
    ],
)
def test_not_supported(architecture, settings, reason):
    config = transformers.AutoConfig.for_model(architecture, **settings)
    if config._attn_implementation is None:
        config._attn_implementation = "sdpa"
    assert reason in reason_against(SimpleNamespace(config=config))


def test_adapters_with_tokens_of_their_own():
    peft = SimpleNamespace(active_peft_config=SimpleNamespace(is_prompt_learning=True), config=None)
    assert reason_against(peft) == "its adapter puts tokens of its own before the prompt"
