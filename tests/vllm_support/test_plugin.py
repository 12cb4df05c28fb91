# SPDX-License-Identifier: Apache-2.0
"""What is changed in vLLM: on a CPU, and nothing at all on another platform. vLLM's modules are stand-ins here."""

import os
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from open_r1_vision.vllm_support import plugin

SETUP = Path(__file__).parents[2] / "setup.py"


class Platform:
    def __init__(self, name):
        self.name = name

    def is_cpu(self):
        return self.name == "cpu"

    def is_sleep_mode_available(self):
        return self.name == "cuda"


@pytest.fixture
def vllm_on(monkeypatch):
    """`vllm_on("cpu")` puts stand-ins in the place of vLLM's modules, and returns what the plugin may change."""

    def install(name):
        class Own(Platform):
            pass

        state = SimpleNamespace(
            platform=Own(name),
            utils=ModuleType("utils"),
            registry=ModuleType("registry"),
            communicator=type("CpuCommunicator", (), {"_all_group_ranks_share_shm_group_name": lambda self: True}),
        )
        state.utils.dispatch_cpu_unquantized_gemm = state.registry._run_in_subprocess = "stock"
        modules = {
            "vllm.platforms": {"current_platform": state.platform},
            "vllm.model_executor.layers": {"utils": state.utils},
            "vllm.model_executor.models": {"registry": state.registry},
            "vllm.distributed.device_communicators.cpu_communicator": {"CpuCommunicator": state.communicator},
        }
        for path in {part for module in modules for part in _parents(module)}:
            monkeypatch.setitem(sys.modules, path, ModuleType(path))
        for path, values in modules.items():
            vars(sys.modules[path]).update(values)
        for variable in plugin.ENVIRONMENT:
            monkeypatch.setenv(variable, "gone")  # so that it's put back
            monkeypatch.delenv(variable)
        return state

    return install


def _parents(module):
    names = module.split(".")
    return [".".join(names[:count]) for count in range(1, len(names) + 1)]


def test_on_a_cpu(vllm_on, monkeypatch):
    vllm = vllm_on("cpu")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "3")
    monkeypatch.setattr(plugin, "declare_missing_ops", lambda: True)
    plugin.prepare_engine()
    plugin.prepare_engine()
    expected = {**plugin.ENVIRONMENT, "VLLM_CPU_KVCACHE_SPACE": "3"}
    assert {name: os.environ[name] for name in plugin.ENVIRONMENT} == expected
    assert vllm.platform.is_sleep_mode_available()
    assert not vllm.communicator()._all_group_ranks_share_shm_group_name()
    assert vllm.registry._run_in_subprocess(lambda: 7) == 7
    # the weight stays where new ones are loaded, and is what the layer computes with
    layer = torch.nn.Linear(2, 1, bias=False)
    vllm.utils.dispatch_cpu_unquantized_gemm(layer, remove_weight=True)
    layer.weight.data = torch.tensor([[2.0, 3.0]])
    assert layer.cpu_linear(torch.tensor([1.0, 10.0]), layer.weight, None).tolist() == [32.0]


def test_where_torchvision_works_classes_are_looked_at_as_vllm_does(vllm_on, monkeypatch):
    vllm = vllm_on("cpu")
    monkeypatch.setattr(plugin, "declare_missing_ops", lambda: False)
    plugin.prepare_engine()
    assert vllm.registry._run_in_subprocess == "stock"


@pytest.mark.parametrize("name", ["cuda", "rocm"])
def test_on_a_gpu(vllm_on, monkeypatch, name):
    vllm = vllm_on(name)
    monkeypatch.setattr(plugin, "declare_missing_ops", pytest.fail)
    plugin.register()
    plugin.prepare_engine()
    assert not os.environ.keys() & plugin.ENVIRONMENT.keys()
    assert vllm.utils.dispatch_cpu_unquantized_gemm == vllm.registry._run_in_subprocess == "stock"
    assert vllm.platform.is_sleep_mode_available() is (name == "cuda")
    assert vllm.communicator()._all_group_ranks_share_shm_group_name()


def test_the_entry_point_names_the_function():
    (target,) = re.findall(r'"vllm.general_plugins": \["open_r1_vision = (.*?)"\]', SETUP.read_text())
    assert target == f"{plugin.register.__module__}:{plugin.register.__name__}"
