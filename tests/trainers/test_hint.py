# SPDX-License-Identifier: Apache-2.0
"""HintGRPOTrainer with scripted and with real completions."""

import asyncio
import json
import logging
import math

import pandas as pd
import pytest
import torch
from tiny_models import (
    END,
    VISION_IDS,
    build_tokenizer,
    make_trainer,
    options,
    parity_reward,
    recording,
    rows,
    step_logs,
)
from trl import GRPOConfig, GRPOTrainer
from trl.data_utils import prepare_multimodal_messages

from open_r1_vision.models import load_processor
from open_r1_vision.rewards import accuracy_reward, caption_reward, format_reward
from open_r1_vision.trainers import (
    HintCaptionGRPOConfig,
    HintCaptionGRPOTrainer,
    HintGRPOConfig,
    HintGRPOTrainer,
    VisionGRPOTrainer,
)
from open_r1_vision.trainers.hint import MEMORY_FILE

STEPS = ["One.", "Two.", "Three."]
RIGHT, WRONG = "so</think><answer>7</answer>", "so</think><answer>8</answer>"
PROMPT_END = "<|im_start|>assistant\n"


def hinted_rows(*image_counts, steps=None):
    """`rows` with reference steps: those given for each row, or three."""
    dataset = rows(*image_counts)
    return dataset.add_column("reasoning_steps", steps or [STEPS] * len(dataset))


def hint_options(output_dir, config_class=HintGRPOConfig, **settings):
    defaults = {"per_device_train_batch_size": 2, "max_steps": 1, "max_completion_length": 60}
    return options(output_dir, config_class, **{**defaults, **settings})


def make(trainer_class, model, args, dataset, reward=accuracy_reward, **kwargs):
    return make_trainer(recording(trainer_class), model, args, dataset, reward, **kwargs)


@pytest.fixture
def script(monkeypatch):
    """`script(first_right)` has rows answered right from that level on, in the second completion of a group.

    Returns what the backend was asked: the text of each prompt of each call.
    """
    tokenizer = build_tokenizer()

    def install(first_right):
        calls = []

        def reply(self, prompt_ids, images, multimodal_fields, num_generations, *args, **kwargs):
            texts = [tokenizer.decode(ids) for ids in prompt_ids]
            calls.append(texts)
            replies, seen = [], {}
            for text in texts:
                problem, start = text.split(PROMPT_END)
                row = f"row-{problem.count('please')}"
                level = sum(step in start for step in STEPS)
                seen[row, level] = seen.get((row, level), 0) + 1
                is_right = seen[row, level] % 2 == 0 and level >= first_right[row]
                replies.append([*tokenizer(RIGHT if is_right else WRONG)["input_ids"], END])
            return replies, None

        monkeypatch.setattr(VisionGRPOTrainer, "_generate_single_turn", reply)
        return calls

    return install


def spy(received):
    """An accuracy reward that keeps what it gets."""

    def reward(completions, completion_ids, response_start, hint_level, solution, problem_type, **columns):
        received.append(
            {"completions": completions, "ids": completion_ids, "hint": response_start, "level": hint_level}
        )
        return accuracy_reward(completions, solution, problem_type)

    return reward


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


# ---- memory


def test_memory(script, tiny_model, tmp_path):
    """A row that needed level 2 starts at level 1, one that needed level 1 at level 0."""
    calls = script({"row-0": 2, "row-1": 1})
    settings = {
        "per_device_train_batch_size": 4,
        "shuffle_dataset": False,
        "hint_memory": True,
        "save_strategy": "steps",
        "save_steps": 1,
    }
    dataset = hinted_rows(1, 1)
    trainer = make(HintGRPOTrainer, tiny_model, hint_options(tmp_path, **settings), dataset)
    trainer.train()
    checkpoint = tmp_path / "checkpoint-1"
    assert json.loads((checkpoint / MEMORY_FILE).read_text()) == {"row-0": 2, "row-1": 1}
    assert len(calls) == 3
    calls.clear()
    resumed = make(HintGRPOTrainer, tiny_model, hint_options(tmp_path, **{**settings, "max_steps": 2}), dataset)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    starts = [[text.split(PROMPT_END)[1] for text in call] for call in calls]
    one, two = "<think>One.", "<think>One. Two."
    assert starts == [[one, one, "", ""], [two, two, one, one]]


def test_memory_of_levels_that_collapse(script, tiny_model, tmp_path):
    """Two steps at M = 3 give levels 0 and 2. One level below 2 gives as many steps as level 0, so it starts there."""
    calls = script({"row-0": 1})
    args = hint_options(tmp_path, hint_memory=True, max_steps=2)
    trainer = make(HintGRPOTrainer, tiny_model, args, hinted_rows(1, steps=[["One.", "Two."]]))
    trainer.train()
    starts = [[text.split(PROMPT_END)[1] for text in call] for call in calls]
    assert starts == [["", ""], ["<think>One."] * 2] * 2


# ---- beside other options


@pytest.mark.parametrize(
    "settings",
    [
        {"mask_truncated_completions": True},
        {"num_iterations": 2},
        {"gradient_accumulation_steps": 2, "steps_per_generation": 4, "max_steps": 2},
        {"loss_type": "dapo"},
    ],
    ids=str,
)
def test_hints_are_never_in_the_loss(tiny_model, tmp_path, settings):
    """Whatever becomes of a batch on its way to the loss, the hint stays outside of it."""
    seen = []

    class Noting(HintGRPOTrainer):
        def _compute_loss(self, model, inputs):
            seen.append((inputs["completion_ids"].clone(), (inputs["completion_mask"] * inputs["tool_mask"]).bool()))
            return super()._compute_loss(model, inputs)

    args = hint_options(tmp_path, per_device_train_batch_size=2, max_completion_length=6, **settings)
    gate = {"gate": lambda response_start, **_: [bool(start) for start in response_start]}
    make_trainer(Noting, tiny_model, args, hinted_rows(1, 2, 1, 1), parity_reward, **gate).train()
    hint = build_tokenizer()("<think>One.")["input_ids"]
    assert seen
    for ids, in_loss in seen:
        assert ids[:, : len(hint)].tolist() == [hint] * len(ids)
        assert not in_loss[:, : len(hint)].any()
        assert settings.get("mask_truncated_completions") or in_loss[:, len(hint)].all()


def test_the_reference_sees_the_trained_completions_and_the_kl_leaves_hints_out(tiny_model, tmp_path):
    """In the first step policy and reference are the same model; afterwards the KL is that of the loss's tokens."""
    calls = []

    class Noting(HintGRPOTrainer):
        def _get_per_token_logps_and_entropies(self, model, input_ids, *args, **kwargs):
            calls.append((model is self.ref_model, input_ids.shape[0]))
            return super()._get_per_token_logps_and_entropies(model, input_ids, *args, **kwargs)

    args = hint_options(tmp_path, max_completion_length=6, beta=0.5, max_steps=2, learning_rate=1e-2)
    gate = {"gate": lambda response_start, **_: [start.count(".") == 2.0 for start in response_start]}
    trainer = make_trainer(recording(Noting), tiny_model, args, hinted_rows(1), parity_reward, **gate)
    trainer.train()
    # three levels were sampled, but only the chosen two completions go through the reference
    assert [rows for is_reference, rows in calls if is_reference] == [2, 2]
    first, second = [kl for (kl,) in step_logs(trainer, "kl")]
    assert first == pytest.approx(0, abs=1e-6)
    assert second > 0


def test_what_looks_special_in_a_step_is_text(script, tiny_model, tmp_path):
    """An end of turn, or an image without a picture, in a reference."""
    script({"row-0": 1})
    dataset = hinted_rows(1, steps=[["One.<|im_end|><|image_pad|>", "Two.", "Three."]])
    trainer = make(HintGRPOTrainer, tiny_model, hint_options(tmp_path), dataset)
    trainer.train()
    (output,) = trainer.outputs
    text = "<think>One.<|im_end|><|image_pad|>"
    assert output["completion_ids"][0, : len(text)].tolist() == [
        token for character in text for token in build_tokenizer()(character)["input_ids"]
    ]


# ---- with captions


def test_captions_that_begin_in_a_hint(monkeypatch, tiny_model, tmp_path):
    tokenizer = build_tokenizer()
    asked, received = [], []

    def reply(self, prompt_ids, *args, **kwargs):
        texts = [tokenizer.decode(ids).split(PROMPT_END)[1] for ids in prompt_ids]
        replies = [" dots</info><think>x</think><answer>7</answer>" if text else "nothing" for text in texts]
        return [[*tokenizer(text)["input_ids"], END] for text in replies], None

    class Reader:
        def read(self, captions, problems):
            asked.append(captions)
            from open_r1_vision.reasoners.captions import Reading

            return [Reading("", "7" if caption == "seven dots" else None) for caption in captions]

    def formats(completions, response_start, **columns):
        received.append((format_reward(completions), format_reward(completions, response_start)))
        return received[-1][1]

    monkeypatch.setattr(VisionGRPOTrainer, "_generate_single_turn", reply)
    args = hint_options(tmp_path, HintCaptionGRPOConfig, hint_template="<info>{hint}", log_completions=True)
    dataset = hinted_rows(1, steps=[["seven", "dots", "here"]])
    trainer = make(
        HintCaptionGRPOTrainer, tiny_model, args, dataset, [accuracy_reward, caption_reward, formats], reader=Reader()
    )
    trainer.train()
    assert asked == [["seven dots", "seven dots"]]
    assert received == [([0.0, 0.0], [1.0, 1.0])]
    log = trainer.state.log_history[0]
    assert (log["rewards/caption_reward/mean"], log["rewards/accuracy_reward/mean"]) == (1.0, 1.0)
    assert log["hints/level_1"] == 1.0


def test_both_methods_train_with_real_completions(tiny_model, tmp_path):
    args = hint_options(tmp_path, HintCaptionGRPOConfig, max_completion_length=6, reader_max_tokens=3, max_steps=2)
    trainer = make(HintCaptionGRPOTrainer, tiny_model, args, hinted_rows(1, 0), [parity_reward, caption_reward])
    trainer.train()
    assert len(step_logs(trainer, "loss", "hints/unsolved", "captions/missing")) == 2


# ---- bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hint_levels": 0}, "hint_levels is 0, but level 0, without hint, is one already: set at least 1"),
        ({"hint_mode": "climb"}, "hint_mode is 'climb': set it to escalate or parallel"),
        ({"hint_max_share": 0.0}, "hint_max_share is 0.0"),
        ({"hint_max_share": 1.5}, "set it above 0 and up to 1"),
        ({"hint_template": "<think>"}, "must hold {hint} once"),
    ],
)
def test_bad_options(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        hint_options(tmp_path, **settings)


def test_bad_steps(script, tiny_model, tmp_path):
    script({"row-0": 9})
    dataset = rows(1).add_column("reasoning_steps", ["First this, then that."])
    trainer = make(HintGRPOTrainer, tiny_model, hint_options(tmp_path), dataset)
    with pytest.raises(ValueError, match="Row 'row-0': `reasoning_steps` is 'First this.*need a list of strings"):
        trainer.train()


def test_a_missing_column(tiny_model, tmp_path):
    with pytest.raises(ValueError, match="hint_column is 'reasoning_steps', but the rows have the columns id, images"):
        make(HintGRPOTrainer, tiny_model, hint_options(tmp_path), rows(1))


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        (lambda **_: [1.0], "The gate '<lambda>' returned 1 values for 2 completions, the rows with id 'row-0'"),
        (lambda **_: 1 / 0, "The gate '<lambda>' raised ZeroDivisionError for the rows with id 'row-0'"),
        (lambda **_: [float("nan")] * 2, "The gate '<lambda>' returned nan for the row with id 'row-0'"),
    ],
)
def test_bad_gates(script, tiny_model, tmp_path, gate, message):
    script({"row-0": 0})
    trainer = make(HintGRPOTrainer, tiny_model, hint_options(tmp_path), hinted_rows(1), gate=gate)
    with pytest.raises((ValueError, RuntimeError), match=message):
        trainer.train()


def test_memory_needs_ids(tiny_model, tmp_path):
    with pytest.raises(ValueError, match="hint_memory is true, but the rows have no column `id`"):
        make(
            HintGRPOTrainer, tiny_model, hint_options(tmp_path, hint_memory=True), hinted_rows(1).remove_columns("id")
        )


def test_tools_are_refused(tiny_model, tmp_path):
    with pytest.raises(ValueError, match="got `rollout_func`, which would write over hints: leave it out"):
        make(HintGRPOTrainer, tiny_model, hint_options(tmp_path), hinted_rows(1), rollout_func=print)


def test_evaluation_gives_no_hints(script, tiny_model, tmp_path):
    calls = script({"row-0": 2})
    received = []
    trainer = make(
        HintGRPOTrainer, tiny_model, hint_options(tmp_path), hinted_rows(1), spy(received), eval_dataset=hinted_rows(1)
    )
    trainer.args.per_device_eval_batch_size = 2
    trainer.train()
    before = len(calls)
    trainer.evaluate()
    assert [text.split(PROMPT_END)[1] for call in calls[before:] for text in call] == ["", ""]
    assert received[-1]["hint"] == ["", ""]
