# SPDX-License-Identifier: Apache-2.0
"""No network, no telemetry, one thread; tiny models of the three Qwen-VL architectures, made once for all tests."""

import os

# before anything imports torch or the Hugging Face libraries
for _name, _value in {
    "CI": "1",
    "DS_ACCELERATOR": "cpu",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}.items():
    os.environ.setdefault(_name, _value)

import pytest  # noqa: E402

ARCHITECTURES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """`model_folder(architecture)` gives the folder of a tiny random model with its processor."""
    folders = {}

    def get(architecture):
        if architecture not in folders:
            from tiny_models import save_tiny_model

            folders[architecture] = str(tmp_path_factory.mktemp(architecture))
            save_tiny_model(folders[architecture], architecture)
        return folders[architecture]

    return get


@pytest.fixture(scope="session")
def tiny_model(model_folder):
    """Folder of a tiny Qwen2.5-VL."""
    return model_folder("qwen2_5_vl")


@pytest.fixture(scope="session", params=ARCHITECTURES)
def any_model(request, model_folder):
    """Folder of a tiny model, once for each architecture."""
    return model_folder(request.param)
