# SPDX-License-Identifier: Apache-2.0
"""The layout of GeoQA's test set on a hand-made sample, and golds like those of the 754."""

import json
import shutil
from pathlib import Path

import pytest

from open_r1_vision.data.checks import check_rows
from open_r1_vision.data.loading import load_rows
from open_r1_vision.rewards.accuracy import accuracy_reward

SAMPLE = Path(__file__).parent / "samples" / "geoqa.jsonl"
GOLDS = ["140°", "8√{3}", "65π", "2√{2}-2", "2√{2}海里", "9米", "5cm^2^", r"\frac{10√{3}}{3}m"]
TYPES = ["number", "math", "math", "math", "math", "number", "number", "math"]


@pytest.fixture
def folder(tmp_path, png):
    """The file beside `Geo170K`, where its paths lead."""
    (tmp_path / "Geo170K" / "images" / "test").mkdir(parents=True)
    for number in range(len(GOLDS)):
        (tmp_path / "Geo170K" / "images" / "test" / f"{number}.png").write_bytes(png(40 + number))
    shutil.copy(SAMPLE, tmp_path / "geoqa.jsonl")
    return tmp_path


def load(path, **options):
    return load_rows("open_r1_vision.data.geoqa.rows", "test", path=str(path), **options)


def test_the_sample(folder):
    dataset = load(folder / "geoqa.jsonl")
    assert dataset.column_names == ["id", "images", "problem", "solution", "problem_type", "source"]
    assert list(dataset["solution"]) == GOLDS
    assert list(dataset["problem_type"]) == TYPES
    assert list(dataset["id"]) == [f"geoqa-{number}" for number in range(8)]
    assert set(dataset["source"]) == {"geoqa"}
    assert [images[0].size for images in dataset["images"]] == [(40 + number, 56) for number in range(8)]
    assert dataset[0]["problem"].endswith("then angle 2 is ()")
    assert check_rows(dataset) == []


def test_published_paths_lead_from_the_folder_around_and_from_geo170k_itself(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "geoqa.jsonl"
    shutil.copy(SAMPLE, elsewhere)
    for images in (folder, folder / "Geo170K"):
        assert load(elsewhere, images=str(images))[3]["images"][0].size == (43, 56)
    assert len(load_rows("open_r1_vision.data.geoqa.rows", "test[:2]", path=str(elsewhere), images=str(folder))) == 2


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (GOLDS, [1] * 8),
        (
            ["140", r"8\sqrt{3}", r"65\pi", r"2\sqrt{2}-2", r"2\sqrt{2}", "9 m", "5", r"\frac{10\sqrt{3}}{3}"],
            [1] * 8,
        ),
        (["14", "8", "65", "2", "2", "6", "5 cm", "10"], [0] * 8),
    ],
)
def test_answers(folder, answers, expected):
    dataset = load(folder / "geoqa.jsonl")
    completions = [f"<think>2, 8, 65</think> <answer>{answer}</answer>" for answer in answers]
    columns = {name: list(dataset[name]) for name in ("solution", "problem_type", "problem")}
    assert accuracy_reward(completions, **columns) == expected


def test_math_verify_alone_reads_roots_as_their_first_number():
    """The metric of R1-V and Hint-GRPO: the wrong answer 8 is right, and the right one is wrong."""
    from math_verify import parse, verify

    assert verify(parse("8"), parse("8√{3}"))
    assert not verify(parse(r"$8\sqrt{3}$"), parse("8√{3}"))


def test_errors(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file 'none.jsonl' .*set `path` to geoqa_test_prompts"):
        load("none.jsonl")
    (folder / "Geo170K" / "images" / "test" / "3.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of the 8 images .*test/3.png'. Set `images` \(it is None\)"):
        load(folder / "geoqa.jsonl")
    for row, message in (
        ({"image_path": "a.png", "question": "q", "ground_truth": " "}, "row 0: 'ground_truth' must hold a text"),
        (
            {"image": "a.png", "question": "q"},
            "'image_path' and 'ground_truth' must .*the row has 'image', 'question'",
        ),
    ):
        (tmp_path / "bad.jsonl").write_text(json.dumps(row))
        with pytest.raises(ValueError, match=message):
            load(tmp_path / "bad.jsonl")


def test_a_gold_may_be_a_number_of_json(folder):
    row = {"image_path": "./Geo170K/images/test/0.png", "question": "q", "ground_truth": 0}
    (folder / "zero.jsonl").write_text(json.dumps(row))
    assert load(folder / "zero.jsonl")[0]["solution"] == "0"
