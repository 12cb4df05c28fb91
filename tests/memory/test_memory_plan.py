# SPDX-License-Identifier: Apache-2.0
"""From recipes to the numbers that memory depends on."""

import json
from pathlib import Path

import pytest

from open_r1_vision.arguments import read_recipe
from open_r1_vision.memory import read_plan, read_shape
from open_r1_vision.memory.estimate import GIB
from open_r1_vision.memory.plan import read_deepspeed

ROOT = Path(__file__).parent.parent.parent
CRO = ROOT / "recipes" / "qwen2_5_vl_7b" / "racro_cro.yaml"


def plan(*words, gpus=8, recipe=CRO, overlay="8_gpus"):
    overlays = [str(ROOT / "recipes" / "hardware" / f"{overlay}.yaml")] if overlay else []
    return read_plan(read_recipe(["--config", str(recipe), *overlays, *words]), gpus)


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)  # overlays name DeepSpeed's files from there


def test_a_recipe_on_eight_gpus():
    made = plan()
    setup = made.setup
    assert (made.model, made.shape) == (
        "Qwen/Qwen2.5-VL-7B-Instruct",
        read_shape("Qwen/Qwen2.5-VL-7B-Instruct"),
    )
    # 128 prompts x 4 completions on 8 GPUs: 64 each, 4 at a time; two steps of one sampling
    assert (made.batch.per_device, made.batch.accumulation) == (4, 16)
    assert (setup.completions, setup.num_generations, setup.sampled) == (4, 4, 0)
    # 2048 x 2048 pixels in tokens of 28 x 28
    assert (setup.prompt_tokens, setup.image_tokens, setup.completion_tokens) == (8192, 5349, 8192)
    assert (setup.zero_stage, setup.offload_optimizer, setup.weight_bytes) == (3, False, 2)
    assert setup.has_reference and setup.shares_prompts and setup.has_checkpoints
    assert (setup.with_vllm, setup.vllm_share, setup.vllm_sleeps) == (True, 0.4, True)
    assert setup.gpu_bytes == 80 * GIB and setup.trained == made.shape.parameters
    assert made.longest == 16384
    assert (str(made.output_dir), made.checkpoints_kept) == ("runs/qwen2_5_vl_7b/racro_cro", 2)


def test_transformers_samples_all_steps_of_a_sampling_at_once():
    assert plan("--use_vllm", "false").setup.sampled == 4 * 16 * 2
    assert plan("--use_vllm", "false", "--updates_per_sampling", "1").setup.sampled == 4 * 16
    small = plan(overlay="1_gpu_24gb", gpus=1).setup
    assert (small.completions, small.sampled) == (2, 16)


def test_hints_at_all_levels_are_as_many_completions():
    hints = ROOT / "recipes" / "qwen2_vl_7b" / "hint_grpo.yaml"
    once = plan("--use_vllm", "false", recipe=hints).setup.sampled
    assert plan("--use_vllm", "false", "--hint_mode", "parallel", recipe=hints).setup.sampled == 3 * once


def test_an_adapter_needs_no_reference_model():
    made = plan(overlay="1_gpu_lora", gpus=1)
    assert not made.setup.has_reference and made.setup.zero_stage == 0
    assert 0 < made.setup.trained < 0.05 * made.shape.parameters


def test_no_kl_term_no_reference_model():
    assert not plan("--beta", "0").setup.has_reference


def test_images_are_no_larger_than_prompts():
    setup = plan("--max_prompt_tokens", "1000").setup
    assert (setup.prompt_tokens, setup.image_tokens) == (1000, 1000)


def test_prompts_that_nobody_limits(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"extends: {CRO}\nmax_prompt_tokens: null\nmax_pixels: null\n")
    setup = plan(recipe=recipe).setup
    assert (setup.image_tokens, setup.prompt_tokens) == (16384, 16384 + 1024)


def test_completions_that_the_gpus_cannot_share():
    with pytest.raises(ValueError, match="512 completions per step can't be shared evenly by 7 processes"):
        plan(gpus=7)


def test_deepspeed_as_path_json_or_mapping(tmp_path):
    settings = {"zero_optimization": {"stage": 2, "reduce_bucket_size": 1000, "offload_optimizer": {"device": "cpu"}}}
    path = tmp_path / "zero.json"
    path.write_text(json.dumps(settings))
    expected = {"zero_stage": 2, "offload_optimizer": True, "offload_parameters": False, "reduce_bucket": 1000}
    assert read_deepspeed(str(path)) == read_deepspeed(json.dumps(settings)) == read_deepspeed(settings) == expected
    assert read_deepspeed(None) == {}
    offload = read_deepspeed(str(ROOT / "recipes" / "deepspeed" / "zero3_offload.json"))
    assert (offload["zero_stage"], offload["offload_optimizer"], offload["offload_parameters"]) == (3, True, True)
    # `auto` and none at all are DeepSpeed's default
    assert offload["reduce_bucket"] == 500_000_000
    assert not read_deepspeed({"zero_optimization": {"stage": 3, "offload_param": {"device": "none"}}})[
        "offload_parameters"
    ]


def test_deepspeed_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match="'nowhere.json', but there is no such file"):
        read_deepspeed("nowhere.json")
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    with pytest.raises(ValueError, match=r"broken.json', which is not JSON"):
        read_deepspeed(str(broken))


def test_a_typing_error_is_found():
    with pytest.raises(ValueError, match="Unknown key `max_completion_lenght`"):
        plan("--max_completion_lenght", "3")
