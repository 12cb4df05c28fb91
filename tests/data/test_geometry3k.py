# SPDX-License-Identifier: Apache-2.0
"""Geometry3K's layout in a hand-made folder."""

import json
import logging

import pytest
from PIL import Image

from open_r1_vision.data.checks import check_rows
from open_r1_vision.data.geometry3k import convert, rows
from open_r1_vision.data.loading import load_rows
from open_r1_vision.rewards.accuracy import accuracy_reward


def put(folder, number, image=True, logic=None, **changes):
    """A problem as it is published, with the keys that nothing here reads."""
    record = {
        "problem_text": "Find m \\angle 2 .",
        "choices": ["28", "35", "60", "152"],
        "answer": "A",
        "problem_type_graph": ["Line"],
        "problem_type_goal": ["Angle"],
        "id": number,
        "compact_choices": ["28", "35", "60", "152"],
        "precise_value": [28.0, 35.0, 60.0, 152.0],
        "compact_text": "Find m \\angle 2.",
        "annotat_text": "Find $m\\angle 2$.",
        "unit": "",
        "data_type": "train",
        **changes,
    }
    problem = folder / str(number)
    problem.mkdir(parents=True)
    (problem / "data.json").write_text(json.dumps(record))
    if image:
        Image.new("RGB", (80, 60), "white").save(problem / "img_diagram.png")
        Image.new("RGB", (80, 60), "red").save(problem / "img_diagram_point.png")
    if logic is not None:
        forms = {"text_logic_form": ["Find(x)"], "diagram_logic_form": logic, "line_instances": ["AB"]}
        (problem / "logic_form.json").write_text(json.dumps(forms))


@pytest.fixture
def folder(tmp_path):
    train = tmp_path / "geometry3k" / "train"
    put(train, 2, logic=["Equals(LengthOf(Line(A, B)), 5)", "PointLiesOnLine(C, Line(E, A))"])
    put(train, 10, answer="B", compact_choices=["5", "2 \\sqrt { 221 }", "9", "10"], logic=[])
    put(
        train, 11, annotat_text="", compact_text="Find x.", answer="C", logic=[" ", "Parallel(a, b)", "Parallel(a, b)"]
    )
    put(train, 12, answer="E")
    put(train, 13, image=False)
    put(train, 14, annotat_text=" ", compact_text="", problem_text=None)
    put(train, 15, answer="")
    put(train, 17, answer="AB")
    put(train, 16, compact_choices=None, choices=["1", "2", "3", "4"], answer="D", annotat_text=None)
    (train / "not_a_problem").mkdir()
    put(tmp_path / "geometry3k" / "val", 2101)
    return tmp_path / "geometry3k"


def test_questions_become_ones_to_fill_in(folder):
    found = convert(folder / "train").rows
    assert [row["id"] for row in found] == [f"geometry3k-{number}" for number in (2, 10, 11, 16)]
    assert [row["problem"] for row in found] == [
        "Find $m\\angle 2$.",
        "Find $m\\angle 2$.",
        "Find x.",
        "Find m \\angle 2.",
    ]
    assert [(row["solution"], row["problem_type"]) for row in found] == [
        ("28", "number"),
        ("2 \\sqrt { 221 }", "math"),
        ("60", "number"),
        ("4", "number"),
    ]
    assert found[0]["images"] == [str(folder / "train" / "2" / "img_diagram.png")]
    assert "visual_facts" not in found[0]


def test_what_was_dropped_and_why(folder, caplog):
    caplog.set_level(logging.WARNING)
    assert len(rows("train", path=str(folder))) == 4
    assert "4 of 9 questions became rows." in caplog.text
    assert "3  the answer is none of the options (geometry3k-12, geometry3k-15, geometry3k-17)" in caplog.text
    assert "1  image missing (geometry3k-13)" in caplog.text
    assert "1  no question (geometry3k-14)" in caplog.text


def test_options_can_stay(folder):
    row = convert(folder / "train", choices="keep").rows[1]
    assert row["problem"] == "Find $m\\angle 2$.\nA. 5\nB. 2 \\sqrt { 221 }\nC. 9\nD. 10"
    assert (row["solution"], row["problem_type"]) == ("B", "choice")
    given = {"solution": ["B"], "problem_type": ["choice"], "problem": [row["problem"]]}
    assert accuracy_reward(["<answer>B</answer>"], **given) == [1.0]
    assert accuracy_reward(["<answer>9</answer>"], **given) == [0.0]


def test_facts_of_the_diagram(folder):
    conversion = convert(folder / "train", facts=True)
    assert [row["visual_facts"] for row in conversion.rows] == [
        ["Equals(LengthOf(Line(A, B)), 5)", "PointLiesOnLine(C, Line(E, A))"],
        [],
        ["Parallel(a, b)"],
        [],
    ]
    assert conversion.kept == {"number": 2, "math; no visual facts": 1, "number; no visual facts": 1}


def test_as_the_data_set_of_a_recipe(folder):
    name = "open_r1_vision.data.geometry3k.rows"
    found = load_rows(name, "train", path=str(folder))
    assert found.features["images"].feature.__class__.__name__ == "Image"
    assert not check_rows(found)
    assert accuracy_reward(
        ["<answer>$2\\sqrt{221}$</answer>"], solution=[found[1]["solution"]], problem_type=["math"]
    ) == [1.0]
    assert len(load_rows(name, "validation", path=str(folder))) == len(load_rows(name, "val", path=str(folder))) == 1


def test_bad_input(folder, tmp_path):
    with pytest.raises(ValueError, match="no split 'dev': set dataset_split to train, val, validation, test"):
        rows("dev", path=str(folder))
    with pytest.raises(ValueError, match="`choices` is 'drop': set it to fill-in or keep"):
        rows(path=str(folder), choices="drop")
    with pytest.raises(FileNotFoundError, match=r"There is no folder '.*geometry3k/test'"):
        rows("test", path=str(folder))
    (tmp_path / "empty" / "train").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"No question of '.*train' became a row: give a folder with one folder for"):
        rows(path=str(tmp_path / "empty"))
    (folder / "train" / "2" / "data.json").write_text("{")
    with pytest.raises(ValueError, match=r"2/data.json' can't be read as JSON"):
        rows(path=str(folder))
    (folder / "train" / "2" / "data.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"2/data.json' holds a list, not an object"):
        rows(path=str(folder))
