# SPDX-License-Identifier: Apache-2.0
import json

import pytest
from running import TINY, run_bench
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLDecoderLayer

from open_r1_vision.bench.__main__ import main


def test_update(tmp_path, capsys):
    words = ["update", "--shape", "tiny", "--pixels", "112", "--prompts", "2", "--generations", "4", "--tokens", "6"]
    main([*words, "--repeats", "2", "--device", "cpu", "--json", str(tmp_path / "update.json")])
    result = json.loads((tmp_path / "update.json").read_text())
    stock, ours = result["rows"]
    assert (stock["trainer"], ours["trainer"]) == ("stock", "ours")
    assert stock["times as fast"] == stock["by processor"] == stock["share of peak"] == 1
    assert ours["times as fast"] == pytest.approx(stock["seconds"] / ours["seconds"])
    assert ours["tokens/s"] == pytest.approx(48 / ours["seconds"])
    assert stock["least"] <= stock["seconds"] <= stock["most"]
    assert stock["log-prob gap"] == stock["gradient gap"] == 0
    assert 0 <= ours["log-prob gap"] < 1e-5
    assert 0 <= ours["gradient gap"] < 1e-4
    assert result["command"][3:5] == ["update", "--shape"]
    assert set(result["versions"]) == {"torch", "transformers", "trl"}
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines[-4:]] == ["| trainer", "| ---", "| stock", "| ours"]


def test_prompts_without_images(tmp_path):
    rows = run_bench(tmp_path, "update", *TINY, "--generations", 2, "--tokens", 4, "--repeats", 1, "--images", 0)
    assert rows["ours"]["log-prob gap"] < 1e-5
    assert rows["ours"]["gradient gap"] < 1e-4


@pytest.mark.parametrize(("words", "passes"), [([], 1), (["--gradient-checkpointing"], 2)])
def test_layers_are_computed_again(tmp_path, monkeypatch, words, passes):
    calls = []
    forward = Qwen2_5_VLDecoderLayer.forward

    def counted(self, *args, **kwargs):
        calls.append(self)
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(Qwen2_5_VLDecoderLayer, "forward", counted)
    sizes = ["--generations", 2, "--tokens", 4, "--repeats", 1]
    assert run_bench(tmp_path, "update", *TINY, *sizes, *words)["ours"]["gradient gap"] < 1e-4
    # 2 trainers and 2 layers: once for log-probabilities, and in 2 rounds of loss and gradients
    assert len(calls) == 2 * 2 * (1 + 2 * passes)
