# SPDX-License-Identifier: Apache-2.0
"""The notebooks run from first cell to last."""

import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def code_cells(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[pytest.mark.slow] if path.stem.startswith("train") else []) for path in NOTEBOOKS],
    ids=lambda path: path.stem,
)
def test_cells_in_order(path, tmp_path, monkeypatch):
    """As a kernel does it: one namespace, one cell after the other, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    namespace: dict = {}
    for cell in code_cells(path):
        exec(compile(cell, path.name, "exec"), namespace)
    if "trainer" in namespace:
        assert namespace["trainer"].state.global_step == namespace["args"].max_steps


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_shipped_without_outputs(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
