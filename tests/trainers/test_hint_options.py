# SPDX-License-Identifier: Apache-2.0
"""HintGRPOTrainer with memory, beside other options, with captions, and with what it refuses."""

import json

import pytest
from hinting import PROMPT_END, hint_options, hinted_rows, make, spy
from tiny_models import (
    END,
    build_tokenizer,
    make_trainer,
    parity_reward,
    recording,
    rows,
    step_logs,
)

from open_r1_vision.reasoners.captions import Reading
from open_r1_vision.rewards import accuracy_reward, caption_reward, format_reward
from open_r1_vision.trainers import (
    HintCaptionGRPOConfig,
    HintCaptionGRPOTrainer,
    HintGRPOTrainer,
    VisionGRPOTrainer,
)
from open_r1_vision.trainers.hint import MEMORY_FILE

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
