# SPDX-License-Identifier: Apache-2.0
"""Small engines in one process, models that vLLM's attention takes on a CPU, and the table of gaps at the end."""

import functools
import gc
import os
import tempfile

# declares torchvision's operators before anything imports transformers
import open_r1_vision

os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")

import pytest  # noqa: E402

assert open_r1_vision.__version__
_GAPS = []


@pytest.fixture(scope="session")
def wide_model(tmp_path_factory):
    """`wide_model(architecture)` gives the folder of a tiny random model with heads of 32."""
    from tiny_models import save_tiny_model

    @functools.cache
    def get(architecture="qwen2_5_vl"):
        folder = str(tmp_path_factory.mktemp(f"wide_{architecture}"))
        save_tiny_model(folder, architecture, head_dim=32)
        return folder

    return get


@pytest.fixture(scope="session")
def starter():
    from open_r1_vision.starter.model import policy

    return policy()


@pytest.fixture
def small_engines(monkeypatch):
    """Engines with 64 MiB for keys and values, not a GiB each."""
    from trl.generation import vllm_generation

    from open_r1_vision.vllm_support import plugin

    name = "VLLM_CPU_KVCACHE_SPACE"
    monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(
        plugin, "ENVIRONMENT", {key: plugin.ENVIRONMENT[key] for key in plugin.ENVIRONMENT.keys() - {name}}
    )
    stock = vllm_generation.LLM
    monkeypatch.setattr(vllm_generation, "LLM", lambda **kwargs: stock(**{**kwargs, "kv_cache_memory_bytes": 2**26}))
    yield
    gc.collect()


@pytest.fixture
def make(small_engines, tmp_path):
    """`make(model, rows, trainer_class, config_class, dtype=..., **options)` builds a trainer with an engine."""
    from tiny_models import make_trainer, options, recording

    from open_r1_vision.trainers import VisionGRPOTrainer

    def build(model, dataset, trainer_class=VisionGRPOTrainer, config_class=None, dtype="float32", **settings):
        own = {name: settings.pop(name) for name in ("peft_config", "gate", "processing_class") if name in settings}
        reward = {"reward": settings.pop("reward")} if "reward" in settings else {}
        defaults = {
            "use_vllm": True,
            "vllm_gpu_memory_utilization": 0.1,
            "vllm_max_model_length": 512,
            "model_init_kwargs": {"dtype": dtype},
            "learning_rate": 1e-3,
        }
        folder = tempfile.mkdtemp(dir=tmp_path)
        args = options(folder, config_class, **{**defaults, **settings})
        return make_trainer(recording(trainer_class), model, args, dataset, **reward, **own)

    return build


@pytest.fixture
def gaps():
    """`gaps(what, trainer)` gives the gap of each step, and puts a line into the table that is printed at the end."""

    def read(what, trainer_or_history):
        history = getattr(getattr(trainer_or_history, "state", None), "log_history", trainer_or_history)
        name = "sampling/sampling_logp_difference/mean"
        values = [entry[name] for entry in history if name in entry]
        _GAPS.append((what, values))
        return values

    return read


def pytest_terminal_summary(terminalreporter):
    if _GAPS:
        terminalreporter.section("log-probabilities, vLLM against the trainer: mean absolute gap of a step")
        for what, values in _GAPS:
            mean = sum(values) / len(values)
            terminalreporter.write_line(f"{what:60} {len(values):3} steps  mean {mean:.1e}  largest {max(values):.1e}")
