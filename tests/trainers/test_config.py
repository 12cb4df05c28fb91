# SPDX-License-Identifier: Apache-2.0
import dataclasses

import pytest
import torch
from trl import GRPOConfig

from open_r1_vision.trainers import CaptionGRPOConfig, HintCaptionGRPOConfig, VisionGRPOConfig

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")


@pytest.fixture
def config(tmp_path):
    """`config(**settings)` builds the options of the trainer of captions."""
    return lambda **settings: CaptionGRPOConfig(output_dir=str(tmp_path), report_to=[], **settings)


def test_prompts_per_step(config):
    args = config(prompts_per_step=4, num_generations=6, max_completions_per_device=8)
    assert (args.per_device_train_batch_size, args.gradient_accumulation_steps) == (8, 3)
    assert args.generation_batch_size == 24
    assert args.steps_per_generation == 3
    assert str(args.batch_plan).startswith("4 prompts x 6 completions = 24 completions per step")


def test_trls_own_settings_of_the_batch(config):
    args = config(per_device_train_batch_size=6, gradient_accumulation_steps=2, num_generations=3)
    assert args.batch_plan is None
    assert (args.per_device_train_batch_size, args.gradient_accumulation_steps) == (6, 2)


@pytest.mark.parametrize(
    ("name", "value"),
    [("gradient_accumulation_steps", 2), ("per_device_train_batch_size", 4), ("generation_batch_size", 16)],
)
def test_two_ways_to_set_the_batch(config, name, value):
    message = f"prompts_per_step and {name} are both set, but the first decides the second: remove {name}"
    with pytest.raises(ValueError, match=message):
        config(prompts_per_step=4, **{name: value})


def test_fewer_than_two_completions(config):
    with pytest.raises(ValueError, match="num_generations is 1, but GRPO compares .* at least 2"):
        config(prompts_per_step=4, num_generations=1)
    with pytest.raises(ValueError, match="at least 2 generations per prompt"):
        config(num_generations=1)


def test_uneven_share(config, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(
        ValueError, match="can't be shared evenly by 4 processes: set prompts_per_step to a multiple of 2"
    ):
        config(prompts_per_step=3, num_generations=2)


def test_floor_above_the_weight(config):
    with pytest.raises(ValueError, match="beta_floor is 0.1, but the weight falls from beta = 0.04"):
        config(beta=0.04, beta_floor=0.1, beta_schedule="cosine")


def test_schedule_without_a_kl_term(config):
    with pytest.raises(ValueError, match="beta_schedule is 'linear' but beta is 0, .* set beta above 0"):
        config(beta_schedule="linear")


def test_unknown_schedule(config):
    with pytest.raises(ValueError, match="Unknown beta_schedule 'step'"):
        config(beta=0.04, beta_schedule="step")


def test_numbers_that_yaml_reads_as_text(config):
    args = config(beta="4e-2", beta_floor="1e-4", beta_schedule="linear")
    assert (args.beta, args.beta_floor) == (0.04, 0.0001)


def test_a_gap_that_rounding_alone_makes(config):
    assert config(vllm_max_logprob_gap="1e-3").vllm_max_logprob_gap == 0.001
    with pytest.raises(ValueError, match="vllm_max_logprob_gap is 0, but rounding alone makes a gap: set it above 0"):
        config(vllm_max_logprob_gap=0)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"top_p": 0.9, "top_k": 50}, "top_p, top_k"),
        ({"min_p": 0.1}, "min_p"),
        ({"repetition_penalty": 1.1}, "repetition_penalty"),
        ({"generation_kwargs": {"top_p": 0.9, "seed": 1}}, "top_p"),
        ({"generation_kwargs": '{"bad_words": ["a"]}'}, "bad_words"),
        ({"vllm_structured_outputs_regex": "[ab]+"}, "structured_outputs_regex"),
    ],
)
def test_sampling_that_vllms_correction_would_punish(config, settings, named):
    message = rf"{named} bend what is sampled.*correction to false, or leave {named} out"
    with pytest.raises(ValueError, match=message):
        config(use_vllm=True, **settings)
    config(use_vllm=True, vllm_importance_sampling_correction=False, **settings)
    config(use_vllm=False, **settings)


def test_sampling_from_the_whole_distribution(config):
    harmless = {"seed": 1, "logit_bias": {7: -100.0}, "stop_token_ids": [3], "top_p": 1.0, "min_p": None}
    config(use_vllm=True, top_k=-1, temperature=0.7, generation_kwargs=harmless)


def test_reader_without_tokens(config):
    with pytest.raises(ValueError, match="reader_max_tokens is 0: a reader needs at least 1 token"):
        config(reader_max_tokens=0)


@without_gpu
def test_a_machine_without_gpu(config):
    args = config()
    assert args.use_cpu
    assert args.bf16 is False
    assert args.dataloader_pin_memory is False
    assert args.device.type == "cpu"
    assert config(bf16=True).bf16 is True


def test_defaults_are_trls(tmp_path):
    ours = VisionGRPOConfig.__dataclass_fields__
    for name, field in GRPOConfig.__dataclass_fields__.items():
        assert ours[name].default == field.default, name


def test_every_option_of_ours_has_a_help_text():
    fields = {item.name: item for item in dataclasses.fields(HintCaptionGRPOConfig)}
    own = fields.keys() - {item.name for item in dataclasses.fields(GRPOConfig)}
    assert len(own) == 31
    assert all(fields[name].metadata["help"] for name in own)
