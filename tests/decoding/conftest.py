# SPDX-License-Identifier: Apache-2.0
"""Tiny models that look at their inputs."""

import pytest
from slow_reference import sharpen
from transformers import AutoModelForImageTextToText

from open_r1_vision.models import load_processor


@pytest.fixture(scope="session")
def load_sharp(model_folder):
    """`load_sharp(architecture)` gives a fresh model and its processor."""

    def load(architecture="qwen2_5_vl"):
        model = AutoModelForImageTextToText.from_pretrained(model_folder(architecture)).eval()
        sharpen(model)
        return model, load_processor(model_folder(architecture))

    return load


@pytest.fixture(scope="session")
def sharp(load_sharp):
    """A Qwen2.5-VL and its processor; tests leave them as they are."""
    return load_sharp()
