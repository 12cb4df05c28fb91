# SPDX-License-Identifier: Apache-2.0
"""Colocated vLLM, by a stand-in for TRL's backend: what it is given, and when its image features are forgotten.

tests/vllm has the real one.
"""

import functools
from types import SimpleNamespace

import pytest
import torch
from tiny_models import END, IDS, VISION_IDS, build_tokenizer, make_trainer, options, recording, rows
from trl import GRPOTrainer
from trl.generation import vllm_generation
from trl.trainer import grpo_trainer

from open_r1_vision.models import collapse_runs
from open_r1_vision.trainers import HintGRPOConfig, HintGRPOTrainer, VisionGRPOTrainer, colocated_vllm
from open_r1_vision.vllm_support import engine

IMAGE = IDS["<|image_pad|>"]


class FakeVLLM:
    """Stands for trl's VLLMGeneration: replies "AB", and keeps what it is asked and in which order."""

    reply = (32, 33, END)

    def __init__(self, **kwargs):
        self.__dict__.update(kwargs)
        self.events, self.prompts, self.images, self.settings, self.requests = [], [], [], [], []
        self._init_vllm()

    def _init_vllm(self):
        self.llm = SimpleNamespace(
            llm_engine=SimpleNamespace(reset_encoder_cache=lambda: self.events.append("reset")),
            model_config=SimpleNamespace(dtype=torch.float32),
        )

    def sync_weights(self):
        self.events.append("sync")

    def generate(self, prompts, images, num_generations, profiler):
        """As vLLM does, it makes as many image tokens of each placeholder as its image has: 4."""
        self.events.append("generate")
        self.prompts.append(prompts)
        self.images.append(images)
        self.settings.append((self.temperature, self.top_k, self.max_completion_length))
        self.requests.append(self.generation_kwargs)
        read = [[token for token in ids for _ in range(4 if token == IMAGE else 1)] for ids in prompts]
        banned = (self.generation_kwargs or {}).get("logprob_token_ids", ())
        # the ban leaves nothing of these
        values = [-5.0, *[-1000.0] * len(banned)]
        return (
            read,
            [list(self.reply)] * len(prompts),
            [[values] * len(self.reply)] * len(prompts),
            [[[token, *banned] for token in self.reply]] * len(prompts),
        )


def stand_in(monkeypatch):
    """Put FakeVLLM in the place of TRL's backend, on a machine that may have no vLLM, and leave the check out."""
    monkeypatch.setattr(grpo_trainer, "VLLMGeneration", FakeVLLM)
    monkeypatch.setattr(vllm_generation, "LLM", None, raising=False)
    monkeypatch.setattr(engine, "prepare_engine", lambda: None)
    monkeypatch.setattr(colocated_vllm, "check_installation", lambda *asked: None)
    monkeypatch.setattr(colocated_vllm.ColocatedVLLM, "measure_vllm_gap", lambda self: 0.0)


@pytest.fixture
def make_with_vllm(monkeypatch, any_model, tmp_path):
    stand_in(monkeypatch)

    def build(trainer_class, dataset, config_class=None, gate=None, **settings):
        # what the stand-in says of its log-probabilities is no gap to judge
        defaults = {"use_vllm": True, "vllm_mode": "colocate", "vllm_max_logprob_gap": 100.0}
        args = options(tmp_path, config_class, **{**defaults, **settings})
        extra = {"gate": gate} if gate else {}
        return make_trainer(recording(trainer_class), any_model, args, dataset, **extra)

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
    assert ours.vllm_generation.events == ["sync", "reset", "generate"] * 2


def test_vllm_goes_on_from_hints(make_with_vllm):
    """Placeholders stay single, the hint stands at the end, and its tokens get log-probability 0, outside the loss."""
    dataset = rows(2, 0).add_column("reasoning_steps", [["One.", "Two.", "Three."]] * 2)

    def gate(response_start, problem, **columns):
        return [
            float("please" not in question or bool(start))
            for start, question in zip(response_start, problem, strict=True)
        ]

    build = functools.partial(make_with_vllm, config_class=HintGRPOConfig, shuffle_dataset=False, max_steps=1)
    trainer = build(HintGRPOTrainer, dataset, max_completion_length=6, gate=gate)
    trainer.train()
    fake = trainer.vllm_generation
    assert fake.events == ["sync", "reset", "generate", "generate"]
    hint = build_tokenizer()("<think>One.")["input_ids"]
    assert fake.prompts[1] == [ids + hint for ids in fake.prompts[0][2:]]
    (output,) = trainer.outputs
    reply = [32, 33, END]
    padding = [256] * len(hint)
    assert output["completion_ids"].tolist() == [reply + padding] * 2 + [hint + reply] * 2
    assert output["sampling_per_token_logps"][2].tolist() == [0.0] * len(hint) + [-5.0] * 3
    loss = output["completion_mask"] * output["tool_mask"]
    assert loss.tolist() == [[1] * 3 + [0] * len(hint)] * 2 + [[0] * len(hint) + [1] * 3] * 2

    # a context that has room for level 1 of the longer row, not for level 2
    level_1 = max(map(len, trainer.outputs[0]["prompt_mask"])) + len(hint) + 6
    trainer = build(
        HintGRPOTrainer,
        dataset,
        max_completion_length=6,
        gate=lambda completions, **_: [0.0] * len(completions),
        vllm_max_model_length=level_1,
    )
    trainer.train()
    assert trainer.state.log_history[0]["hints/too_long"] > 0
    assert [len(prompts) for prompts in trainer.vllm_generation.prompts] == [4, 4, 2]


def test_vllm_never_samples_vision_tokens(make_with_vllm):
    assert make_with_vllm(GRPOTrainer, rows(1)).vllm_generation.generation_kwargs is None
    ours = make_with_vllm(VisionGRPOTrainer, rows(1), generation_kwargs={"logit_bias": {33: 2.0}, "seed": 1})
    bias = dict.fromkeys(VISION_IDS, -100.0)
    asked = {"logprobs": 4, "logprob_token_ids": sorted(VISION_IDS)}
    assert ours.vllm_generation.generation_kwargs == {"logit_bias": {**bias, 33: 2.0}, "seed": 1, **asked}


def test_greedy_replies_of_vllm(make_with_vllm):
    asked = {"logit_bias": {33: 2.0}, "frequency_penalty": 1.0, "stop_token_ids": [40]}
    uncorrected = {"vllm_importance_sampling_correction": False, "generation_kwargs": asked}
    trainer = make_with_vllm(VisionGRPOTrainer, rows(1), temperature=0.9, top_k=5, **uncorrected)
    fake = trainer.vllm_generation
    of_sampling = fake.generation_kwargs
    chat = [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
    assert trainer.generate_greedy([chat, chat], 3) == ["AB", "AB"]
    assert fake.settings == [(0.0, 0, 3)]
    # what bends sampling is left out, for the reply of a reader isn't a sample
    bans = {"logit_bias": dict.fromkeys(VISION_IDS, -100.0), "logprobs": 4, "logprob_token_ids": sorted(VISION_IDS)}
    assert fake.requests == [{**bans, "stop_token_ids": [40]}]
    assert fake.generation_kwargs is of_sampling
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
