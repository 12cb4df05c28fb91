# SPDX-License-Identifier: Apache-2.0
import json
import logging

import pytest

from open_r1_vision.data.loading import load_rows


@pytest.fixture
def load(tmp_path, png):
    """`load(records, **options)` writes the file with one image beside it, and reads it as a recipe does."""
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "small.png").write_bytes(png(20, 20))

    def read(records, **options):
        path = tmp_path / "grpo.json"
        path.write_text(json.dumps(records))
        return load_rows("open_r1_vision.data.pebr_r1.rows", path=str(path), **options)

    return read


def record(number=1, **changes):
    row = {"qid": number, "problem": "<image>How long is AB?", "answer": " 7 ", "images": ["a.png"]}
    return {**row, "key_words": ["AB", "triangle"], **changes}


def test_the_layout(load, caplog):
    with caplog.at_level(logging.WARNING):
        dataset = load([record(), record(2, images="a.png", key_words=None), record(3, images=["none.png"])])
    assert list(dataset["id"]) == ["1", "2"]
    row = dataset[0]
    assert (row["problem"], row["solution"], row["problem_type"]) == ("<image>How long is AB?", "7", "number")
    assert [row["key_words"] for row in dataset] == [["AB", "triangle"], []]
    assert row["images"][0].size == (56, 56) and row["source"] == "pebr_r1"
    assert "1  image missing (3)" in caplog.text
    assert list(load([record(), record(2, images=["small.png"])])["id"]) == ["1"]
    assert list(load([record(), record(2, images=["small.png"])], check_images=False)["id"]) == ["1", "2"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": ""}, "row 0: 'answer' must hold a text, but the row has 'qid', 'problem'"),
        ({"key_words": [3]}, r"row 0: `key_words` is \[3\], but it must be a list of texts"),
        ({"key_words": "AB"}, "row 0: `key_words` is 'AB', but"),
        ({"images": ["none.png"]}, "(?s)No row of .* is left. Set `images` .*1  image missing"),
    ],
)
def test_errors(load, changes, message):
    with pytest.raises(ValueError, match=message):
        load([record(**changes)])


def test_no_file():
    with pytest.raises(FileNotFoundError, match="set `path` to PeBR-R1's JSON file"):
        load_rows("open_r1_vision.data.pebr_r1.rows", path="none.json")
