# SPDX-License-Identifier: Apache-2.0
import json
import logging

import pytest

from open_r1_vision.data import mulberry
from open_r1_vision.data.loading import load_table

REPLY = "### Image Description: d\n### Rationales: r\n### Step 1: s\n### The final answer is: 7"


def record(images, question="<image>\nHow many?", reply=REPLY, **more):
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": reply}]
    return {"messages": turns, "images": images, **more}


@pytest.fixture
def load(tmp_path, png):
    """`load(records, **options)` writes the file and its images, and reads it as a recipe does."""
    folder = tmp_path / "pages"
    folder.mkdir()
    for name, size in {"a": (56, 56), "b": (28, 300), "narrow": (27, 300), "low": (300, 27)}.items():
        (folder / f"{name}.png").write_bytes(png(*size))
    (folder / "broken.png").write_bytes(png()[:60])
    (folder / "text.png").write_text("no image")

    def read(records, **options):
        path = tmp_path / "sft.json"
        path.write_text(json.dumps(records))
        return load_table("open_r1_vision.data.mulberry.rows", path=str(path), **options)

    return read


def test_a_conversation_becomes_a_lesson(load):
    dataset = load([record(["pages/a.png"], reply=f" {REPLY}\n"), record("pages/b.png", id=7)])
    assert dataset.column_names == ["id", "images", "prompt", "completion", "source"]
    assert list(dataset["id"]) == ["mulberry-0", "7"]
    row = dataset[0]
    assert [image.size for image in row["images"]] == [(56, 56)]
    assert row["prompt"] == [
        {"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": "\nHow many?"}]}
    ]
    assert row["completion"] == [{"role": "assistant", "content": [{"type": "text", "text": REPLY}]}]
    assert dataset[1]["images"][0].size == (28, 300)


def test_what_is_dropped_is_counted_by_reason(load, caplog):
    records = [
        record(["pages/a.png"]),
        record(["pages/a.png"], reply="Hm. LET ME rethink it. 7"),
        record(["pages/none.png"], reply="let me rethink it"),
        record(["pages/none.png"]),
        record(["pages/narrow.png"]),
        record(["pages/a.png", "pages/low.png"]),
        record(["pages/broken.png"]),
        record(["pages/text.png"]),
        record([], question="No image?"),
        record(None, question="No key?"),
        record([], reply=" "),
        {"messages": [{"role": "user", "content": "and then?"}]},
        {"messages": []},
        record([], question="<video>\nHow many?"),
    ]
    with caplog.at_level(logging.WARNING):
        dataset = load(records)
    assert list(dataset["id"]) == ["mulberry-0", "mulberry-8", "mulberry-9"]
    assert dataset[1]["images"] == []
    assert caplog.messages[0].splitlines()[1:] == [
        "  kept           2  no image",
        "  kept           1  as many image markers as images",
        "  dropped        2  reply rethinks (mulberry-1, mulberry-2)",
        "  dropped        2  turns out of order (mulberry-11, mulberry-12)",
        "  dropped        2  image too small (mulberry-4, mulberry-5)",
        "  dropped        2  image unreadable (mulberry-6, mulberry-7)",
        "  dropped        1  image missing (mulberry-3)",
        "  dropped        1  empty reply (mulberry-10)",
        "  dropped        1  video (mulberry-13)",
    ]


def test_options(load, tmp_path):
    records = [
        record(["a.png"], reply=f"Let me rethink it. {REPLY}"),
        record(["narrow.png"]),
        record(["broken.png"], reply="7"),
    ]
    folder = str(tmp_path / "pages")
    assert list(load(records, images=folder, drop_reflective=False, source="s")["id"]) == ["s-0"]
    assert list(load(records, images=folder, min_side=27)["id"]) == ["mulberry-1"]
    assert list(load(records, images=folder, check_images=False)["id"]) == ["mulberry-1", "mulberry-2"]
    assert list(load(records, images=folder, check_images=False, check_sections=True)["id"]) == ["mulberry-1"]


def test_markers_that_do_not_fit_put_the_images_first(load):
    (row,) = load([record(["pages/a.png", "pages/b.png"], question="See <image> here")])
    assert [part["type"] for part in row["prompt"][0]["content"]] == ["image", "image", "text"]
    assert row["prompt"][0]["content"][-1]["text"] == "See here"
    (row,) = load([record([], question="<image>\nHow many?")])
    assert row["prompt"][0]["content"] == [{"type": "text", "text": "How many?"}]


def test_each_reply_is_a_lesson_with_the_turns_before_it(load):
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "<image>One?"},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": "And <image>?"},
        {"role": "assistant", "content": "2"},
    ]
    one, two = load([{"messages": turns, "images": ["pages/a.png", "pages/b.png"], "id": "x"}])
    assert (one["id"], two["id"]) == ("x", "x-2")
    assert [image.size for image in one["images"]] == [(56, 56)]
    assert [image.size for image in two["images"]] == [(56, 56), (28, 300)]
    assert [turn["role"] for turn in one["prompt"]] == ["system", "user"]
    assert [turn["role"] for turn in two["prompt"]] == ["system", "user", "assistant", "user"]
    assert [part["type"] for part in two["prompt"][-1]["content"]] == ["text", "image", "text"]
    assert two["completion"][0]["content"][0]["text"] == "2"


def test_errors(load, tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file 'none.json' .*set `path` to the JSON file of"):
        mulberry.rows(path="none.json")
    with pytest.raises(ValueError, match="'mulberry-0' has the keys 'conversations', but `messages` must be a list"):
        load([{"conversations": []}])
    with pytest.raises(ValueError, match="the images 3: give a list of paths"):
        load([record(3)])
    with pytest.raises(ValueError, match=r"(?s)No conversation became a lesson. Set `images` .*1  image missing"):
        load([record(["a.png"])])
