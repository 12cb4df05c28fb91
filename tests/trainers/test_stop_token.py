# SPDX-License-Identifier: Apache-2.0
"""`stop_token` ends completions: in masks, lengths and what counts as cut, greedily, and under a stand-in for vLLM."""

import pytest
import torch
from test_vllm import FakeVLLM, stand_in
from tiny_models import END, make_trainer, options, recording, rows, step_logs
from transformers import LogitsProcessor, LogitsProcessorList

from open_r1_vision.models import load_processor
from open_r1_vision.trainers import VisionGRPOConfig, VisionGRPOTrainer

#: What each of four completions is made to say, by token; a byte is a token, and `!` stops.
SAY = [b"ab!cd", [*b"abc", END, *b"d"], b"abcde", b"!bcde"]


class Dictate(LogitsProcessor):
    """Forces the tokens of SAY, row by row."""

    def __init__(self, say):
        self.say = [list(tokens) for tokens in say]
        self.start = None

    def __call__(self, input_ids, scores):
        if self.start is None or input_ids.shape[1] < self.start:
            self.start = input_ids.shape[1]
        position = input_ids.shape[1] - self.start
        forced = torch.full_like(scores, -torch.inf)
        for row, tokens in enumerate(self.say[: len(scores)]):
            forced[row, tokens[position]] = 0
        return forced


@pytest.fixture
def train(tiny_model, tmp_path, monkeypatch):
    """`train(**settings)` trains one step in which the model says SAY."""
    tokenizer = load_processor(tiny_model).tokenizer

    def run(say=SAY, max_steps=1, **settings):
        table = {byte: tokenizer.encode(bytes([byte]).decode())[0] for tokens in say for byte in tokens if byte < 256}
        args = options(
            tmp_path,
            VisionGRPOConfig,
            num_generations=4,
            max_completion_length=5,
            max_steps=max_steps,
            shuffle_dataset=False,
            **settings,
        )
        trainer = make_trainer(recording(VisionGRPOTrainer), tiny_model, args, rows(0))
        model, generate = trainer.model, trainer.model.generate

        def dictated(*words, **named):
            tokens = [[table.get(byte, byte) for byte in tokens] for tokens in say]
            return generate(*words, **named, logits_processor=LogitsProcessorList([Dictate(tokens)]))

        monkeypatch.setattr(model, "generate", dictated)
        if max_steps:
            trainer.train()
        return trainer

    return run


LENGTHS = (
    "completions/mean_length",
    "completions/clipped_ratio",
    "completions/mean_terminated_length",
    "completions/max_terminated_length",
)


def test_a_completion_ends_with_the_token(train):
    trainer = train(stop_token="!")
    (output,) = trainer.outputs
    assert output["completion_mask"].sum(dim=1).tolist() == [3, 4, 5, 1]
    texts = trainer.processing_class.batch_decode(output["completion_ids"], skip_special_tokens=True)
    assert texts == ["ab!", "abc", "abcde", "!"]
    # by hand: (3 + 4 + 5 + 1) / 4; one of four is cut; (3 + 4 + 1) / 3
    assert step_logs(trainer, *LENGTHS)[0] == pytest.approx((13 / 4, 1 / 4, 8 / 3, 4))


def test_without_it_only_the_natural_end_ends(train):
    trainer = train()
    assert trainer.outputs[0]["completion_mask"].sum(dim=1).tolist() == [5, 4, 5, 5]
    assert step_logs(trainer, *LENGTHS)[0] == pytest.approx((19 / 4, 3 / 4, 4, 4))


def test_what_it_ends_is_not_cut(train):
    trainer = train(stop_token="!", mask_truncated_completions=True)
    assert trainer.outputs[0]["completion_mask"].sum(dim=1).tolist() == [3, 4, 0, 1]
    assert int(trainer.outputs[0]["num_items_in_batch"]) == 8


def test_greedy_text_ends_too_and_sampling_goes_on_as_before(train):
    trainer = train(stop_token="!", max_steps=0)
    before = trainer.generation_config.to_dict()
    chat = [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
    assert trainer.generate_greedy([chat] * 4, 5) == ["ab!", "abc", "abcde", "!"]
    assert trainer.generation_config.to_dict() == before
    assert trainer.generation_config.eos_token_id == trainer.eos_token_ids


def test_an_end_of_the_model_may_be_given(train):
    trainer = train(stop_token="<|im_end|>")
    assert trainer.outputs[0]["completion_mask"].sum(dim=1).tolist() == [5, 4, 5, 5]


@pytest.mark.parametrize(("token", "count"), [("</info>", 7), ("", 0), ("é", 2)])
def test_a_token_that_is_none(train, token, count):
    with pytest.raises(ValueError, match=f"splits into {count} tokens: set it to one token, or leave it out"):
        train(stop_token=token)


def test_vllm_is_told(monkeypatch, any_model, tmp_path):
    stand_in(monkeypatch)
    settings = {"use_vllm": True, "vllm_mode": "colocate", "vllm_max_logprob_gap": 100.0}
    args = options(tmp_path, VisionGRPOConfig, stop_token="B", generation_kwargs={"seed": 1}, **settings)
    trainer = make_trainer(recording(VisionGRPOTrainer), any_model, args, rows(1, 0))
    stop = trainer.processing_class.tokenizer.encode("B")
    kwargs = trainer.vllm_generation.generation_kwargs
    assert kwargs["seed"] == 1
    assert kwargs["logit_bias"]
    assert kwargs["stop_token_ids"][:1] == stop
    assert END in kwargs["stop_token_ids"]
    # a reply that vLLM ended there is whole
    monkeypatch.setattr(FakeVLLM, "reply", (32, *stop))
    trainer.train()
    assert step_logs(trainer, "completions/clipped_ratio", "completions/mean_length")[0] == (0, 2)
