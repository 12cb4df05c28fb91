# SPDX-License-Identifier: Apache-2.0
"""HintGRPOTrainer with scripted and with real completions."""

import asyncio
import logging
import math

import pandas as pd
import pytest
import torch
from hinting import PROMPT_END, RIGHT, WRONG, hint_options, hinted_rows, make, spy
from tiny_models import (
    VISION_IDS,
    build_tokenizer,
    make_trainer,
    options,
    parity_reward,
    step_logs,
)
from trl import GRPOConfig, GRPOTrainer
from trl.data_utils import prepare_multimodal_messages

from open_r1_vision.models import load_processor
from open_r1_vision.rewards import accuracy_reward, format_reward
from open_r1_vision.trainers import (
    HintGRPOConfig,
    HintGRPOTrainer,
)

# ---- which groups are sampled again, and what becomes of a hint


def test_escalation(script, tiny_model, tmp_path):
    calls = script({"row-0": 0, "row-1": 1, "row-2": 9})
    received = []
    args = hint_options(tmp_path, per_device_train_batch_size=6, shuffle_dataset=False, log_completions=True)
    trainer = make(HintGRPOTrainer, tiny_model, args, hinted_rows(1, 0, 2), spy(received))
    trainer.train()

    starts = [[text.split(PROMPT_END)[1] for text in call] for call in calls]
    assert starts == [[""] * 6, ["<think>One."] * 4, ["<think>One. Two."] * 2]
    # the hint continues the assistant's own turn of the same chat
    assert calls[1][0] == calls[0][2] + "<think>One."
    assert calls[2][0].count("please") == 2

    (batch,) = received
    assert batch["hint"] == ["", "", "<think>One.", "<think>One.", "", ""]
    assert batch["level"] == [0, 0, 1, 1, 0, 0]
    texts = [completion[0]["content"] for completion in batch["completions"]]
    assert texts == [WRONG, RIGHT, WRONG, RIGHT, WRONG, WRONG]
    generated = len(WRONG) + 1  # a token a byte, and the end
    assert [len(ids) for ids in batch["ids"]] == [generated] * 6

    (output,) = trainer.outputs
    hint = len("<think>One.")
    assert output["completion_mask"].sum(dim=1).tolist() == [generated] * 2 + [hint + generated] * 2 + [generated] * 2
    loss_mask = output["completion_mask"] * output["tool_mask"]
    assert loss_mask.sum(dim=1).tolist() == [generated] * 6
    assert loss_mask[2].tolist() == [0] * hint + [1] * generated
    assert int(output["num_items_in_batch"]) == 6 * generated
    # the baseline of a group is its own: (1 - 0) / 2 / std over two
    advantage = 0.5 / (math.sqrt(0.5) + 1e-4)
    expected = [-advantage, advantage, -advantage, advantage, 0.0, 0.0]
    assert output["advantages"].tolist() == pytest.approx(expected, abs=1e-6)

    log = trainer.state.log_history[0]
    assert log["completions/mean_length"] == log["completions/max_length"] == generated
    shares = {name.removeprefix("hints/"): value for name, value in log.items() if name.startswith("hints/")}
    assert shares == pytest.approx(
        {
            "utilisation_before": 1 / 3,
            "utilisation": 2 / 3,
            "level_0": 2 / 3,
            "level_1": 1 / 3,
            "level_2": 0.0,
            "unsolved": 1 / 3,
            "all_correct": 0.0,
            "extra_tokens": 1.0,  # 4 + 2 completions more than the first 6
            "level_0_only": 0.0,
            "too_long": 0.0,
        }
    )
    table = pd.read_parquet(tmp_path / "completions" / "completions_00001.parquet")
    assert table["hint"].tolist() == batch["hint"]
    assert table["hint_level"].tolist() == batch["level"]
    assert table["completion"].map(lambda messages: messages[0]["content"]).tolist() == texts


def test_parallel(script, tiny_model, tmp_path):
    calls = script({"row-0": 0, "row-1": 1, "row-2": 9})
    received = []
    args = hint_options(tmp_path, per_device_train_batch_size=6, shuffle_dataset=False, hint_mode="parallel")
    trainer = make(HintGRPOTrainer, tiny_model, args, hinted_rows(1, 0, 2), spy(received))
    trainer.train()
    starts = ["", "<think>One.", "<think>One. Two."]
    assert [[text.split(PROMPT_END)[1] for text in call] for call in calls] == [starts * 6]
    assert received[0]["level"] == [0, 0, 1, 1, 0, 0]
    assert trainer.outputs[0]["tool_mask"][:, :11].sum(dim=1).tolist() == [11, 11, 0, 0, 11, 11]
    assert trainer.state.log_history[0]["hints/extra_tokens"] == 2.0


def test_rows_without_steps_and_levels_that_collapse(script, tiny_model, tmp_path):
    calls = script(dict.fromkeys(("row-0", "row-1", "row-2"), 9))
    args = hint_options(tmp_path, per_device_train_batch_size=6, shuffle_dataset=False)
    dataset = hinted_rows(1, 0, 1, steps=[[], ["One."], ["One.", "Two."]])
    trainer = make(HintGRPOTrainer, tiny_model, args, dataset)
    trainer.train()
    # floor(2 * 1 / 3) = 0 steps: level 1 of row 2 is level 0
    assert [[text.split(PROMPT_END)[1] for text in call] for call in calls] == [[""] * 6, ["<think>One."] * 2]
    assert trainer.state.log_history[0]["hints/level_0_only"] == pytest.approx(2 / 3)


def test_the_gate_decides_not_the_sum_of_the_rewards(script, tiny_model, tmp_path):
    """The authors go by the sum of all rewards, which a format reward alone lifts above 0."""
    calls = script({"row-0": 1})
    args = hint_options(tmp_path)

    def always(completions, **columns):
        return [1.0] * len(completions)

    make(HintGRPOTrainer, tiny_model, args, hinted_rows(1), [accuracy_reward, always]).train()
    assert len(calls) == 2
    calls.clear()
    make(HintGRPOTrainer, tiny_model, args, hinted_rows(1), [accuracy_reward], gate=always).train()
    assert len(calls) == 1


def test_an_async_gate(script, tiny_model, tmp_path):
    calls = script({"row-0": 2})

    async def gate(completions, response_start, **columns):
        return [float("Two." in start) for start in response_start]

    trainer = make(HintGRPOTrainer, tiny_model, hint_options(tmp_path), hinted_rows(1), gate=gate)

    async def in_a_notebook():
        trainer.train()

    asyncio.run(in_a_notebook())
    assert len(calls) == 3


def test_a_column_that_is_called_hint(script, tiny_model, tmp_path):
    """Some data sets have one. It is a column like any other."""
    script({"row-0": 0})
    received = []

    def formats(completions, hint, response_start, **columns):
        received.append((hint, response_start))
        return format_reward(completions, response_start, sections=("answer",))

    dataset = hinted_rows(1).add_column("hint", ["Look at the map."])
    make(HintGRPOTrainer, tiny_model, hint_options(tmp_path), dataset, formats).train()
    assert received == [(["Look at the map."] * 2, ["", ""])]


@pytest.mark.parametrize(("template", "start"), [("{hint}", "One."), ("<think>\n{hint}\n", "<think>\nOne.\n")])
def test_wording_and_column(script, tiny_model, tmp_path, template, start):
    calls = script({"row-0": 1})
    args = hint_options(tmp_path, hint_template=template, hint_column="facts")
    make(HintGRPOTrainer, tiny_model, args, hinted_rows(1).rename_column("reasoning_steps", "facts")).train()
    assert [text.split(PROMPT_END)[1] for text in calls[1]] == [start] * 2


def test_a_hint_that_counts(script, tiny_model, tmp_path, caplog):
    """11 of 30 tokens are left for the completion after `<think>One. Two.`, and none after a longer one."""
    script({"row-0": 2})
    received = []
    args = hint_options(tmp_path, max_completion_length=30, hint_counts_as_completion=True)
    trainer = make(
        HintGRPOTrainer,
        tiny_model,
        args,
        hinted_rows(1),
        spy(received),
        gate=lambda response_start, **_: [len(response_start[0]) > 12] * 2,
    )
    trainer.train()
    assert [len(ids) for ids in received[0]["ids"]] == [30 - len("<think>One. Two.")] * 2
    assert trainer.state.log_history[0]["hints/too_long"] == 0.0

    args = hint_options(tmp_path, max_completion_length=16, hint_counts_as_completion=True)
    with caplog.at_level(logging.WARNING):
        trainer = make(HintGRPOTrainer, tiny_model, args, hinted_rows(1), spy(received), gate=lambda **_: [0.0] * 2)
        trainer.train()
    assert trainer.state.log_history[0]["hints/too_long"] == 1.0
    assert "Row 'row-0': the hint of level 2 leaves no room for a completion" in caplog.text


# ---- with its options off


def test_without_hints_the_losses_are_those_of_grpo(any_model, tmp_path):
    # the stock trainer may sample vision tokens; all are kept from them, so that they draw the same completions
    settings = {"generation_kwargs": {"suppress_tokens": VISION_IDS}, "max_steps": 2}

    def losses(trainer_class, args, **kwargs):
        trainer = make_trainer(trainer_class, any_model, args, hinted_rows(1, 2, 2, 1), parity_reward, **kwargs)
        trainer.train()
        return step_logs(trainer, "loss", "grad_norm", "reward", "completions/mean_length")

    stock = losses(GRPOTrainer, options(tmp_path, GRPOConfig, use_cpu=True, bf16=False, **settings))
    settings["shared_prefix"] = False
    assert losses(HintGRPOTrainer, options(tmp_path, HintGRPOConfig, hint_levels=1, **settings)) == stock
    # and with levels that nobody needs
    gate = {"gate": lambda completions, **_: [1.0] * len(completions)}
    assert losses(HintGRPOTrainer, options(tmp_path, HintGRPOConfig, **settings), **gate) == stock


# ---- real completions


@pytest.mark.parametrize("mode", ["escalate", "parallel"])
def test_a_hinted_completion_is_what_the_model_would_have_written_on(any_model, tmp_path, mode):
    """Completions with top_k 1 equal a greedy generation from prompt and hint; the rows have 2, 0 and 1 images."""
    args = hint_options(
        tmp_path,
        per_device_train_batch_size=6,
        max_completion_length=6,
        top_k=1,
        shuffle_dataset=False,
        hint_mode=mode,
        learning_rate=0.0,
    )
    dataset = hinted_rows(2, 0, 1)

    def gate(response_start, problem, **columns):
        """Row 0 needs level 2, row 1 level 1, row 2 none."""
        return [
            float(start.count(".") >= 2 - problem.count("please"))
            for start, problem in zip(response_start, problem, strict=True)
        ]

    trainer = make(HintGRPOTrainer, any_model, args, dataset, parity_reward, gate=gate)
    trainer.train()
    (output,) = trainer.outputs
    processor = load_processor(any_model)
    for index, hint in enumerate(["<think>One. Two.", "<think>One.", ""]):
        row = dataset[index]
        chat = prepare_multimodal_messages(row["prompt"], images=row["images"])
        inputs = processor.apply_chat_template(
            [chat], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        hint_ids = torch.tensor([build_tokenizer()(hint)["input_ids"]], dtype=torch.long)
        length = inputs["input_ids"].shape[1] + len(hint)
        extended = {"input_ids": torch.cat([inputs["input_ids"], hint_ids], dim=1)}
        extended["attention_mask"] = torch.ones_like(extended["input_ids"])
        if "mm_token_type_ids" in inputs:
            extended["mm_token_type_ids"] = torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, len(hint)))
        extra = {name: value for name, value in inputs.items() if name not in extended} if row["images"] else {}
        model = trainer.model.eval()
        expected = model.generate(
            **extended,
            **extra,
            max_new_tokens=6,
            do_sample=False,
            suppress_tokens=trainer.generation_config.suppress_tokens,
        )[0, length:].tolist()
        for sample in (2 * index, 2 * index + 1):
            mask = output["completion_mask"][sample].bool()
            assert output["completion_ids"][sample][mask].tolist() == [*hint_ids[0].tolist(), *expected]
            loss = (output["completion_mask"] * output["tool_mask"])[sample]
            assert loss[mask].tolist() == [0] * len(hint) + [1] * len(expected)


def test_the_hint_is_not_learnt(tiny_model, tmp_path):
    """The gradient is that of the completion's tokens alone, computed from the model's own log-probabilities."""
    args = hint_options(tmp_path, max_completion_length=5, learning_rate=0.0, loss_type="grpo", max_grad_norm=1e9)
    trainer = make(
        HintGRPOTrainer,
        tiny_model,
        args,
        hinted_rows(1),
        parity_reward,
        gate=lambda response_start, **_: [bool(start) for start in response_start],
    )
    trainer.train()
    (output,) = trainer.outputs
    batch = {name: output[name] for name in ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")}
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    vision = {name: output[name] for name in ("pixel_values", "image_grid_thw", "mm_token_type_ids") if name in output}
    model = trainer.model.train()
    model.zero_grad()
    logits = model(input_ids=ids, attention_mask=mask, **vision).logits[:, :-1]
    logps = torch.log_softmax(logits.float(), dim=-1).gather(-1, ids[:, 1:, None])[..., 0]
    logps = logps[:, batch["prompt_ids"].shape[1] - 1 :]
    hint = len("<think>One.")
    per_row = [
        output["advantages"][row] * logps[row, hint : int(batch["completion_mask"][row].sum())].mean()
        for row in (0, 1)
    ]
    (-sum(per_row) / 2).backward()
    norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm().item()
    assert trainer.state.log_history[0]["grad_norm"] == pytest.approx(norm, rel=1e-4)
    assert norm > 0
