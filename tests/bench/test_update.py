# SPDX-License-Identifier: Apache-2.0
import json

import pytest

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
