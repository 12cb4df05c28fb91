# SPDX-License-Identifier: Apache-2.0
import json
import logging
import sys
import types

import pytest
from datasets import Dataset

from open_r1_vision.data.loading import load_rows, load_table


@pytest.fixture
def save(tmp_path, png):
    """`save(name, rows)` writes rows, or lessons, to a parquet file."""

    def write(name, rows):
        path = tmp_path / f"{name}.parquet"
        Dataset.from_list(rows).to_parquet(path)
        return str(path)

    return write


def merge(*datasets, load=load_table, **options):
    return load("open_r1_vision.data.merged.rows", datasets=list(datasets), **options)


def row(number, **more):
    return {"id": str(number), "problem": f"{number}?", "solution": "7", "problem_type": "number", **more}


def lesson(number, text="1"):
    content = [{"type": "text", "text": f"{number}?"}]
    reply = [{"type": "text", "text": text}]
    return {
        "id": str(number),
        "prompt": [{"role": "user", "content": content}],
        "completion": [{"role": "assistant", "content": reply}],
    }


def test_rows_of_several_sets(save, png, caplog):
    one = save("one", [row(1, key_words=["a"], level=1, note="x"), row(2, key_words=["b"], level=2, note="y")])
    two = save("two", [row(3, images=[{"bytes": png(), "path": None}], level=3)])
    with caplog.at_level(logging.WARNING):
        merged = merge({"dataset": one, "dataset_split": "train[1:]"}, two, load=load_rows)
    assert list(merged["id"]) == ["2", "3"]
    assert list(merged["key_words"]) == [["b"], []]
    assert list(merged["level"]) == [2, 3]
    assert list(merged["source"]) == ["one", "two"]
    assert [len(images) for images in merged["images"]] == [0, 1]
    assert "note" not in merged.column_names
    assert "one.parquet: the columns note are dropped" in caplog.text


def test_lessons_of_several_layouts(save, tmp_path, png):
    (tmp_path / "a.png").write_bytes(png())
    turns = [{"role": "user", "content": "<image>?"}, {"role": "assistant", "content": "9"}]
    (tmp_path / "sft.json").write_text(json.dumps([{"messages": turns, "images": ["a.png"]}]))
    mulberry = {
        "dataset": "open_r1_vision.data.mulberry.rows",
        "dataset_options": {"path": str(tmp_path / "sft.json")},
    }
    plain = save("plain", [{"messages": [{"role": "user", "content": "3?"}, {"role": "assistant", "content": "3"}]}])
    starter = {"dataset": "open_r1_vision.starter.warm_up.rows", "dataset_options": {"count": 4}}
    merged = merge(mulberry, save("lessons", [lesson(1), lesson(2)]), plain, starter)
    assert merged.column_names == ["id", "images", "prompt", "completion", "source"]
    assert list(merged["id"])[:4] == ["mulberry-0", "1", "2", "plain-0"]
    assert list(merged["source"])[:4] == ["mulberry", "lessons", "lessons", "plain"]
    assert [len(images) for images in merged["images"]][:4] == [1, 0, 0, 0]
    assert [row["completion"][0]["content"][0]["text"] for row in merged][:4] == ["9", "1", "1", "3"]
    assert merged[3]["prompt"] == [{"role": "user", "content": [{"type": "text", "text": "3?"}]}]
    assert len(merged) == 8 and len(set(merged["id"])) == 8


def test_ids_stay_unique(save, caplog):
    one, two = (
        save("one", [lesson(1), lesson(2), lesson("1-2")]),
        save("two", [lesson(1, "new"), lesson(2), lesson(3)]),
    )
    with caplog.at_level(logging.WARNING):
        merged = merge(one, two)
    assert list(merged["id"]) == ["1", "2", "1-2", "1-3", "2-2", "3"]
    assert merged[3]["completion"][0]["content"][0]["text"] == "new"
    assert "2 rows with the id of an earlier one got a number behind it, such as '1', '2'." in caplog.text
    assert list(merge(one, two, duplicates="drop")["id"]) == ["1", "2", "1-2", "3"]
    with pytest.raises(ValueError, match="2 rows have the id of an earlier one, such as '1', '2': set duplicates to"):
        merge(one, two, duplicates="refuse")


def test_what_can_not_be_merged(save, monkeypatch):
    lessons, rows = save("lessons", [lesson(1)]), save("rows", [row(1)])
    with pytest.raises(ValueError, match="lessons.parquet hold lessons .* but .*rows.parquet hold rows for training"):
        merge(lessons, rows)
    with pytest.raises(ValueError, match="Unknown key 'split' of .*it takes dataset, dataset_split"):
        merge({"dataset": rows, "split": "test"})
    with pytest.raises(ValueError, match="names no data set to merge"):
        merge({"dataset_split": "test"})
    with pytest.raises(ValueError, match="`datasets` is .*: give a list of data sets"):
        load_table("open_r1_vision.data.merged.rows", datasets=rows)
    with pytest.raises(ValueError, match="duplicates is 'keep': set it to one of rename, drop, refuse"):
        merge(rows, duplicates="keep")
    with pytest.raises(ValueError, match="plain texts as prompt and completion, which can't be merged"):
        merge(lessons, save("texts", [{"prompt": "a", "completion": "b"}]))
    with pytest.raises(ValueError, match="have a column `image`: give lists in `images`"):
        merge(save("single", [{**lesson(1), "image": "a.png"}]))


def test_all_missing_files_are_told_of_at_once(save):
    missing = [
        {"dataset": "open_r1_vision.data.mulberry.rows", "dataset_options": {"path": f"{x}.json"}} for x in "ab"
    ]
    with pytest.raises(FileNotFoundError, match=r"There is no file 'a.json'.*\nThere is no file 'b.json'"):
        merge(missing[0], save("lessons", [lesson(1)]), missing[1])


def test_a_callable_of_the_users_own(monkeypatch, save):
    module = types.ModuleType("my_sets")
    module.rows = lambda split: [row(f"{split}-1")]
    monkeypatch.setitem(sys.modules, "my_sets", module)
    merged = merge("my_sets.rows", {"dataset": "my_sets.rows", "dataset_split": "dev"}, load=load_rows)
    assert list(merged["id"]) == ["train-1", "dev-1"]
