# SPDX-License-Identifier: Apache-2.0
"""Which logits are calibrated, and what the stream without images leaves alone."""

import math

import pytest
import torch
from slow_reference import both_logits, build_chats, calibrated, encode
from transformers import LogitsProcessor

from open_r1_vision.decoding import CalibratedGenerator, Calibration
from open_r1_vision.decoding.streams import TextStream

#: Replies with multi-token tags, and which of their tokens are inside of the span: from the token after an opening tag
#: to the last one of the closing tag. The third chat has no image.
SCRIPTS = (
    ("ab<info>cd</info>efghijklm", "00000000111111111000000000"),
    ("<info>x</info> <info>yz < ", "00000011111111000000011111"),
    ("<info>x</info> <info>yz < ", "00000000000000000000000000"),
    ("<inf>ab</info> <think> abc", "00000000000000000000000000"),
)


class Script(LogitsProcessor):
    """Keeps the scores it is given, and leaves one token for each row."""

    def __init__(self, processor, texts):
        self.tokens = processor.tokenizer(texts)["input_ids"]
        self.scores = []

    def __call__(self, input_ids, scores):
        step = len(self.scores)
        self.scores.append(scores.clone())
        chosen = torch.tensor([[tokens[step]] for tokens in self.tokens])
        return torch.full_like(scores, -math.inf).scatter(1, chosen, 0.0)


def test_only_the_span_is_calibrated(sharp):
    model, processor = sharp
    texts = [text for text, _ in SCRIPTS]
    chats = build_chats([1, 2, 0, 1])
    script = Script(processor, texts)
    generator = CalibratedGenerator(model, processor, Calibration(0.8, span="info"), logits_processor=[script])
    assert generator(chats, len(texts[0])) == texts
    for row, (_, inside) in enumerate(SCRIPTS):
        inputs = encode(processor, chats[row])
        for step, flag in enumerate(inside):
            with_image, without = both_logits(model, inputs, script.tokens[row][:step])
            mixed = calibrated(with_image, without, 0.8)
            if row != 2:
                assert (mixed - with_image).abs().max() > 0.01
            expected = mixed if flag == "1" else with_image
            torch.testing.assert_close(script.scores[step][row], expected, atol=1e-4, rtol=0)


def count_passes(model, generator, chats, num_tokens):
    lengths = []
    handle = model.register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    generator(chats, num_tokens)
    handle.remove()
    return lengths


def test_outside_of_a_span_there_is_one_pass_a_step(sharp):
    model, processor = sharp
    texts = ["abcd<info>e</info>fghijkl", "abcdefg<info>h</info>ijkl"]
    chats = build_chats([1, 1])
    # for one text after the other: outside, inside from the 10th token to the 17th, or from the 13th to the 20th
    for script, num_inside in ((texts, 11), (texts[:1] * 2, 8), (["a" * 25] * 2, 0)):
        options = {"logits_processor": [Script(processor, script)]}
        generator = CalibratedGenerator(model, processor, Calibration(0.8, span="info"), **options)
        assert len(count_passes(model, generator, chats, 25)) == 25 + num_inside
    whole = CalibratedGenerator(model, processor, Calibration(0.8), logits_processor=[Script(processor, texts)])
    assert len(count_passes(model, whole, chats, 25)) == 2 * 25
    plain = CalibratedGenerator(model, processor, Calibration(0.0), logits_processor=[Script(processor, texts)])
    assert len(count_passes(model, plain, chats, 25)) == 25


@pytest.mark.parametrize("architecture", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_rope_deltas_stay_those_of_the_stream_with_images(load_sharp, architecture):
    model, processor = load_sharp(architecture)
    chats = build_chats([1, 2, 0, 1])
    deltas = []
    for scale in (0.0, 0.8):
        CalibratedGenerator(model, processor, Calibration(scale)).generate_ids(chats, 3)
        deltas.append(model.model.rope_deltas)
    assert deltas[0].tolist() == deltas[1].tolist()
    assert deltas[0].unique().numel() > 1


def test_the_text_stream_reads_what_it_missed(sharp):
    model, processor = sharp
    prompts = torch.tensor([[256, 256, 65, 66], [67, 68, 69, 70]])
    mask = (prompts != 256).long()
    stream = TextStream(model, prompts, mask)
    reply = [[71, 72, 73, 74], [75, 76, 77, 78]]
    for step in range(5):
        if step in (0, 1, 4):
            logits = stream.next_logits()
            for row, prompt in enumerate(([65, 66], [67, 68, 69, 70])):
                expected = model(input_ids=torch.tensor([prompt + reply[row][:step]]), use_cache=False).logits[0, -1]
                torch.testing.assert_close(logits[row], expected, atol=1e-4, rtol=0)
        if step < 4:
            stream.append(torch.tensor([row[step] for row in reply]))


def test_no_hook_stays_on_the_model_after_an_error(sharp):
    model, processor = sharp

    def fail(input_ids, scores, **kwargs):
        raise RuntimeError("stopped by the test")

    generator = CalibratedGenerator(model, processor, Calibration(0.8), stopping_criteria=[fail])
    with pytest.raises(RuntimeError, match="stopped by the test"):
        generator(build_chats([1]), 3)
    assert not model._forward_hooks
