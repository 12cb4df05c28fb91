# SPDX-License-Identifier: Apache-2.0
"""Stages in one process end where runs of their own end, and each begins anew from what the one before it saved."""

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file
from tiny_models import options, parity_reward, rows

from open_r1_vision.models import load_processor
from open_r1_vision.trainers import VisionGRPOTrainer
from open_r1_vision.trainers.curriculum import CurriculumGRPOTrainer, TrainStage


def stage(folder, **settings):
    args = options(folder, beta=0.1, max_steps=2, **settings)
    return TrainStage(args, [parity_reward], rows(1, 1, 1, 1))


def weights(folder):
    return load_file(folder / "final" / "model.safetensors")


def test_stages_end_as_runs_of_their_own_do(tiny_model, tmp_path):
    together = tmp_path / "together"
    trainer = CurriculumGRPOTrainer(
        tiny_model, [stage(together / "perceive"), stage(together / "reason", learning_rate=5e-3)]
    )
    outputs = trainer.train()
    assert [output.global_step for output in outputs] == [2, 2]

    alone, model = tmp_path / "alone", tiny_model
    for name, settings in (("perceive", {}), ("reason", {"learning_rate": 5e-3})):
        one = stage(alone / name, **settings)
        single = VisionGRPOTrainer(
            model, one.reward_funcs, one.args, train_dataset=one.train_dataset, processing_class=load_processor(model)
        )
        single.train()
        single.save_model(str(alone / name / "final"))
        single.processing_class.save_pretrained(str(alone / name / "final"))
        model = str(alone / name / "final")
    for name in ("perceive", "reason"):
        ours, theirs = weights(together / name), weights(alone / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    changed = [not torch.equal(weights(together / "perceive")[key], value) for key, value in ours.items()]
    assert any(changed)


def test_the_reference_is_the_stage_s_start(tiny_model, tmp_path):
    trainer = CurriculumGRPOTrainer(tiny_model, [stage(tmp_path / "a", learning_rate=1e-1), stage(tmp_path / "b")])
    trainer.train()
    start = weights(tmp_path / "a")
    reference = dict(trainer.ref_model.named_parameters())
    name = next(name for name in reference if name.endswith("layers.0.mlp.down_proj.weight") and "visual" not in name)
    (saved,) = [value for key, value in start.items() if key.endswith(name.split("language_model.")[-1])]
    torch.testing.assert_close(reference[name], saved, rtol=0, atol=0)
    assert load_processor(str(tmp_path / "b" / "final"))


def test_adapters_are_merged_before_the_next_stage_begins(tiny_model, tmp_path):
    stages = [stage(tmp_path / name, learning_rate=1e-1) for name in ("a", "b")]
    for one in stages:
        one.trainer_kwargs["peft_config"] = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    CurriculumGRPOTrainer(tiny_model, stages).train()
    before = {name: value.float() for name, value in load_file(f"{tiny_model}/model.safetensors").items()}
    for name in ("a", "b"):
        assert not (tmp_path / name / "final" / "adapter_config.json").exists()
        after = weights(tmp_path / name)
        assert after.keys() == before.keys()
        moved = {key for key, value in after.items() if not torch.equal(value.float(), before[key])}
        assert moved and all("q_proj.weight" in key for key in moved)
        # W + B A * alpha / r, with the adapter that lies beside it; of 8 and 2 by default and choice
        adapter = load_file(tmp_path / name / "adapter" / "adapter_model.safetensors")
        for key, low in adapter.items():
            if "lora_A" in key:
                (whole,) = [
                    one
                    for one in after
                    if one.split("layers.")[-1] == key.split("layers.")[-1].replace(".lora_A", "")
                    and "visual" not in one
                ]
                expected = before[whole] + 4.0 * adapter[key.replace("lora_A", "lora_B")] @ low
                torch.testing.assert_close(after[whole].float(), expected)
        before = {key: value.float() for key, value in after.items()}


def test_stages_that_can_not_be(tiny_model, tmp_path):
    with pytest.raises(ValueError, match="There are no stages"):
        CurriculumGRPOTrainer(tiny_model, [])
    with pytest.raises(ValueError, match="set an output_dir of its own"):
        CurriculumGRPOTrainer(tiny_model, [stage(tmp_path), stage(tmp_path)])
