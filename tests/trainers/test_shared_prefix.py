# SPDX-License-Identifier: Apache-2.0
"""Training with prompts that a group shares, against training with one prompt for each completion."""

import logging

import pytest
import torch
import transformers
from hinting import hint_options, hinted_rows
from peft import LoraConfig
from text_model import save_text_model
from tiny_models import VISION_IDS, make_trainer, options, rows, step_logs
from trl import GRPOConfig, GRPOTrainer

from open_r1_vision.models import load_processor
from open_r1_vision.trainers import HintGRPOTrainer, VisionGRPOTrainer
from open_r1_vision.trainers.shared_prefix import keep_groups_together

NAMES = ("loss", "grad_norm", "reward", "entropy", "kl", "completions/mean_length")
#: Two micro-batches of two groups of four a step; one row has no image, one has two.
SETTINGS = {
    "per_device_train_batch_size": 8,
    "num_generations": 4,
    "gradient_accumulation_steps": 2,
    "max_steps": 3,
    "beta": 0.04,
    "learning_rate": 1e-3,
}


def train(model, folder, dataset=None, trainer_class=VisionGRPOTrainer, make=make_trainer, kwargs=None, **settings):
    """Logs of the steps, and the share of tokens saved in each."""
    dataset = rows(1, 0, 2, 1, 1) if dataset is None else dataset
    trainer = make(trainer_class, model, options(folder, **{**SETTINGS, **settings}), dataset, **(kwargs or {}))
    trainer.train()
    entries = [entry for entry in trainer.state.log_history if "step_time" in entry]
    # a step without sampling has no reward
    logs = [tuple(entry[name] for name in NAMES if name in entry) for entry in entries]
    return logs, [entry.get("shared_prefix/tokens_saved") for entry in entries]


def compare(model, folder, **settings):
    """Train with shared prompts and without; gives the shares saved."""
    on, saved = train(model, folder, **settings)
    off, nothing = train(model, folder, shared_prefix=False, **settings)
    assert len(on) == len(off) == settings.get("max_steps", 3)
    for ours, wanted in zip(on, off, strict=True):
        assert ours == pytest.approx(wanted, rel=2e-4, abs=2e-6)
    assert set(nothing) == {None}
    return saved


def test_the_same_losses(any_model, tmp_path):
    saved = compare(any_model, tmp_path)
    assert all(0.4 < share < 0.75 for share in saved)


@pytest.mark.parametrize(
    ("settings", "least"),
    [
        ({"gradient_checkpointing": True}, 0.4),
        # groups in two halves
        ({"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}, 0.2),
        # the second micro-batch has parts of two groups
        ({"per_device_train_batch_size": 3, "gradient_accumulation_steps": 4}, 0.2),
        # log-probabilities of the policy that sampled are needed too
        ({"per_device_train_batch_size": 4, "steps_per_generation": 4, "learning_rate": 1e-4}, 0.4),
        # one completion in a micro-batch: nothing to share
        ({"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4, "max_steps": 1}, 0.0),
        # completions that were cut off are left out of the loss, and here that is all of them
        ({"mask_truncated_completions": True, "max_steps": 1}, 0.0),
    ],
    ids=["checkpointing", "halves", "thirds", "several updates", "single", "truncated"],
)
def test_the_same_losses_with(tiny_model, tmp_path, settings, least):
    saved = compare(tiny_model, tmp_path, **settings)
    assert all(share >= least for share in saved)


def test_a_model_that_another_trainer_had_before(tiny_model, tmp_path):
    """A notebook trains one model object again; the second run is that of a fresh copy of it."""
    settings = {"beta": 0.0, "kwargs": {"processing_class": load_processor(tiny_model)}}
    model = transformers.AutoModelForImageTextToText.from_pretrained(tiny_model)
    train(model, tmp_path / "first", max_steps=1, **settings)
    model.save_pretrained(tmp_path / "between")
    again, saved = train(model, tmp_path / "second", **settings)
    assert min(saved) > 0.4
    hooks = [len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules()]
    train(model, tmp_path / "third", max_steps=1, **settings)
    assert hooks == [len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules()]
    fresh = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / "between")
    wanted, _ = train(fresh, tmp_path / "fresh", **settings)
    for ours, theirs in zip(again, wanted, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_dropout_of_adapters(tiny_model, tmp_path, checkpointing):
    """A group then has one draw for its prompt, and layers that are computed again have the same one."""
    config = LoraConfig(r=4, lora_dropout=0.3, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    settings = {"gradient_checkpointing": checkpointing, "beta": 0.0, "max_steps": 2, "learning_rate": 1e-2}
    logs, saved = train(tiny_model, tmp_path, kwargs={"peft_config": config}, **settings)
    assert min(saved) > 0.4
    plain, _ = train(
        tiny_model, tmp_path, kwargs={"peft_config": config}, **{**settings, "gradient_checkpointing": False}
    )
    assert all(entry[1] > 1e-4 for entry in logs)
    for ours, theirs in zip(logs, plain, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6)


def test_half_precision_in_a_trainer(tiny_model, tmp_path):
    settings = {"bf16": True, "beta": 0.0, "max_steps": 1}
    ((on,), saved), ((off,), _) = (
        train(tiny_model, tmp_path, shared_prefix=shared, **settings) for shared in (None, False)
    )
    assert min(saved) > 0.4
    # gradients rounded to eight bits
    assert on[1] == pytest.approx(off[1], rel=2e-2)


def test_steps_of_several_micro_batches_are_the_stock_trainers(tiny_model, tmp_path):
    """TRL's micro-batches hold other rows, but an optimizer step the same ones."""
    settings = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "num_generations": 4}
    settings |= {"max_steps": 2, "beta": 0.04, "learning_rate": 1e-3}
    settings |= {"generation_kwargs": {"suppress_tokens": VISION_IDS}}
    stock_args = options(tmp_path, GRPOConfig, use_cpu=True, bf16=False, **settings)
    logs = []
    for trainer_class, args in ((GRPOTrainer, stock_args), (VisionGRPOTrainer, options(tmp_path, **settings))):
        trainer = make_trainer(trainer_class, tiny_model, args, rows(1, 2, 2, 1))
        trainer.train()
        logs.append(step_logs(trainer, "loss", "grad_norm", "reward"))
    for ours, wanted in zip(logs[1], logs[0], strict=True):
        assert ours == pytest.approx(wanted, rel=2e-4, abs=2e-6)


def test_the_same_losses_with_lora(tiny_model, tmp_path):
    def kwargs():
        return {"peft_config": LoraConfig(r=4, target_modules=["q_proj", "v_proj", "gate_proj", "qkv"])}

    on, saved = train(tiny_model, tmp_path, kwargs=kwargs(), learning_rate=1e-2)
    off, _ = train(tiny_model, tmp_path, kwargs=kwargs(), learning_rate=1e-2, shared_prefix=False)
    for ours, wanted in zip(on, off, strict=True):
        assert ours == pytest.approx(wanted, rel=2e-4, abs=2e-6)
    assert on[-1][NAMES.index("kl")] > 1e-6
    assert all(share > 0.4 for share in saved)


def test_the_same_losses_for_a_language_model(tmp_path):
    model = save_text_model(tmp_path / "model")

    def make(trainer_class, model, args, dataset):
        tokenizer = transformers.AutoTokenizer.from_pretrained(model)
        chats = dataset.remove_columns("prompt").add_column(
            "prompt", [[{"role": "user", "content": text}] for text in dataset["problem"]]
        )
        return make_trainer(trainer_class, model, args, chats, processing_class=tokenizer)

    saved = compare(model, tmp_path, dataset=rows(0, 0, 0, 0).remove_columns("images"), make=make)
    assert all(share > 0.4 for share in saved)


def test_the_same_losses_with_hints(tiny_model, tmp_path, script):
    def losses(**settings):
        script({"row-0": 1, "row-1": 2})
        args = hint_options(tmp_path, per_device_train_batch_size=4, max_steps=2, beta=0.04, **settings)
        trainer = make_trainer(HintGRPOTrainer, tiny_model, args, hinted_rows(1, 1), gate=right)
        trainer.train()
        return step_logs(trainer, "loss", "grad_norm", "kl", "hints/level_0"), trainer

    on, trainer = losses()
    assert trainer.state.log_history[0]["shared_prefix/tokens_saved"] > 0.2
    off, _ = losses(shared_prefix=False)
    for ours, wanted in zip(on, off, strict=True):
        assert ours == pytest.approx(wanted, rel=2e-4, abs=2e-6)


def right(completions, **columns):
    return [float("<answer>7</answer>" in completion[0]["content"]) for completion in completions]


# ---- micro-batches


def test_groups_stay_together():
    def part(*rows):
        return {
            "group_index": torch.tensor([row // 10 for row in rows]),
            "advantages": torch.tensor([float(row) for row in rows]),
            "pixel_values": torch.tensor([[float(row)] for row in rows if row // 10 != 2 for _ in range(row // 10)]),
            "image_grid_thw": torch.tensor([[1, 1, row // 10] for row in rows if row // 10 != 2]),
            "num_images": [int(row // 10 != 2) for row in rows],
            "num_items_in_batch": torch.tensor(7),
            "tool_mask": None,
        }

    first, second, third = keep_groups_together([part(31, 21), part(22, 11), part(12, 32)])
    assert first["advantages"].tolist() == [31, 32]
    assert second["advantages"].tolist() == [21, 22]
    assert third["advantages"].tolist() == [11, 12]
    assert first["pixel_values"].flatten().tolist() == [31.0] * 3 + [32.0] * 3
    assert second["pixel_values"].numel() == 0
    assert third["image_grid_thw"].tolist() == [[1, 1, 1], [1, 1, 1]]
    assert [batch["num_images"] for batch in (first, second, third)] == [[1, 1], [0, 0], [1, 1]]
    assert [batch["num_items_in_batch"] for batch in (first, second, third)] == [7, 7, 7]
    assert first["tool_mask"] is None


def test_micro_batches_hold_whole_groups(tiny_model, tmp_path):
    """Whether prompts are shared or not, so that a run sees the same micro-batches either way."""

    class Watching(VisionGRPOTrainer):
        def _compute_loss(self, model, inputs):
            seen.append((inputs["group_index"].tolist(), inputs["completion_ids"].tolist()))
            return super()._compute_loss(model, inputs)

    orders = []
    for shared in (None, False):
        seen = []
        settings = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4, "shared_prefix": shared}
        train(tiny_model, tmp_path, rows(1, 1, 1, 1), Watching, max_steps=1, **settings)
        orders.append(seen)
    assert orders[0] == orders[1]
    assert sorted(groups for groups, _ in orders[0]) == [[0] * 4, [1] * 4, [2] * 4, [3] * 4]


# ---- where it doesn't apply


def test_what_cant_share_says_so_once(tmp_path, caplog):
    model = save_text_model(tmp_path / "model")
    config = transformers.AutoConfig.from_pretrained(model)
    config.use_sliding_window, config.sliding_window, config.max_window_layers = True, 16, 0
    config.layer_types = ["sliding_attention"] * 2
    config.save_pretrained(model)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    dataset = rows(0, 0).remove_columns(["images", "prompt"])
    dataset = dataset.add_column("prompt", [[{"role": "user", "content": text}] for text in dataset["problem"]])

    def make(**settings):
        args = options(tmp_path, max_steps=1, beta=0.1, **settings)
        return make_trainer(VisionGRPOTrainer, model, args, dataset, processing_class=tokenizer)

    with caplog.at_level(logging.WARNING):
        trainer = make()
        trainer.train()
    said = [record.getMessage() for record in caplog.records if "sliding_attention" in record.getMessage()]
    assert said == [
        "Each prompt is encoded once for each of its completions: it has layers of the kind sliding_attention, which "
        "see more or less than prompt and completion."
    ]
    assert "shared_prefix/tokens_saved" not in trainer.state.log_history[0]
    with pytest.raises(ValueError, match="shared_prefix is true, but .* can't share prompts: it has layers of the"):
        make(shared_prefix=True)
    caplog.clear()
    make(shared_prefix=False)
    assert "sliding_attention" not in caplog.text


def test_a_setting_without_effect_warns(tiny_model, tmp_path, caplog):
    settings = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}
    make_trainer(VisionGRPOTrainer, tiny_model, options(tmp_path, shared_prefix=True, **settings), rows(1, 1))
    assert "shared_prefix is true, but a micro-batch holds 1 completion" in caplog.text


@pytest.mark.parametrize(
    ("attribute", "message"), [("fsdp", "it runs under FSDP"), ("torch_compile", "it is compiled")]
)
def test_engines_that_cant_share(tiny_model, tmp_path, attribute, message):
    trainer = make_trainer(VisionGRPOTrainer, tiny_model, options(tmp_path), rows(1, 1))
    if attribute == "fsdp":
        trainer.is_fsdp_enabled = True
    else:
        trainer.args.torch_compile = True
    trainer.args.shared_prefix = True
    with pytest.raises(ValueError, match=message):
        trainer.share_prefixes(trainer.model)
