# SPDX-License-Identifier: Apache-2.0
import argparse

import pytest
import torch

from open_r1_vision.bench.__main__ import main
from open_r1_vision.bench.models import VOCABULARY, build_model, build_processor_for, build_rows

SIZES = {"shape": "3b", "pixels": 1008, "images": 1, "prompts": 2}
ARGS = argparse.Namespace(**SIZES, device="meta", dtype="bfloat16", attention="sdpa")


def test_3b_has_the_parameters_of_qwen2_5_vl_3b():
    model = build_model(ARGS)
    # 36 layers of queries, keys and values with biases, output, MLP and two norms; embeddings, a norm
    layer = 2048 * (2048 + 2 * 256) + 2048 + 2 * 256 + 2048 * 2048 + 3 * 2048 * 11008 + 2 * 2048
    text = 151936 * 2048 + 36 * layer + 2048
    # 32 blocks of attention and MLP with biases, and two norms; patches of 2 frames, the merger
    block = 1280 * 3840 + 3840 + 1280 * 1280 + 1280 + 3 * 1280 * 3420 + 2 * 3420 + 1280 + 2 * 1280
    vision = 3 * 2 * 14 * 14 * 1280 + 32 * block + 1280 + 5120 * 5120 + 5120 + 5120 * 2048 + 2048
    assert text + vision == 3_754_622_976
    assert sum(weights.numel() for weights in model.parameters()) == text + vision
    assert model.config.text_config.rope_parameters["mrope_section"] == [16, 24, 24]
    assert {weights.dtype for weights in model.parameters()} == {torch.bfloat16}


def test_random_tokens_are_read_again_as_they_are():
    tokenizer = build_processor_for(ARGS).tokenizer
    ids = [500, 151935, 496, 100000, 1234]
    assert len(tokenizer) == VOCABULARY["3b"]
    assert tokenizer(tokenizer.decode(ids))["input_ids"] == ids


def test_rows():
    rows = build_rows(ARGS, steps=[["a"], []], solution=["x", "y"])
    assert rows["solution"] == ["x", "y"]
    assert rows["steps"] == [["a"], []]
    assert rows[1]["images"][0].size == (1008, 1008)
    # 72 x 72 patches of 14 pixels, 4 of which are one token
    assert build_processor_for(ARGS)(images=rows[1]["images"], text="<|image_pad|>")["input_ids"] == [[5] * 1296]


@pytest.mark.parametrize(("given", "advice"), [("1024", "1008 or 1036"), ("28", "56 or 84"), ("57", "56 or 84")])
def test_sizes_that_images_would_not_keep_are_refused(capsys, given, advice):
    with pytest.raises(SystemExit):
        main(["step", "--pixels", given])
    assert f"{given} is no multiple of 28" in (error := capsys.readouterr().err)
    assert f"give {advice}" in error
