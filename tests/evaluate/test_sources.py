# SPDX-License-Identifier: Apache-2.0
"""Rows from JSON, parquet and data sets; our own rows, GeoQA's file and the starter's pages as benchmarks."""

import json

import pytest
from PIL import Image as PILImage

from open_r1_vision.evaluate import benchmarks
from open_r1_vision.evaluate.sources import Row, read_rows


def figures(benchmark, items, records):
    return {metric.name: (round(metric.value, 4), metric.n) for metric in benchmark.metrics(items, records)}


def test_a_row_keeps_texts_and_reads_lists():
    row = Row("here", {"a": "None", "b": None, "c": "", "d": ["x", 2], "e": "['y']", "n": 0, "options": "[]"}, ())
    assert [row.text(name) for name in "abcn"] == ["None", "", "", "0"]
    assert row.text("b", "c", "a") == "None"
    assert row.texts("d") == ["x", "2"] and row.texts("e") == ["y"] and row.texts("b", "missing") == []
    assert row.options() == {}
    with pytest.raises(ValueError, match="here: column 'options': 'x' should be a Python list"):
        Row("here", {"options": "x"}, ()).options()


def test_jsonl_with_image_paths(tmp_path, picture):
    (tmp_path / "a.png").write_bytes(picture(3))
    lines = [{"pid": "7", "image": "a.png", "question": "Q?", "answer": "None"}, {"pid": 8, "image": None}]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    first, second = read_rows(path)
    assert first.columns == {"pid": "7", "question": "Q?", "answer": "None", "index": "7"}
    assert first.images[0]().size == (33, 40) and second.images == () and second.text("index") == "8"
    assert first.place.endswith("rows.jsonl', row 1")
    path.write_text(json.dumps({"image": "none.png"}), encoding="utf-8")
    with pytest.raises(ValueError, match="row 1: there is no image .*none.png"):
        read_rows(path)
    path.write_text(json.dumps({"image": 7}), encoding="utf-8")
    with pytest.raises(ValueError, match="row 1: the image is given as 7, a int"):
        read_rows(path)


def test_a_mathvista_data_set(tmp_path, picture):
    """The layout of AI4Math/MathVista: `image` is a name, `decoded_image` has the pixels."""
    from datasets import Dataset, DatasetDict, Features, Image, List, Value

    text = Value("string")
    features = Features(
        dict.fromkeys(("pid", "question", "image", "answer", "question_type", "answer_type", "query"), text)
        | {"decoded_image": Image(), "choices": List(text), "precision": Value("float64")}
        | {"metadata": {"task": text, "skills": List(text)}}
    )
    about = {"image": "images/1.jpg", "metadata": {"task": "geometry problem solving", "skills": ["logic"]}}
    rows = [
        {
            "pid": "1",
            "question": "Which?",
            "query": "Hint.\nWhich?",
            "answer": "three",
            "question_type": "multi_choice",
        }
        | {"answer_type": "text", "choices": ["two", "three"], "decoded_image": {"bytes": picture(1)}, **about},
        {
            "pid": "2",
            "question": "How long?",
            "query": "Hint.\nHow long?",
            "answer": "1.2",
            "question_type": "free_form",
        }
        | {"answer_type": "float", "precision": 1.0, "decoded_image": {"bytes": picture(2)}, **about},
    ]
    columns = {name: [row.get(name) for row in rows] for name in features}
    split = Dataset.from_dict(columns, features=features)
    DatasetDict({"testmini": split, "test": split.select([0])}).save_to_disk(tmp_path / "data")
    benchmark = benchmarks.find("mathvista")
    for path in (tmp_path / "data", f"{tmp_path / 'data'}::testmini"):
        first, second = benchmark.read(path)
        assert (first.index, first.answer, first.options) == ("1", "B", {"A": "two", "B": "three"})
        assert first.open_images()[0].size == (31, 40) and len(first.images) == 1
        assert first.question == "Hint.\nWhich?"
        assert benchmark.score(second, "1.23") == 1
    with pytest.raises(ValueError, match="no split 'validation'"):
        benchmark.read(f"{tmp_path / 'data'}::validation")


def test_an_mmmu_data_set_in_parquet(tmp_path, picture):
    """The layout of MMMU/MMMU: options as a list in a text, images in seven columns."""
    from datasets import Dataset, Features, Image, Value

    names = ("id", "question", "options", "answer", "question_type")
    features = Features({**{name: Value("string") for name in names}, "image_1": Image(), "image_2": Image()})
    rows = {
        "id": ["validation_Art_1", "validation_Art_2"],
        "question": ["See <image 1> and <image 2>.", "How many?"],
        "options": ["['<image 1>', 'b']", "[]"],
        "answer": ["B", "3"],
        "question_type": ["multiple-choice", "open"],
        "image_1": [{"bytes": picture(1)}, {"bytes": picture(2)}],
        "image_2": [{"bytes": picture(3)}, None],
    }
    Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "validation.parquet")
    benchmark = benchmarks.find("mmmu")
    first, second = benchmark.read(tmp_path / "validation.parquet")
    assert [image.width for image in first.open_images()] == [31, 33] and len(second.images) == 1
    assert first.options == {"A": "<image 1>", "B": "b"} and second.options == {}
    widths = [part["image"].width for part in benchmark.messages(first, "benchmark")[0]["content"] if "image" in part]
    assert widths == [31, 33, 31]


def test_an_mmstar_data_set_has_its_options_in_the_question(tmp_path, picture):
    from datasets import Dataset, Features, Image, Value

    names = ("question", "answer", "category", "l2_category")
    features = Features({"index": Value("int64"), **{name: Value("string") for name in names}, "image": Image()})
    question = "Which?\nOptions: A: cat, B: dog, C: bird, D: None of these"
    rows = {"index": [0], "question": [question], "answer": ["C"], "category": ["x"], "l2_category": ["y"]}
    Dataset.from_dict({**rows, "image": [{"bytes": picture()}]}, features=features).to_parquet(
        tmp_path / "val.parquet"
    )
    benchmark = benchmarks.find("mmstar")
    (item,) = benchmark.read(tmp_path / "val.parquet")
    assert item.options == {"A": "cat", "B": "dog", "C": "bird", "D": "None of these"}
    assert benchmark.messages(item, "benchmark")[0]["content"][1]["text"] == question
    assert benchmark.messages(item, "method")[0]["content"][1]["text"] == question


def test_our_rows(tmp_path, picture, answered):
    (tmp_path / "a.png").write_bytes(picture())
    rows = [
        {"id": "a", "image": "a.png", "problem": "Which?\nA. cat\nB. dog", "solution": "B", "problem_type": "choice"},
        {"id": "b", "image": "a.png", "problem": "How many?", "solution": "7 cm", "problem_type": "number"},
        {"id": "c", "image": None, "problem": "Read.", "solution": "silent night", "problem_type": "text"},
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    benchmark = benchmarks.find("rows")
    items = benchmark.read(tmp_path / "rows.jsonl")
    assert [item.index for item in items] == ["a", "b", "c"]
    assert items[0].cluster == items[1].cluster != items[2].cluster
    records = answered(benchmark, items, [f"<answer>{text}</answer>" for text in ("dog", "7", "silent nights")])
    # ANLS of one letter too many in 13
    assert [round(record.score, 4) for record in records] == [1, 1, round(12 / 13, 4)]
    assert figures(benchmark, items, records) == {"rows_mean": (round((2 + 12 / 13) / 3, 4), 3)}
    (tmp_path / "rows.jsonl").write_text("\n".join([json.dumps(rows[0])] * 2), encoding="utf-8")
    with pytest.raises(ValueError, match="the index 'a' stands in 2 rows"):
        benchmark.read(tmp_path / "rows.jsonl")


def test_geo170k(tmp_path, picture, answered):
    folder = tmp_path / "Geo170K" / "images" / "test"
    folder.mkdir(parents=True)
    golds = ["140°", "8√{3}", "5cm^2^", "9米"]
    for number in range(4):
        (folder / f"{number}.png").write_bytes(picture(number))
    lines = [
        {"image_path": f"./Geo170K/images/test/{n}.png", "question": "Angle 2 is ()", "ground_truth": gold}
        for n, gold in enumerate(golds)
    ]
    path = tmp_path / "geoqa_test_prompts.jsonl"
    path.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
    benchmark = benchmarks.find("geo170k_754")
    items = benchmark.read(path)
    assert [item.index for item in items] == ["geoqa-0", "geoqa-1", "geoqa-2", "geoqa-3"]
    texts = ["<answer>140</answer>", r"\boxed{8\sqrt{3}}", "The answer is 5.", "<answer>9 cm</answer>"]
    records = answered(benchmark, items, texts)
    assert [record.score for record in records] == [1, 1, 1, 0]
    assert figures(benchmark, items, records) == {"geo170k_754_accuracy": (0.75, 4)}
    (folder / "2.png").unlink()
    with pytest.raises(FileNotFoundError, match="1 of the 4 images"):
        benchmark.read(path)


def test_the_starters_pages(answered):
    pytest.importorskip("sklearn")
    benchmark = benchmarks.find("starter_digits")
    assert not benchmark.needs_file
    items = benchmark.read("3")
    from open_r1_vision.starter import digits

    assert [item.question for item in items] == list(digits.rows("test", 3)["problem"])
    system, user = benchmark.messages(items[0], "benchmark")
    assert system["content"] == [{"type": "text", "text": "describe, think, answer"}]
    assert isinstance(user["content"][0]["image"], PILImage.Image)
    assert user["content"][1]["text"] == items[0].question
    assert [message["role"] for message in benchmark.messages(items[0], "method")] == ["user"]
    records = answered(benchmark, items, [f"<answer> {item.answer}</answer>" for item in items])
    assert figures(benchmark, items, records) == {"starter_digits_accuracy": (1.0, 3)}
    with pytest.raises(ValueError, match="draws its pages and reads no file, but 'x.tsv' was given"):
        benchmark.read("x.tsv")
