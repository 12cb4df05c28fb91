# SPDX-License-Identifier: Apache-2.0
"""Perception-R1's layout in a hand-made parquet file."""

import logging

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from open_r1_vision.data.checks import check_rows
from open_r1_vision.data.conversion import Unusable
from open_r1_vision.data.loading import load_rows
from open_r1_vision.data.perception_r1 import split_facts
from open_r1_vision.rewards.accuracy import accuracy_reward

FACTS = "<info1>AB = 3</info1>\n<info2>$\\angle C$ is\na right angle</info2>\n<info10> M bisects AB </info10>"


@pytest.fixture
def save(tmp_path, png):
    """`save(rows)` writes rows with one image each, unless they say otherwise, and gives the file."""

    def write(rows):
        image = {"bytes": png(), "path": None}
        path = tmp_path / "geo3k.parquet"
        pq.write_table(pa.Table.from_pylist([{"images": [image], **row} for row in rows]), path)
        return str(path)

    return write


def load(path, **options):
    return load_rows("open_r1_vision.data.perception_r1.rows", path=path, **options)


def row(problem="<image>Find x.", answer="5", facts=FACTS, **others):
    return {"problem": problem, "answer": answer, "visual_key_info": facts, **others}


def test_the_layout(save, png, caplog):
    torn = {"bytes": png()[:60], "path": None}
    path = save(
        [
            row(answer="2 \\sqrt { 221 }"),
            row("Find <image> y.", "\\boxed{\\frac { 1 } { 2 }}", None),
            row("Find z.", "$C$", "<info1>AB = 3</info1>"),
            row("<image><image>Find w.", "7", ""),
            row(facts="AB = 3"),
            row(facts="<info1>AB = 3</info2>"),
            row(answer=" "),
            row(images=[torn]),
            row(" "),
        ]
    )
    with caplog.at_level(logging.WARNING):
        dataset = load(path)
    assert dataset.remove_columns(["images", "source"]).to_list() == [
        {
            "id": "perception_r1-0",
            "problem": "<image>Find x.",
            "solution": "2 \\sqrt { 221 }",
            "problem_type": "math",
            "visual_facts": ["AB = 3", "$\\angle C$ is\na right angle", "M bisects AB"],
        },
        {
            "id": "perception_r1-1",
            "problem": "Find <image> y.",
            "solution": "\\frac { 1 } { 2 }",
            "problem_type": "math",
            "visual_facts": [],
        },
        {
            "id": "perception_r1-2",
            "problem": "Find z.",
            "solution": "C",
            "problem_type": "choice",
            "visual_facts": ["AB = 3"],
        },
        {
            "id": "perception_r1-3",
            "problem": "Find w.",
            "solution": "7",
            "problem_type": "number",
            "visual_facts": [],
        },
    ]
    assert dataset[0]["images"][0].size == (56, 56)
    assert caplog.messages[0].splitlines()[1:] == [
        "  kept           1  as many image markers as images",
        "  kept           1  as many image markers as images; no visual facts",
        "  kept           1  no image markers, images put first",
        "  kept           1  not as many image markers as images: removed, images put first; no visual facts",
        "  dropped        2  visual_key_info is not all in numbered tags (perception_r1-4, perception_r1-5)",
        "  dropped        1  no answer (perception_r1-6)",
        "  dropped        1  no question (perception_r1-8)",
        "  dropped        1  image unreadable (perception_r1-7)",
    ]
    assert check_rows(dataset.select([0, 2]), required_columns=["visual_facts"]) == []


def test_bare_latex_is_graded_as_a_whole(save):
    """The authors' math-verify reads `2 \\sqrt { 221 }` as 221."""
    dataset = load(save([row(answer="2 \\sqrt { 221 }")]))
    columns = {name: [dataset[name][0]] * 2 for name in ("solution", "problem_type", "problem")}
    assert accuracy_reward(["<answer>2\\sqrt{221}</answer>", "<answer>221</answer>"], **columns) == [1.0, 0.0]


def test_a_file_without_facts_has_no_such_column(save, tmp_path, png):
    (tmp_path / "a.png").write_bytes(png(84))
    dataset = load(save([{"problem": "<image>Find x.", "answer": "5", "images": ["a.png"]}]))
    assert "visual_facts" not in dataset.column_names
    assert dataset[0]["images"][0].size == (84, 56)


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        (None, []),
        ("", []),
        ("<info1>a</info1><info2></info2>", ["a"]),
        ("<info2>b</info2>\n<info1>a</info1>", ["b", "a"]),
        ("<info1>a <b</info1>", ["a <b"]),
    ],
)
def test_facts(text, facts):
    assert split_facts(text) == facts


def test_facts_outside_their_tags():
    with pytest.raises(Unusable, match="numbered tags"):
        split_facts("<info1>a</info1> and b")


def test_other_files(save, tmp_path):
    with pytest.raises(FileNotFoundError, match="geo3k_with_visual_key_info"):
        load(str(tmp_path / "none.parquet"))
    with pytest.raises(ValueError, match="but no answer"):
        load(save([{"problem": "a"}]))
    with pytest.raises(ValueError, match=r"No question became a row[^$]*no answer"):
        load(save([row(answer="")]))
