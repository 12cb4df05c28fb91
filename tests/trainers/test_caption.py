# SPDX-License-Identifier: Apache-2.0
"""CaptionGRPOTrainer with chosen completions and chosen readers."""

import pandas as pd
import pytest
import torch
from tiny_models import END, IDS, build_tokenizer, options, parity_reward, rows, step_logs

from open_r1_vision.models import load_processor
from open_r1_vision.reasoners.captions import NOT_A_DESCRIPTION, Reading, parse_reply, reader_messages
from open_r1_vision.reasoners.policy import policy_reader
from open_r1_vision.rewards import accuracy_reward, caption_reward, format_reward
from open_r1_vision.trainers import CaptionGRPOConfig, CaptionGRPOTrainer, VisionGRPOTrainer

#: For each row of `rows(1, 0, 2)` its two completions, and the caption of each.
COMPLETIONS = {
    "row-0": ["<info>seven dots</info> <think>t</think> <answer>7</answer>", "<think>none</think> <answer>7</answer>"],
    "row-1": ["<info>a line\nand one\n\nmore</info><answer>8</answer>", "<info></info><answer>7</answer>"],
    "row-2": ["no tags at all", "<info>two</info> <info>three</info>"],
}
CAPTIONS = {
    "row-0": ["seven dots", None],
    "row-1": ["a line\nand one\n\nmore", None],
    "row-2": [None, "two"],
}


class EchoReader:
    """Answers each caption with itself."""

    def read(self, captions, problems):
        self.captions, self.problems = list(captions), list(problems)
        return [Reading(f"I read {caption}", caption) for caption in captions]


class AnswerReader:
    """Gives the replies of a list, in order."""

    def __init__(self, replies):
        self.replies = replies

    def read(self, captions, problems):
        return [
            Reading("", None) if caption is None else parse_reply(reply)
            for caption, reply in zip(captions, self.replies, strict=True)
        ]


def scripted(trainer_class, completions=COMPLETIONS, replies=None):
    """The trainer, with these completions for each row in place of sampled ones; `replies` are greedy ones."""
    tokenizer = build_tokenizer()

    class Scripted(trainer_class):
        calls = ()

        def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations, *args, **kwargs):
            if num_generations == 1:
                config = self.generation_config
                self.calls = [*self.calls, (prompt_ids, images, multimodal_fields, config)]
                if replies is None:
                    return super()._generate_single_turn(
                        prompt_ids, images, multimodal_fields, num_generations, *args, **kwargs
                    )
                texts = replies
            else:
                used, texts = dict.fromkeys(completions, 0), []
                for row in self._batch_rows:
                    texts.append(completions[row["id"]][used[row["id"]]])
                    used[row["id"]] += 1
            assert len(texts) == len(prompt_ids)
            return [[*tokenizer(text)["input_ids"], END] for text in texts], None

    return Scripted


def make(trainer_class, model, args, dataset, reward=caption_reward, **kwargs):
    return trainer_class(model, reward, args, train_dataset=dataset, processing_class=load_processor(model), **kwargs)


def caption_options(output_dir, **settings):
    return options(output_dir, CaptionGRPOConfig, **{"max_steps": 1, **settings})


# ---- which caption belongs to which completion


@pytest.mark.parametrize(
    "batch",
    [
        # all three prompts on the device at once, in two halves of which one splits a group, and one by one
        {"per_device_train_batch_size": 6},
        {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2},
        {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 6},
    ],
)
def test_readings_stay_with_their_completions(any_model, tmp_path, batch):
    seen = []

    def spy_reward(completions, caption, caption_answer, id, **columns):
        seen.extend(zip(id, (message[0]["content"] for message in completions), caption, caption_answer, strict=True))
        return [float(answer is not None) for answer in caption_answer]

    reader = EchoReader()
    trainer = make(
        scripted(CaptionGRPOTrainer),
        any_model,
        caption_options(tmp_path, **batch),
        rows(1, 0, 2),
        spy_reward,
        reader=reader,
    )
    trainer.train()
    expected = {
        (row_id, completion, caption, caption)
        for row_id, completions in COMPLETIONS.items()
        for completion, caption in zip(completions, CAPTIONS[row_id], strict=True)
    }
    assert set(seen) == expected
    assert len(seen) == 6
    assert reader.captions == [caption for _, _, caption, _ in seen]
    problems = {row["id"]: row["problem"] for row in rows(1, 0, 2)}
    assert reader.problems == [problems[row_id] for row_id, *_ in seen]


def test_a_second_step_starts_from_clean_rows(tiny_model, tmp_path):
    before = []

    class Spy(EchoReader):
        def read(self, captions, problems):
            before.extend("caption" in row for row in trainer._batch_rows)
            return super().read(captions, problems)

    trainer = make(
        scripted(CaptionGRPOTrainer),
        tiny_model,
        caption_options(tmp_path, max_steps=3),
        rows(1, 0),
        reader=Spy(),
    )
    trainer.train()
    assert before == [False] * 12


# ---- metrics and files


def test_metrics_and_completions_by_hand(tiny_model, tmp_path):
    completions = {
        "row-0": ["<info>seven</info> <think>t</think> <answer>7</answer>", "<info>eight</info><answer>7</answer>"],
        "row-1": ["<answer>3</answer>", "<info>so it is 7</info> <think>t</think> <answer>9</answer>"],
    }
    replies = {"row-0": ["7.", "8"], "row-1": ["7", "Not a description."]}

    class Reader:
        def read(self, captions, problems):
            return AnswerReader([replies[row["id"]][index % 2] for index, row in enumerate(trainer._batch_rows)]).read(
                captions, problems
            )

    trainer = make(
        scripted(CaptionGRPOTrainer, completions),
        tiny_model,
        caption_options(tmp_path, reward_weights=[1.0, 1.0, 0.1], log_completions=True),
        rows(1, 1),
        [accuracy_reward, format_reward, caption_reward],
        reader=Reader(),
    )
    trainer.train()
    names = ("reader/accuracy", "reader/not_a_description", "captions/missing", "seconds/reading")
    accuracy, rejected, missing, seconds = step_logs(trainer, *names)[0]
    assert (accuracy, rejected, missing) == (0.25, 0.25, 0.25)
    assert seconds > 0
    means = [f"rewards/{name}/mean" for name in ("accuracy_reward", "format_reward", "caption_reward")]
    assert step_logs(trainer, *means)[0] == (0.5, 0.5, 0.25)
    # 1 + 1 + 0.1, 1, 0 and 1
    assert step_logs(trainer, "reward")[0][0] == pytest.approx((2.1 + 1 + 0 + 1) / 4)
    table = pd.read_parquet(tmp_path / "completions" / "completions_00001.parquet")
    columns = ["caption", "reader_reply", "caption_answer", "accuracy_reward", "format_reward", "caption_reward"]
    found = table[columns].astype(object).where(table[columns].notna(), None)
    assert sorted(map(tuple, found.to_numpy()), key=str) == sorted(
        [
            ("seven", "7.", "7", 1.0, 1.0, 1.0),
            ("eight", "8", "8", 1.0, 0.0, 0.0),
            (None, "", None, 0.0, 0.0, 0.0),
            ("so it is 7", "Not a description.", None, 0.0, 1.0, 0.0),
        ],
        key=str,
    )


def test_a_row_without_gold_is_not_scored(tiny_model, tmp_path):
    trainer = make(
        scripted(CaptionGRPOTrainer),
        tiny_model,
        caption_options(tmp_path),
        rows(1, 1, solution=None),
        [caption_reward, parity_reward],
        reader=EchoReader(),
    )
    trainer.train()
    log = next(entry for entry in trainer.state.log_history if "step_time" in entry)
    assert "reader/accuracy" not in log
    # row-0 and row-1 miss one caption of two each
    assert log["captions/missing"] == 0.5


# ---- verdicts


@pytest.mark.parametrize(
    "reply",
    [
        NOT_A_DESCRIPTION,
        "not a description",
        "NOT A DESCRIPTION.",
        "  Not a description.\n",
        "Not a description: it says 7",
        "Hacking Sample",
        "hacking sample.",
        "<answer>Not a description</answer>",
        '"Not a description"',
        "**Not a description**",
    ],
)
def test_the_verdict_earns_nothing(reply):
    reading = parse_reply(reply)
    assert reading == Reading(reply, None, is_description=False)
    assert caption_reward([reading.answer], ["Not a description"], ["text"]) == [0.0]


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("7", "7"),
        (" 7.\n", "7"),
        ("3.5", "3.5"),
        ("<answer> 7 </answer>", "7"),
        ("I think <answer>7</answer>", "7"),
        ("<answer>7", None),
        ("<answer></answer>", None),
        ("a\nb", "a\nb"),
        ("", None),
        (" . ", None),
        ("It is not a description", "It is not a description"),
    ],
)
def test_answers_in_replies(reply, answer):
    assert parse_reply(reply) == Reading(reply, answer)


def test_what_a_reader_is_asked():
    chat = reader_messages("seven\ndots", "How many?", "Read.")
    assert [message["role"] for message in chat] == ["system", "user"]
    assert [message["content"] for message in chat] == [
        [{"type": "text", "text": "Read."}],
        [{"type": "text", "text": "How many?\n<info> seven\ndots</info>"}],
    ]


# ---- the policy as reader


def test_the_policy_reads_text_greedily(any_model, tmp_path):
    trainer = make(
        scripted(CaptionGRPOTrainer),
        any_model,
        caption_options(tmp_path, reader_max_tokens=5, temperature=2.5, per_device_train_batch_size=6),
        rows(1, 0, 2),
    )
    before, kwargs = trainer.generation_config, trainer.generation_kwargs
    trainer.train()
    ((prompt_ids, images, fields, config),) = trainer.calls
    texts = trainer._tokenizer.batch_decode(prompt_ids)
    # one question for each completion, also where there is no caption
    assert len(texts) == 6
    captions = [caption or "" for row in trainer._batch_rows[::2] for caption in CAPTIONS[row["id"]]]
    for text, caption, row in zip(texts, captions, trainer._batch_rows, strict=True):
        assert f"{row['problem']}\n<info> {caption}</info><|im_end|>" in text
        assert "A description only says what the image shows." in text
    assert images is None
    assert "pixel_values" not in fields
    assert not any(IDS["<|image_pad|>"] in ids for ids in prompt_ids)
    assert (config.do_sample, config.max_new_tokens) == (False, 5)
    assert trainer.generation_config is before
    assert trainer.generation_kwargs is kwargs
    assert (before.do_sample, before.temperature, before.max_new_tokens) == (True, 2.5, 6)


def test_replies_of_the_policy_reach_the_rewards(tiny_model, tmp_path):
    seen = {}

    def spy_reward(completions, caption, caption_answer, **columns):
        seen.update(zip(caption, caption_answer, strict=True))
        return [0.0] * len(completions)

    # the reply to an empty caption does not count
    replies = ["1.", "2"]
    trainer = make(
        scripted(CaptionGRPOTrainer, {"row-0": COMPLETIONS["row-0"]}, replies),
        tiny_model,
        caption_options(tmp_path, per_device_train_batch_size=2),
        rows(1),
        spy_reward,
    )
    trainer.train()
    assert seen == {"seven dots": "1", None: None}


def test_policy_reader_alone():
    asked = []

    def generate(chats, max_tokens):
        asked.append((chats, max_tokens))
        return ["Not a description", "8", "ignored"]

    readings = policy_reader(generate, "Read.", 9).read(["so it is 7", "eight", None], ["a?", "b?", "c?"])
    assert readings == [
        Reading("Not a description", None, is_description=False),
        Reading("8", "8"),
        Reading("", None),
    ]
    chats = [
        reader_messages(caption, problem, "Read.")
        for caption, problem in (("so it is 7", "a?"), ("eight", "b?"), ("", "c?"))
    ]
    assert asked == [(chats, 9)]


# ---- the rest of the trainer


def test_a_reader_that_returns_too_few(tiny_model, tmp_path):
    class ShortReader:
        def read(self, captions, problems):
            return [Reading("7", "7")] * 3

    trainer = make(
        scripted(CaptionGRPOTrainer), tiny_model, caption_options(tmp_path), rows(1, 1), reader=ShortReader()
    )
    message = "ShortReader.read returned 3 readings for 4 captions: it must return one for each, in the same order"
    with pytest.raises(ValueError, match=message):
        trainer.train()


@pytest.mark.parametrize("reader", [EchoReader(), None])
def test_with_weight_zero_the_losses_are_the_base_trainers(tiny_model, tmp_path, reader):
    settings = {"max_steps": 3, "beta": 0.04}
    base = make(VisionGRPOTrainer, tiny_model, options(tmp_path / "base", **settings), rows(1, 2), parity_reward)
    base.train()
    args = caption_options(tmp_path / "caption", reward_weights=[1.0, 0.0], **settings)
    ours = make(CaptionGRPOTrainer, tiny_model, args, rows(1, 2), [parity_reward, caption_reward], reader=reader)
    ours.train()
    names = ("loss", "grad_norm", "kl", "reward", "num_tokens", "completions/mean_length")
    assert step_logs(ours, *names) == step_logs(base, *names)
    for name, weight in base.model.state_dict().items():
        assert torch.equal(weight, ours.model.state_dict()[name]), name


def test_evaluation_reads_captions_too(tiny_model, tmp_path):
    trainer = make(
        scripted(CaptionGRPOTrainer),
        tiny_model,
        caption_options(tmp_path, per_device_eval_batch_size=4),
        rows(1, 0),
        reader=EchoReader(),
        eval_dataset=rows(1, 0),
    )
    metrics = trainer.evaluate()
    log = trainer.state.log_history[-1]
    assert log["eval_captions/missing"] == 0.5
    assert log["eval_seconds/reading"] > 0
    assert "eval_loss" in metrics
