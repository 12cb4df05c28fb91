# SPDX-License-Identifier: Apache-2.0
"""Updates that leave completions without signal out, against updates over all completions."""

import copy
import re
from pathlib import Path

import pytest
import torch
import transformers
from peft import LoraConfig
from text_model import save_text_model
from tiny_models import make_trainer, options, recording, rows
from trl import GRPOTrainer

from open_r1_vision.trainers import VisionGRPOTrainer
from open_r1_vision.trainers.without_signal import of_equal_groups, select_rows

NAMES = ("loss", "grad_norm", "reward", "completions/mean_length")
#: Four groups of four in four micro-batches; the noise of Adam's division is kept small, and weights decay.
SETTINGS = {
    "per_device_train_batch_size": 4,
    "num_generations": 4,
    "gradient_accumulation_steps": 4,
    "max_steps": 3,
    "learning_rate": 1e-3,
    "adam_epsilon": 1e-3,
    "weight_decay": 0.1,
    "max_grad_norm": 100.0,
}
LOSSES = ("grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo")


def half_reward(completions, completion_ids, problem, **columns):
    """No signal where the question says please once or twice; of the others, all have some."""
    return [
        0.25 if 0 < question.count("please") < 3 else sum(ids) % 7 / 7
        for ids, question in zip(completion_ids, problem, strict=True)
    ]


def no_signal(completions, **columns):
    return [0.25] * len(completions)


def watching(trainer_class):
    """The trainer, counting the tokens and rows that its model sees in updates."""

    class Watching(trainer_class):
        seen = ()

        def _compute_loss(self, model, inputs):
            if not self.seen:
                self.model.get_decoder().register_forward_pre_hook(self._note, with_kwargs=True)
            self.seen = (*self.seen, [])
            return super()._compute_loss(model, inputs)

        def _note(self, module, args, kwargs):
            given = kwargs["input_ids"] if kwargs.get("inputs_embeds") is None else kwargs["inputs_embeds"]
            if torch.is_grad_enabled():
                self.seen[-1].append(tuple(given.shape[:2]))

    return Watching


def train(model, folder, dataset, reward=half_reward, kwargs=None, trainer_class=VisionGRPOTrainer, **settings):
    args = options(folder, **{**SETTINGS, **settings})
    trainer = make_trainer(watching(trainer_class), model, args, dataset, reward, **(kwargs or {}))
    trainer.train()
    return trainer


def entries(trainer):
    return [entry for entry in trainer.state.log_history if "step_time" in entry]


def weights(trainer):
    return {name: value.detach() for name, value in trainer.model.named_parameters()}


def compare(*args, **settings):
    """Train with and without; gives both trainers."""
    on, off = train(*args, **settings), train(*args, skip_without_signal=False, **settings)
    for ours, wanted in zip(entries(on), entries(off), strict=True):
        expected = [wanted[name] for name in NAMES if name in wanted]
        assert [ours[name] for name in NAMES if name in ours] == pytest.approx(expected, rel=1e-4, abs=1e-7)
        assert "update/rows_skipped" not in wanted
    expected = weights(off)
    for name, value in weights(on).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=2e-6)
    return on, off


@pytest.fixture(scope="module")
def text_model(tmp_path_factory):
    return save_text_model(tmp_path_factory.mktemp("text"))


def text_run(model, *counts):
    """Dataset and processor of a language model."""
    dataset = rows(*counts).remove_columns(["images", "prompt"])
    chats = [[{"role": "user", "content": text}] for text in dataset["problem"]]
    return dataset.add_column("prompt", chats), {"processing_class": transformers.AutoTokenizer.from_pretrained(model)}


# ---- the same training


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("loss_type", LOSSES)
def test_the_same_training_for_each_loss(text_model, tmp_path, loss_type, level):
    dataset, kwargs = text_run(text_model, 0, 0, 0, 0)
    settings = {"loss_type": loss_type, "importance_sampling_level": level}
    on, _ = compare(text_model, tmp_path, dataset, kwargs=kwargs, **settings)
    assert [entry["update/rows_skipped"] for entry in entries(on)] == [0.5, 0.5, 0.5]
    assert min(entry["grad_norm"] for entry in entries(on)) > 1e-3


@pytest.mark.parametrize("loss_type", LOSSES)
def test_the_same_training_with_old_log_probabilities(text_model, tmp_path, loss_type):
    """Two iterations of a sampling that two optimizer steps are made of, with ratios that clip."""
    dataset, kwargs = text_run(text_model, 0, 0, 0, 0)
    settings = {"loss_type": loss_type, "num_iterations": 2, "steps_per_generation": 4, "max_steps": 5}
    settings |= {"gradient_accumulation_steps": 2, "learning_rate": 1e-2, "epsilon": 0.01}
    on, off = compare(text_model, tmp_path, dataset, kwargs=kwargs, **settings)
    # which of the two steps gets which groups is TRL's shuffle
    assert sum(entry["update/rows_skipped"] for entry in entries(on)[:2]) == 1.0
    if loss_type in ("grpo", "dapo"):
        clipped = [entry["clip_ratio/region_mean"] for entry in entries(on)]
        assert clipped == pytest.approx([entry["clip_ratio/region_mean"] for entry in entries(off)], abs=1e-6)
        assert max(clipped) > 0


@pytest.mark.parametrize("shared_prefix", [True, False])
@pytest.mark.parametrize("counts", [(1, 0, 2, 1), (0, 1, 1, 0), (1, 1, 1, 1)])
def test_the_same_training_with_images(tiny_model, tmp_path, counts, shared_prefix):
    """Rows 1 and 2 have no signal: also where no other row has an image, and the vision tower no gradient but zero."""
    settings = {"shared_prefix": shared_prefix, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 2}
    on, _ = compare(tiny_model, tmp_path, rows(*counts), **settings)
    # a reward may also be the mean of its group
    assert all(0.5 <= entry["update/rows_skipped"] < 0.7 for entry in entries(on))


def test_the_same_training_for_each_architecture(any_model, tmp_path):
    compare(any_model, tmp_path, rows(0, 2, 1, 1), per_device_train_batch_size=16, gradient_accumulation_steps=1)


@pytest.mark.parametrize("counts", [(1, 2), (0, 0)])
def test_steps_without_any_signal(tiny_model, tmp_path, counts):
    """Weights still decay, and Adam's momentum moves them: those of the vision tower only where there are images."""

    class Second(VisionGRPOTrainer):
        """Has a signal in the first step alone."""

        def _generate_and_score_completions(self, inputs):
            output = super()._generate_and_score_completions(inputs)
            if self.state.global_step:
                output["advantages"].zero_()
            return output

    settings = {"gradient_accumulation_steps": 2, "learning_rate": 1e-2, "trainer_class": Second}
    dataset = rows(*counts)
    on, _ = compare(
        tiny_model, tmp_path, dataset, lambda completion_ids, **_: [sum(ids) % 7 for ids in completion_ids], **settings
    )
    first, second, third = entries(on)
    assert (second["update/rows_skipped"], second["loss"], second["grad_norm"]) == (1, 0, 0)
    assert first["entropy"] > 0 and "entropy" not in second
    vision = [name for name, value in weights(on).items() if ".visual." in name]
    before = train(tiny_model, tmp_path, dataset, max_steps=1, **settings)
    moved = [not torch.equal(weights(on)[name], weights(before)[name]) for name in vision]
    assert vision and set(moved) == {counts != (0, 0)}


def test_an_image_for_nothing_in_half_precision(tiny_model, tmp_path):
    """The sum of its features is more than a float16 can hold."""
    trainer = make_trainer(VisionGRPOTrainer, tiny_model, options(tmp_path), rows(1, 1))
    model, ids = trainer.model.half(), torch.tensor([[65, 66, 67]])
    with torch.no_grad():
        model.base_model.visual.merger.mlp[2].bias.fill_(500.0)  # 4 tokens of 64 features
    trainer.runs_vision_tower_for_nothing = True
    passed = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids)
    passed.logits.float().sum().backward()
    assert passed.logits.isfinite().all()
    assert model.base_model.visual.merger.mlp[2].bias.grad.count_nonzero() == 0
    trainer.runs_vision_tower_for_nothing = False
    plain = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids)
    assert torch.equal(passed.logits, plain.logits)


@pytest.mark.parametrize(
    "settings",
    [
        {"gradient_checkpointing": True},
        {"kwargs": {"peft_config": LoraConfig(r=4, target_modules=["q_proj", "v_proj", "qkv"])}},
        {"mask_truncated_completions": True, "max_completion_length": 40},
        {"scale_rewards": "batch"},
        {"multi_objective_aggregation": "normalize_then_sum"},
        {"delta": 2.0, "off_policy_mask_threshold": 0.1},
    ],
    ids=["checkpointing", "lora", "truncated", "batch", "gdpo", "off policy"],
)
def test_the_same_training_with(tiny_model, tmp_path, settings):
    on, _ = compare(tiny_model, tmp_path, rows(1, 0, 1, 1), **settings)
    assert min(entry["update/rows_skipped"] for entry in entries(on)) >= 0.5


# ---- one batch


def gradients(trainer, batch):
    trainer.model.zero_grad()
    trainer.model.train()
    loss = trainer._compute_loss(trainer.model, copy.copy(batch))
    loss.backward()
    return loss, [parameter.grad for parameter in trainer.model.parameters()]


def batch_of(trainer, advantages):
    torch.manual_seed(0)
    num_rows, columns = len(advantages), 5
    ids = torch.randint(0, 250, (num_rows, 7 + columns))
    mask = torch.ones(num_rows, columns, dtype=torch.long)
    mask[1, 3:] = 0
    return {
        "prompt_ids": ids[:, :7],
        "prompt_mask": torch.ones(num_rows, 7, dtype=torch.long),
        "completion_ids": ids[:, 7:],
        "completion_mask": mask,
        "advantages": torch.tensor(advantages),
        "num_items_in_batch": mask.sum(),
    }


@pytest.mark.parametrize("loss_type", LOSSES)
def test_the_correction_for_vllm(text_model, tmp_path, loss_type):
    dataset, kwargs = text_run(text_model, 0, 0)
    trainer = make_trainer(VisionGRPOTrainer, text_model, options(tmp_path, loss_type=loss_type), dataset, **kwargs)
    trainer.use_vllm = trainer.vllm_importance_sampling_correction = True
    trainer.current_gradient_accumulation_steps = 1
    batch = batch_of(trainer, [1.0, 0.0, -0.5, 0.0])
    batch["old_per_token_logps"] = -5.6 + 0.1 * torch.randn(4, 5)
    batch["importance_sampling_ratio"] = torch.rand(4, 5) if loss_type == "vespo" else torch.rand(4, 1)
    loss, found = gradients(trainer, batch)
    trainer._skips_rows = False
    wanted, expected = gradients(trainer, batch)
    torch.testing.assert_close(loss, wanted)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)
    assert expected[0].abs().max() > 1e-5


def test_ratios_that_overflow(text_model, tmp_path):
    """TRL multiplies an infinite ratio by an advantage of zero, and nothing is a number any more."""
    dataset, kwargs = text_run(text_model, 0, 0)
    trainer = make_trainer(VisionGRPOTrainer, text_model, options(tmp_path, loss_type="cispo"), dataset, **kwargs)
    trainer.current_gradient_accumulation_steps = 1
    batch = batch_of(trainer, [1.0, 0.0])
    batch["old_per_token_logps"] = torch.tensor([[-5.5] * 5, [-200.0] * 5])
    loss, _ = gradients(trainer, batch)
    assert loss.isfinite()


def test_advantages_of_tokens(text_model, tmp_path):
    dataset, kwargs = text_run(text_model, 0, 0)
    trainer = make_trainer(VisionGRPOTrainer, text_model, options(tmp_path), dataset, **kwargs)
    trainer.current_gradient_accumulation_steps = 1
    table = [[0.0, 0.0, 1.0, 0.0, 0.0], [0.0] * 5, [0.5] * 5]
    batch = batch_of(trainer, table)
    loss, found = gradients(trainer, batch)
    assert trainer._metrics["train"]["update/rows_skipped"] == [pytest.approx(1 / 3)]
    trainer._skips_rows = False
    wanted, expected = gradients(trainer, batch)
    torch.testing.assert_close(loss, wanted)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


# ---- what the model sees


def test_the_model_sees_rows_with_signal_only(tiny_model, tmp_path):
    """Rows 1 and 2 have none; their micro-batches send two tokens, the others' four completions."""
    settings = {"max_steps": 1, "shared_prefix": False, "shuffle_dataset": False}
    trainer = train(tiny_model, tmp_path, rows(1, 1, 1, 1), **settings)
    shapes = sorted(shape for (shape,) in trainer.seen)
    assert shapes[:2] == [(1, 2), (1, 2)]
    assert [shape[0] for shape in shapes[2:]] == [4, 4]
    everything = train(tiny_model, tmp_path, rows(1, 1, 1, 1), skip_without_signal=False, **settings)
    assert [shape[0] for (shape,) in everything.seen] == [4, 4, 4, 4]


def test_the_share_of_tokens_saved_is_of_rows_with_signal(tiny_model, tmp_path):
    saved = [
        [
            entry.get("shared_prefix/tokens_saved")
            for entry in entries(train(tiny_model, tmp_path, rows(*[1] * 4), reward))
        ]
        for reward in (half_reward, no_signal)
    ]
    assert min(saved[0]) > 0.4
    assert saved[1] == [None] * 3


def test_the_entropy_is_of_rows_with_signal(text_model, tmp_path):
    dataset, kwargs = text_run(text_model, 0, 0)
    trainer = make_trainer(VisionGRPOTrainer, text_model, options(tmp_path), dataset, **kwargs)
    trainer.current_gradient_accumulation_steps = 1
    batch = batch_of(trainer, [0.0, 1.0, 0.0])
    # what a hint gave is not in the loss
    batch["tool_mask"] = torch.tensor([[0, 0, 1, 1, 1]] * 3)
    gradients(trainer, batch)
    only = {name: value[1:2] if value.ndim else value for name, value in batch.items()}
    trainer._skips_rows = False
    gradients(trainer, only)
    found, expected = trainer._metrics["train"]["entropy"]
    assert found == pytest.approx(expected, rel=1e-5)


# ---- where it doesn't apply


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta": 0.04}, "beta is 0.04, so that the KL term moves the policy"),
        ({"entropy_coef": 0.01}, "the entropy bonus acts on all completions"),
        ({"use_adaptive_entropy": True}, "the entropy bonus acts on all completions"),
        ({"top_entropy_quantile": 0.2}, "the entropies of all completions decide"),
    ],
)
def test_what_looks_at_all_completions(tiny_model, tmp_path, settings, message):
    trainer = train(tiny_model, tmp_path, rows(1, 1, 1, 1), max_steps=1, **settings)
    assert "update/rows_skipped" not in entries(trainer)[0]
    assert [shape[1] > 2 for (shape,) in trainer.seen] == [True] * 4
    args = options(tmp_path, skip_without_signal=True, **settings)
    with pytest.raises(ValueError, match=message):
        make_trainer(VisionGRPOTrainer, tiny_model, args, rows(1, 1))


def test_a_kl_weight_that_falls_to_zero(tiny_model, tmp_path):
    """Rows are left out from the step on at which the weight is 0."""
    settings = {"beta": 0.1, "beta_schedule": "linear", "max_steps": 3}
    trainer = make_trainer(
        watching(VisionGRPOTrainer),
        tiny_model,
        options(tmp_path, **{**SETTINGS, **settings}),
        rows(1, 1, 1, 1),
        half_reward,
    )
    beta = iter([0.1, 0.05, 0.0])

    class Falling(transformers.TrainerCallback):
        def on_step_begin(self, *args, **kwargs):
            trainer.beta = next(beta)

    trainer.add_callback(Falling())
    trainer.train()
    assert [entry.get("update/rows_skipped") for entry in entries(trainer)] == [None, None, 0.5]


@pytest.mark.parametrize(("attribute", "message"), [("fsdp", "runs under FSDP"), ("torch_compile", "is compiled")])
def test_engines_that_cant_skip(tiny_model, tmp_path, attribute, message):
    trainer = make_trainer(VisionGRPOTrainer, tiny_model, options(tmp_path), rows(1, 1))
    if attribute == "fsdp":
        trainer.is_fsdp_enabled = True
    else:
        trainer.args.torch_compile = True
    trainer.choose_skipping()
    assert not trainer._skips_rows
    trainer.args.skip_without_signal = True
    with pytest.raises(ValueError, match=message):
        trainer.choose_skipping()


# ---- groups with equal rewards


@pytest.mark.parametrize("trainer_class", [GRPOTrainer, VisionGRPOTrainer])
@pytest.mark.parametrize("aggregation", ["sum_then_normalize", "normalize_then_sum"])
def test_equal_rewards_have_advantages_of_zero(text_model, tmp_path, trainer_class, aggregation):
    """Stock TRL finds 2e-4 for eight rewards of 0.3, and trains on it."""

    def tenths(completions, **columns):
        return [0.3] * 8

    dataset, kwargs = text_run(text_model, 0)
    settings = {"num_generations": 8, "per_device_train_batch_size": 8, "max_steps": 1}
    args = options(tmp_path, multi_objective_aggregation=aggregation, **settings)
    trainer = make_trainer(recording(trainer_class), text_model, args, dataset, tenths, **kwargs)
    trainer.train()
    advantages = trainer.outputs[0]["advantages"]
    if trainer_class is GRPOTrainer:
        assert aggregation != "sum_then_normalize" or advantages.abs().min() > 1e-5
    else:
        assert advantages.tolist() == list(trainer._logs["advantages"]) == [0.0] * 8


def test_groups_of_equal_rewards():
    nan = torch.nan
    rewards = torch.tensor([[0.3, 1], [0.3, 1], [0.3, 1], [0.4, 1], [nan, 1], [0.3, nan], [nan, nan], [nan, nan]])
    assert of_equal_groups(rewards, 2).tolist() == [True, True, False, False, True, True, True, True]
    assert of_equal_groups(rewards[:, :1], 4).tolist() == [False] * 4 + [True] * 4


# ---- rows


def test_rows_with_their_images():
    inputs = {
        "input_ids": torch.arange(6).view(3, 2),
        "num_images": [2, 0, 1],
        "image_grid_thw": torch.tensor([[1, 1, 2], [1, 1, 1], [1, 2, 1]]),
        "pixel_values": torch.arange(5.0)[:, None],
        "token_type_ids": None,
        "compute_entropy": True,
    }
    last = select_rows(inputs, [1, 2])
    assert last["input_ids"].tolist() == [[2, 3], [4, 5]]
    assert (last["num_images"], last["pixel_values"].flatten().tolist()) == ([0, 1], [3.0, 4.0])
    assert last["image_grid_thw"].tolist() == [[1, 2, 1]]
    assert last["compute_entropy"] is True and "token_type_ids" not in last
    assert select_rows(inputs, [1])["pixel_values"].shape == (0, 1)


def test_the_guides_figures_of_rounding(capsys):
    guide = (Path(__file__).parents[2] / "docs" / "performance.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    exec(code, {})
    assert capsys.readouterr().out.splitlines() == ["2 0% 0.0000", "4 0% 0.0000", "6 31% 0.0012", "8 47% 0.0024"]
    assert "47 % in groups of 8, to 31 % in groups of 6 and to none in groups of 2 or 4" in guide
