# SPDX-License-Identifier: Apache-2.0
"""Colocated vLLM, by a stand-in for TRL's backend: what it is given, and when its image features are forgotten."""

from types import SimpleNamespace

import pytest
from tiny_models import END, IDS, VISION_IDS, make_trainer, options, recording, rows
from trl import GRPOTrainer
from trl.trainer import grpo_trainer

from open_r1_vision.trainers import VisionGRPOTrainer
from open_r1_vision.trainers.base import collapse_runs

IMAGE = IDS["<|image_pad|>"]


class FakeVLLM:
    """Stands for trl's VLLMGeneration: replies "AB", and keeps what it is asked and in which order."""

    def __init__(self, **kwargs):
        for name in ("mode", "generation_kwargs", "temperature", "top_p", "top_k", "min_p", "repetition_penalty"):
            setattr(self, name, kwargs[name])
        self.max_completion_length = kwargs["max_completion_length"]
        self.events, self.prompts, self.images, self.settings = [], [], [], []
        engine = SimpleNamespace(reset_encoder_cache=lambda: self.events.append("reset"))
        self.llm = SimpleNamespace(llm_engine=engine)

    def sync_weights(self):
        self.events.append("sync")

    def generate(self, prompts, images, num_generations, profiler):
        self.events.append("generate")
        self.prompts.append(prompts)
        self.images.append(images)
        self.settings.append((self.temperature, self.top_k, self.max_completion_length))
        return prompts, [[32, 33, END]] * len(prompts), [[[-5.0]] * 3] * len(prompts), None


@pytest.fixture
def make_with_vllm(monkeypatch, any_model, tmp_path):
    monkeypatch.setattr(grpo_trainer, "VLLMGeneration", FakeVLLM)

    def build(trainer_class, dataset, **settings):
        args = options(tmp_path, use_vllm=True, vllm_mode="colocate", **settings)
        return make_trainer(recording(trainer_class), any_model, args, dataset)

    return build


def test_vllm_gets_each_placeholder_once(make_with_vllm):
    dataset = rows(2, 0)
    stock = make_with_vllm(GRPOTrainer, rows(2, 2), max_steps=1)
    stock.train()
    assert [ids.count(IMAGE) for ids in stock.vllm_generation.prompts[0]] == [8] * 4
    ours = make_with_vllm(VisionGRPOTrainer, dataset, max_steps=1)
    ours.train()
    fake = ours.vllm_generation
    assert sorted(ids.count(IMAGE) for ids in fake.prompts[0]) == [0, 0, 2, 2]
    assert [len(images or []) for images in fake.images[0]] == [ids.count(IMAGE) for ids in fake.prompts[0]]
    # the loss is computed on the whole prompt
    assert sorted((ours.outputs[0]["prompt_ids"] == IMAGE).sum(dim=1).tolist()) == [0, 0, 8, 8]
    assert ours.outputs[0]["completion_ids"].tolist() == [[32, 33, END]] * 4


def test_vllm_forgets_image_features_when_the_weights_change(make_with_vllm):
    stock = make_with_vllm(GRPOTrainer, rows(1, 1))
    stock.train()
    assert stock.vllm_generation.events == ["sync", "generate"] * 2
    ours = make_with_vllm(VisionGRPOTrainer, rows(1, 1))
    ours.train()
    assert ours.vllm_generation.events == ["reset", "sync", "generate"] * 2


def test_vllm_never_samples_vision_tokens(make_with_vllm):
    assert make_with_vllm(GRPOTrainer, rows(1)).vllm_generation.generation_kwargs is None
    ours = make_with_vllm(VisionGRPOTrainer, rows(1), generation_kwargs={"logit_bias": {33: 2.0}, "seed": 1})
    bias = dict.fromkeys(VISION_IDS, -100.0)
    assert ours.vllm_generation.generation_kwargs == {"logit_bias": {**bias, 33: 2.0}, "seed": 1}


def test_greedy_replies_of_vllm(make_with_vllm):
    trainer = make_with_vllm(VisionGRPOTrainer, rows(1), temperature=0.9, top_k=5)
    chat = [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
    assert trainer.generate_greedy([chat, chat], 3) == ["AB", "AB"]
    fake = trainer.vllm_generation
    assert fake.settings == [(0.0, 0, 3)]
    assert (fake.temperature, fake.top_k, fake.max_completion_length) == (0.9, 5, 6)


@pytest.mark.parametrize(
    ("ids", "token", "expected"),
    [
        ([7, 5, 5, 5, 8], 5, [7, 5, 8]),
        ([5, 5, 7, 5, 5], 5, [5, 7, 5]),
        ([7, 7, 8], 5, [7, 7, 8]),
        ([7, 7], None, [7, 7]),
        ([], 5, []),
    ],
)
def test_collapse_runs(ids, token, expected):
    assert collapse_runs(ids, token) == expected
