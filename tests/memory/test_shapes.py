# SPDX-License-Identifier: Apache-2.0
"""Parameters of the real models, counted without their weights."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForImageTextToText

from open_r1_vision.memory.shapes import KNOWN, count_adapter, read_config, read_shape, shape_of


@pytest.mark.parametrize(
    ("name", "published"),
    [
        # as the models' safetensors files add up to
        ("Qwen/Qwen2-VL-2B-Instruct", 2_208_985_600),
        ("Qwen/Qwen2-VL-7B-Instruct", 8_291_375_616),
        ("Qwen/Qwen2.5-VL-3B-Instruct", 3_754_622_976),
        ("Qwen/Qwen2.5-VL-7B-Instruct", 8_292_166_656),
        ("Qwen/Qwen3-VL-4B-Instruct", 4_437_815_808),
        ("Qwen/Qwen3-VL-8B-Instruct", 8_767_123_696),
    ],
)
def test_parameters_are_the_published_ones(name, published):
    assert read_shape(name).parameters == published


def test_every_known_model_is_published_above():
    assert len(KNOWN) == 6


def test_the_shape_of_a_model():
    shape = read_shape("Qwen/Qwen2.5-VL-7B-Instruct")
    # 28 heads of 128 numbers, 4 of keys
    assert (shape.layers, shape.hidden, shape.queries, shape.keys, shape.mlp) == (28, 3584, 3584, 512, 18944)
    assert (shape.vocabulary, shape.tied) == (152064, False)
    # keys and values: 2 x 28 layers x 512 numbers x 2 bytes
    assert shape.key_value_bytes == 57344
    # a patch has 14 x 14 pixels, a token 2 x 2 patches
    assert (shape.pixels_per_token, shape.patches_per_token) == (784, 4)
    assert (shape.vision_layers, shape.vision_hidden) == (32, 1280)


def test_heads_that_are_wider_than_the_model():
    shape = read_shape("Qwen/Qwen3-VL-4B-Instruct")
    assert (shape.hidden, shape.queries, shape.keys) == (2560, 4096, 1024)
    assert shape.pixels_per_token == 1024
    assert shape.tied


@pytest.mark.parametrize("architecture", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_a_folder_is_counted_as_its_weights_are(model_folder, architecture):
    folder = model_folder(architecture)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    assert read_shape(folder).parameters == sum(parameter.numel() for parameter in model.parameters())


def test_an_adapter_is_counted_as_peft_makes_it(model_folder):
    folder = model_folder("qwen2_5_vl")
    model = get_peft_model(
        AutoModelForImageTextToText.from_pretrained(folder),
        LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    trained, _ = model.get_nb_trainable_parameters()
    assert count_adapter(folder, 4, "all-linear") == trained
    # r numbers for each input and each output of a layer
    assert count_adapter(folder, 8, "all-linear") == 2 * trained
    some = count_adapter(folder, 4, ("q_proj",))
    # the decoder's two layers: 64 inputs, 4 heads of 16 numbers
    assert some == 2 * 4 * (64 + 64)


def test_models_that_are_not_known():
    with pytest.raises(ValueError, match=r"no configuration of 'nobody/nothing'.*name a folder.*Qwen2-VL-2B"):
        read_config("nobody/nothing")
    with pytest.raises(ValueError, match="for qwen2_vl, qwen2_5_vl, qwen3_vl, not for 'llama'"):
        shape_of(AutoConfig.for_model("llama"))


def test_nothing_is_allocated():
    from open_r1_vision.memory.shapes import build_on_meta

    model = build_on_meta(read_config("Qwen/Qwen2-VL-2B-Instruct"))
    assert {parameter.device for parameter in model.parameters()} == {torch.device("meta")}
