# SPDX-License-Identifier: Apache-2.0
"""ViRL39K's layout in a hand-made parquet file, beside the repair of RACRO's code."""

import logging

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from open_r1_vision.data.checks import check_rows
from open_r1_vision.data.loading import load_rows
from open_r1_vision.data.rows import to_messages
from open_r1_vision.rewards.accuracy import accuracy_reward

OPTIONS = "How long is AB?\n(A) 3\n(B) 4\n(C) 5"


def record(qid, question="<image>Find x.", answer=r"\boxed{40}", images=1, **changes):
    fields = {
        "question": question,
        "answer": answer,
        "PassRate_32BTrained": 1.0,
        "PassRate_7BBase": 0.5,
        "category": "(GradeSchool) Geometric",
        "source": "Processed",
        "qid": qid,
        "image": [f"images/{qid}-{number}.jpg" for number in range(images)],
    }
    return fields | changes


SAMPLE = [
    record("q1", "<image>Find the angle.", r"\boxed{40^\circ}"),
    record("q2", OPTIONS, r"\boxed{B}"),
    record("q3", "<image>Compare both circles.", r"\boxed{\frac{1}{2}}", images=2),
    record("q4", "In <image> and <image>, which is red?", r"$\boxed{\text{left}}$", images=2, source="Other"),
    record("q5", "What is 2 + 2?", r"\boxed{4}", images=0, source="DeepScaleR"),
    record("q6", images=1),
    record("q7"),
    record("q8", answer=""),
    record("q1", "<image>Another question.", r"\boxed{7}"),
    record("q9", answer=r"\boxed{3}, \boxed{4}"),
    record("q10", OPTIONS, r"\boxed{E}"),
    record("q11", "Count.", r"\boxed{9}", images=9),
    record("q12", "<image>\nWhat is 3 + 3?", r"\boxed{6}", images=0, category="Spatial"),
    record("q13", OPTIONS, r"\boxed{4}"),
    record("q14", "<image>How long is it?", r"x = \boxed{5 cm}", category="Spatial"),
    record("q15", "  ", r"\boxed{5}"),
    record("q16", "<video>How long?", r"\boxed{5}"),
    record("q17", "<image>How long?", r"\boxed{}"),
]


def save(folder, records):
    path = folder / "39Krelease.parquet"
    pq.write_table(pa.Table.from_pylist(records), path)
    return str(path)


@pytest.fixture
def sample(tmp_path, png):
    """The sample's file: the image of `q6` is missing, that of `q7` torn."""
    (tmp_path / "images").mkdir()
    for row in SAMPLE:
        for name in row["image"]:
            (tmp_path / name).write_bytes(png(kind="JPEG"))
    (tmp_path / "images" / "q6-0.jpg").unlink()
    (tmp_path / "images" / "q7-0.jpg").write_bytes(png(200, 200, kind="JPEG")[:700])
    return save(tmp_path, SAMPLE)


def load(path, **options):
    return load_rows("open_r1_vision.data.virl39k.rows", path=path, **options)


def authors_question(question, num_images):
    return question if question.count("<image>") == num_images else "<image>" + question


def test_the_sample(sample, caplog):
    with caplog.at_level(logging.WARNING):
        dataset = load(sample)
    assert dataset.column_names == [
        *("id", "images", "problem", "solution", "problem_type", "source"),
        *("category", "PassRate_7BBase", "PassRate_32BTrained"),
    ]
    rows = [
        (row["id"], row["problem"], row["solution"], row["problem_type"], row["source"])
        for row in dataset.remove_columns("images").to_list()
    ]
    assert rows == [
        ("q1", "<image>Find the angle.", r"40^\circ", "number", "Processed"),
        ("q2", OPTIONS, "B", "choice", "Processed"),
        ("q3", "Compare both circles.", r"\frac{1}{2}", "number", "Processed"),
        ("q4", "In <image> and <image>, which is red?", "left", "text", "Other"),
        ("q12", "What is 3 + 3?", "6", "number", "Processed"),
        ("q13", OPTIONS, "B", "choice", "Processed"),
        ("q14", "<image>How long is it?", "5 cm", "number", "Processed"),
    ]
    assert [len(images) for images in dataset["images"]] == [1, 1, 2, 2, 0, 1, 1]
    assert dataset[0]["images"][0].size == (56, 56)
    assert dataset[0]["PassRate_7BBase"] == 0.5 and dataset[0]["category"] == "(GradeSchool) Geometric"
    assert caplog.messages == [
        "\n".join(
            [
                f"{sample}: 7 of 18 questions became rows.",
                "  kept           3  as many image markers as images",
                "  kept           2  no image markers, images put first",
                "  kept           1  not as many image markers as images: removed, images put first",
                "  kept           1  no image, markers removed",
                "  dropped        2  no answer (q8, q17)",
                "  dropped        1  text only, of the source DeepScaleR (q5)",
                "  dropped        1  image missing (q6)",
                "  dropped        1  an earlier row has the same id (q1)",
                "  dropped        1  several boxes in the answer (q9)",
                "  dropped        1  the answer is none of the options (q10)",
                "  dropped        1  more than 8 images (q11)",
                "  dropped        1  no question (q15)",
                "  dropped        1  a video marker in the question (q16)",
                "  dropped        1  image unreadable (q7)",
            ]
        )
    ]


def test_rows_pass_the_checks_and_their_golds_earn_full_marks(sample):
    dataset = load(sample, text_only_source="keep")
    assert check_rows(dataset) == []
    columns = {name: list(dataset[name]) for name in ("solution", "problem_type", "problem")}
    answers = [f"<answer>{gold}</answer>" for gold in columns["solution"]]
    assert set(accuracy_reward(answers, **columns)) == {1.0}


@pytest.mark.parametrize(
    ("question", "num_images", "placeholders"),
    [("Compare.", 2, 2), ("<image><image><image>Compare.", 2, 2), ("<image>Compare.", 2, 2), ("Look.", 1, 1)],
)
def test_markers_fit_where_the_authors_put_one_in_front(tmp_path, png, question, num_images, placeholders):
    (tmp_path / "images").mkdir()
    row = record("a", question, images=num_images)
    for name in row["image"]:
        (tmp_path / name).write_bytes(png())
    ours = load(save(tmp_path, [row]))[0]
    (message,) = to_messages(ours)
    assert [part["type"] for part in message["content"]] == ["image"] * placeholders + ["text"]
    theirs = {**ours, "problem": authors_question(question, num_images)}
    if theirs["problem"].count("<image>") != num_images:
        with pytest.raises(ValueError, match="markers"):
            to_messages(theirs)


def test_options(sample, tmp_path, png):
    assert "q5" in load(sample, text_only_source="keep")["id"]
    assert list(load(sample, category="Spatial")["id"]) == ["q12", "q14"]
    assert list(load(sample, category=["Spatial", "None"])["id"]) == ["q12", "q14"]
    assert "q11" in load(sample, max_images=None)["id"]
    assert list(load(sample, max_images=1)["id"]) == ["q1", "q2", "q12", "q13", "q14"]
    assert "q7" in load(sample, check_images=False)["id"]
    assert len(load_rows("open_r1_vision.data.virl39k.rows", "train[:2]", path=sample)) == 2
    (tmp_path / "elsewhere").mkdir()
    moved = save(tmp_path / "elsewhere", SAMPLE)
    for folder in (tmp_path, tmp_path / "images"):
        assert len(load(moved, images=str(folder))) == 7


def test_pass_rates(tmp_path):
    rates = [("a", 0.0, 1.0), ("b", 0.25, 0.5), ("c", 1.0, 0.0), ("d", -1.0, 1.0), ("e", None, 1.0)]
    path = save(
        tmp_path,
        [
            record(qid, "Count.", images=0, PassRate_7BBase=small, PassRate_32BTrained=large)
            for qid, small, large in rates
        ],
    )
    assert list(load(path)["id"]) == ["a", "b", "c", "d", "e"]
    assert list(load(path, min_pass_rate=0.1)["id"]) == ["b", "c"]
    assert list(load(path, max_pass_rate=0.9)["id"]) == ["a", "b"]
    assert list(load(path, min_pass_rate=0.25, max_pass_rate=0.25)["id"]) == ["b"]
    assert list(load(path, pass_rate="PassRate_32BTrained", max_pass_rate=0.5)["id"]) == ["b", "c"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text_only_source": "none"}, "set it to drop or keep"),
        ({"pass_rate": "PassRate"}, "PassRate_7BBase, PassRate_32BTrained"),
        ({"min_pass_rate": 0.9, "max_pass_rate": 0.1}, "the first not above the second"),
        ({"max_pass_rate": 50}, "lie in"),
        ({"max_images": 0}, "set at least 1"),
        ({"category": "Chemistry"}, "Spatial"),
        ({"images": "/nowhere"}, "Unpack images.zip"),
    ],
)
def test_options_that_cannot_be(tmp_path, options, message):
    path = save(tmp_path, [record("a"), record("b", category="Spatial")])
    with pytest.raises(ValueError, match=message):
        load(path, **options)


def test_other_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"set `path` to the 39Krelease\.parquet"):
        load(str(tmp_path / "none.parquet"))
    (tmp_path / "text.parquet").write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(ValueError, match="can't be read as parquet"):
        load(str(tmp_path / "text.parquet"))
    pq.write_table(pa.table({"question": ["a"], "answer": ["b"]}), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="no image and no qid"):
        load(str(tmp_path / "other.parquet"))
    with pytest.raises(ValueError, match="must be a list of paths"):
        load(save(tmp_path, [record("a", image="images/a-0.jpg")]))
