# SPDX-License-Identifier: Apache-2.0
"""A stand-in for vLLM's offline engine."""

import sys
from importlib import import_module
from types import ModuleType, SimpleNamespace

from tiny_models import END


class FakeLLM:
    """Stands for vllm.LLM: replies "AB", or at odd seeds what the limit cuts, and keeps what it is asked."""

    made: list = []

    def __init__(self, **kwargs):
        self.kwargs, self.requests, self.params = kwargs, [], []
        self.made.append(self)

    def generate(self, requests, params, use_tqdm):
        assert len(requests) == len(params)
        self.requests += requests
        self.params += params
        one = SimpleNamespace(token_ids=[32, 33, END], finish_reason="stop")
        cut = SimpleNamespace(token_ids=(32, 33, 34, 35), finish_reason="length")
        return [SimpleNamespace(outputs=[cut if param.seed % 2 else one]) for param in params]


def install(monkeypatch):
    """Put it in vllm's place, on a platform that is no CPU; gives the list of engines that will be made."""
    # TRL asks for vllm when its trainers are imported, and would find the stand-in
    import_module("open_r1_vision.trainers.base")
    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = FakeLLM, lambda **kwargs: SimpleNamespace(**kwargs)
    monkeypatch.setitem(sys.modules, "vllm", module)
    platforms = ModuleType("vllm.platforms")
    platforms.current_platform = SimpleNamespace(is_cpu=lambda: False)
    monkeypatch.setitem(sys.modules, "vllm.platforms", platforms)
    for name in ("sampling.vllm", "reasoners.backends"):
        monkeypatch.setattr(import_module(f"open_r1_vision.{name}"), "check_installation", lambda *asked: None)
    monkeypatch.setattr(FakeLLM, "made", [])
    return FakeLLM.made
