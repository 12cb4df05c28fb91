# SPDX-License-Identifier: Apache-2.0
import json

import pytest
from datasets import Dataset, Features, Image, Value

from open_r1_vision.data import visionary_r1
from open_r1_vision.data.loading import load_rows

TYPES = [
    ("<answer> 7 </answer>", "numerical", "7", "number"),
    ("<answer>12%</answer>", "numerical", "12%", "number"),
    (r"<think>x</think> <answer>\boxed{B}</answer>", "numerical", "B", "choice"),
    ("<answer>blue</answer>", "numerical", "blue", "text"),
    ("<answer>ACME Corp.</answer>", "OCR", "ACME Corp.", "text"),
    ("<answer>It rains.</answer>", "free-form", "It rains.", "free_form"),
    ("<answer>7</answer>", None, "7", "number"),
    ("7", "multi-choice", "7", "number"),
    ("<answer>1/2</answer>", "math", "1/2", "math"),
]


def published(png, rows):
    features = Features(
        {name: Value("string") for name in ("problem", "solution", "problem_type")} | {"image": Image()}
    )
    columns = {
        "problem": ["q"] * len(rows),
        "solution": [row[0] for row in rows],
        "problem_type": [row[1] for row in rows],
        "image": [{"bytes": png(), "path": None}] * len(rows),
    }
    return Dataset.from_dict(columns, features=features)


def test_convert(png):
    dataset = visionary_r1.convert(published(png, TYPES))
    assert list(zip(dataset["solution"], dataset["problem_type"], strict=True)) == [row[2:] for row in TYPES]
    assert list(dataset["id"]) == [f"visionary_r1-{index}" for index in range(len(TYPES))]
    assert [len(images) for images in dataset["images"]] == [1] * len(TYPES)


@pytest.mark.parametrize("row", TYPES[:7])
def test_matches(png, row):
    assert visionary_r1.matches(published(png, [row]))


def test_other_layouts_do_not_match(png):
    assert not visionary_r1.matches(published(png, [("7", "number"), ("8", None)]))
    assert not visionary_r1.matches(Dataset.from_dict({"question": ["q"]}))


def test_loaded_from_parquet_and_from_json(png, tmp_path):
    published(png, TYPES).to_parquet(tmp_path / "mix.parquet")
    rows = [{"problem": "q", "solution": row[0], "problem_type": row[1]} for row in TYPES]
    (tmp_path / "mix.json").write_text(json.dumps(rows))
    for name in ("mix.parquet", "mix.json"):
        dataset = load_rows(str(tmp_path / name))
        assert list(zip(dataset["solution"], dataset["problem_type"], strict=True)) == [row[2:] for row in TYPES]
        assert dataset[0]["id"] == "mix-0"
