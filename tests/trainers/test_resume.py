# SPDX-License-Identifier: Apache-2.0
"""Checkpoints, resuming, and what has to be right after it: weights, prompts, the KL weight."""

import pytest
import torch
from tiny_models import make_trainer, options, parity_reward, rows, step_logs
from transformers import AutoModelForImageTextToText
from trl import GRPOTrainer
from trl.trainer.utils import RepeatSampler

from open_r1_vision import checkpoints
from open_r1_vision.trainers import VisionGRPOTrainer
from open_r1_vision.trainers.sampling import EpochSampler

#: 0.01 + 0.03 (1 + cos(pi step / 4)) / 2 for steps 0 to 3
COSINE = [0.04, 0.0356066, 0.025, 0.0143934]


@pytest.fixture
def run_of_two_epochs(any_model, tmp_path):
    """`run_of_two_epochs()` builds a trainer of 4 steps in 2 epochs that saves after each, in the same folder."""

    def build(**settings):
        settings = {"save_strategy": "steps", "save_steps": 1, **settings}
        settings |= {"max_steps": -1, "num_train_epochs": 2}
        schedule = {"beta": 0.04, "beta_floor": 0.01, "beta_schedule": "cosine"}
        args = options(tmp_path, **schedule, **settings)
        return make_trainer(VisionGRPOTrainer, any_model, args, rows(1, 0, 2, 1))

    return build


def test_kl_weight_and_resume_over_two_epochs(run_of_two_epochs, tmp_path):
    whole = run_of_two_epochs()
    used = []
    compute = whole._compute_loss
    whole._compute_loss = lambda model, inputs: (used.append(whole.beta), compute(model, inputs))[1]
    whole.train()
    assert used == pytest.approx(COSINE, abs=1e-7)
    assert [weight for (weight,) in step_logs(whole, "kl_weight")] == pytest.approx(COSINE, abs=1e-7)
    names = ("kl_weight", "loss", "grad_norm", "kl", "reward", "epoch")
    # between the epochs, and within the second
    for step in (2, 3):
        resumed = run_of_two_epochs()
        resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
        assert step_logs(resumed, *names) == step_logs(whole, *names)
        for name, weight in whole.model.state_dict().items():
            assert torch.equal(weight, resumed.model.state_dict()[name]), name


@pytest.mark.parametrize("shuffle", [True, False])
def test_orders_of_the_epochs_are_the_stock_samplers(shuffle):
    settings = {"mini_repeat_count": 2, "batch_size": 3, "repeat_count": 2, "shuffle": shuffle, "seed": 5}
    stock = RepeatSampler(range(12), **settings)
    orders = [list(stock) for _ in range(3)]
    assert (orders[0] != orders[1]) == shuffle
    epoch = 0
    ours = EpochSampler(stock, lambda: epoch)
    for epoch in (2, 0, 1, 1):
        assert list(ours) == orders[epoch]


def test_a_stock_resume_leaves_weights_out(tiny_model, tmp_path):
    def resume(trainer_class):
        args = options(tmp_path / trainer_class.__name__, max_steps=1, save_strategy="steps", save_steps=1)
        trained = make_trainer(trainer_class, tiny_model, args, rows(1, 1))
        trained.train()
        resumed = make_trainer(trainer_class, tiny_model, args, rows(1, 1))
        resumed._load_from_checkpoint(f"{args.output_dir}/checkpoint-1")
        weights = resumed.model.state_dict()
        return [torch.equal(weight, weights[name]) for name, weight in trained.model.state_dict().items()]

    assert not all(resume(GRPOTrainer))
    assert all(resume(VisionGRPOTrainer))


def test_rotation_waits_for_the_marker(run_of_two_epochs, tmp_path, monkeypatch):
    seen = []
    mark = checkpoints.mark_complete

    def watch(checkpoint):
        before = [path.name for path in checkpoints.list_checkpoints(tmp_path)]
        seen.append((checkpoint.name, (checkpoint / "trainer_state.json").is_file(), before))
        mark(checkpoint)

    monkeypatch.setattr(checkpoints, "mark_complete", watch)
    trainer = run_of_two_epochs(save_total_limit=1)
    trainer.train()
    names = [f"checkpoint-{step}" for step in range(1, 5)]
    assert seen == [
        (names[0], True, names[:1]),
        (names[1], True, names[:2]),
        (names[2], True, names[1:3]),
        (names[3], True, names[2:4]),
    ]
    assert checkpoints.list_checkpoints(tmp_path) == [tmp_path / names[3]]
    assert checkpoints.find_damage(tmp_path / names[3]) is None
    assert trainer.args.save_total_limit == 1


def test_the_best_checkpoint_outlives_rotation(tiny_model, tmp_path):
    args = options(
        tmp_path,
        save_strategy="steps",
        save_steps=1,
        max_steps=3,
        eval_strategy="steps",
        eval_steps=1,
        per_device_eval_batch_size=2,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_falling_reward",
        greater_is_better=True,
    )
    calls = []

    def falling_reward(completions, completion_ids, log_metric, **columns):
        calls.append(1)
        log_metric("falling_reward", -len(calls))
        return parity_reward(completions, completion_ids)

    trainer = make_trainer(VisionGRPOTrainer, tiny_model, args, rows(1, 1), falling_reward, eval_dataset=rows(1))
    trainer.train()
    assert [path.name for path in checkpoints.list_checkpoints(tmp_path)] == ["checkpoint-1", "checkpoint-3"]
    best = AutoModelForImageTextToText.from_pretrained(tmp_path / "checkpoint-1").state_dict()
    assert all(torch.equal(weight, best[name]) for name, weight in trainer.model.state_dict().items())
