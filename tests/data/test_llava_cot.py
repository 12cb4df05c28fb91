# SPDX-License-Identifier: Apache-2.0
"""LLaVA-CoT's layout on a hand-made sample, beside the rules of Hint-GRPO's code where those lose something."""

import importlib.util
import json
import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest

from open_r1_vision.data.checks import check_rows
from open_r1_vision.data.llava_cot import convert
from open_r1_vision.data.loading import load_rows
from open_r1_vision.rewards.accuracy import accuracy_reward

SAMPLE = Path(__file__).parent / "samples" / "llava_cot.jsonl"
SCRIPT = Path(__file__).parents[2] / "local_scripts" / "prepare_llava_cot.py"
LETTER_PLEASE = "Answer with the option's letter from the given choices directly."


def authors_question(question):
    return re.sub(r"[A-D]\..*$", "", question, flags=re.DOTALL)


def authors_letter(solution):
    letters = [character for character in solution if character in "ABCD"]
    return letters[0] if len(letters) == 1 else None


@pytest.fixture
def images(tmp_path, png):
    """The sample's images: the third is broken, that of CLEVR small, that of `geo_5` missing."""
    for number in (1, 2):
        write(tmp_path / "geoqa+" / "images" / f"{number}.png", png())
    write(tmp_path / "geoqa+" / "images" / "3.png", png()[:40])
    write(tmp_path / "CLEVR_v1.0" / "images" / "train" / "CLEVR_train_000001.png", png(20, 56))
    write(tmp_path / "chartqa" / "train" / "png" / "1.png", png())
    return tmp_path


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def load(images, **options):
    return load_rows("open_r1_vision.data.llava_cot.rows", path=str(SAMPLE), images=str(images), **options)


def one(png, tmp_path, question, conclusion, reasoning="AB = 3. So it is.", **options):
    """The row and the conversion of a single question."""
    write(tmp_path / "geoqa+" / "1.png", png())
    reply = (
        f"<SUMMARY> s </SUMMARY>\n\n<REASONING> {reasoning} </REASONING>\n\n<CONCLUSION> {conclusion} </CONCLUSION>"
    )
    record = {"id": "x", "image": "geoqa+/1.png", "conversations": [{"value": question}, {"value": reply}]}
    conversion = convert([record], tmp_path, **options)
    return conversion.rows[0], conversion


def test_the_sample(images, caplog):
    with caplog.at_level(logging.WARNING):
        dataset = load(images)
    columns = ["id", "images", "problem", "solution", "problem_type", "source", "reasoning_steps"]
    assert dataset.column_names == columns
    rows = [
        (row["id"], row["solution"], row["problem_type"], row["source"])
        for row in dataset.remove_columns("images").to_list()
    ]
    assert rows == [
        ("geo_1", "40°", "number", "geoqa+"),
        ("geo_2", "8√{3}", "math", "geoqa+"),
        ("geo_3", "The angle A is 40", "text", "geoqa+"),
        ("geo_4", "B", "choice", "geoqa+"),
        ("geo_7", "B", "choice", "geoqa+"),
        ("clevr_1", "3", "number", "CLEVR_v1.0"),
        ("clevr_1-2", "1", "number", "CLEVR_v1.0"),
    ]
    assert dataset[0]["images"][0].size == (56, 56)
    problems = dict(zip(dataset["id"], dataset["problem"], strict=True))
    assert problems["geo_1"].endswith("Extend CE to F, then find the angle between EF and AB.")
    assert problems["geo_2"] == (
        "As shown in the figure, triangle ABC is equilateral with side 16.0, then its height AD is ()"
    )
    assert problems["geo_3"].endswith("at A?\nA. 70°\nB. 40°")
    assert problems["geo_4"].startswith("Which of the following")
    steps = dict(zip(dataset["id"], dataset["reasoning_steps"], strict=True))
    assert steps["geo_1"] == [
        "I look at the angles at E.\nLine CE crosses line AB at E, so angle AEC = 40.0°.",
        "Angle FEB is opposite to the angle of Step 1, so it is 40.0° too, not 1.5 times as large.",
        "The angle between two lines is the smaller one, 40°.",
    ]
    assert steps["geo_2"] == [
        "Half of the base\nBD = 8, since AD halves BC.",
        "The height\nBy Pythagoras, AD^2 = 16^2 - 8^2 = 192.",
        "So AD = 8√{3}.",
    ]
    assert steps["geo_3"] == ["AB = AC, e.g. both are 3.5 cm.", "Then angle C = 70°.", "180 - 70 - 70 = 40."]
    assert steps["clevr_1"] == ["There are 5 objects.", "Of these, 2 are cubes.", "5 - 2 = 3 are left."]
    assert steps["clevr_1-2"] == ["Look\nTwo cubes are there.", "Count\nOne of them is red."]
    assert caplog.messages[0].splitlines() == [
        f"{SAMPLE}: 7 of 12 questions became rows.",
        "  kept           2  fill-in, made from a choice",
        "  kept           2  number or constant",
        "  kept           1  a sentence, compared as text",
        "  kept           1  choice: the question speaks of its options",
        "  kept           1  choice: its option is no number",
        "  dropped        1  image missing (geo_5)",
        "  dropped        1  no CONCLUSION section (geo_6)",
        "  dropped        1  the answer is none of the options (geo_8)",
        "  dropped        1  no number in the answer (clevr_1-3)",
        "  dropped        1  of another part (chart_1)",
    ]


def test_rows_pass_the_check_of_a_recipe_that_needs_steps(images, png):
    write(images / "geoqa+" / "images" / "3.png", png())
    write(images / "CLEVR_v1.0" / "images" / "train" / "CLEVR_train_000001.png", png())
    assert check_rows(load(images), required_columns=["reasoning_steps"]) == []


def test_options(images):
    assert set(load(images, parts="all")["source"]) == {"geoqa+", "CLEVR_v1.0", "chartqa"}
    assert set(load(images, parts="chartqa")["id"]) == {"chart_1"}
    assert set(load(images, parts=["chartqa", "CLEVR_v1.0"])["source"]) == {"CLEVR_v1.0", "chartqa"}
    kept = load(images, choices="keep")
    assert list(kept["solution"])[:2] == ["B", "B"]
    assert kept[0]["problem"].endswith(f"D. 110°\n{LETTER_PLEASE}")
    assert load(images, steps="sentences")[0]["reasoning_steps"][0] == "I look at the angles at E."
    everything = load(images, numbers_only=False)
    assert (everything[7]["id"], everything[7]["solution"], everything[7]["problem_type"]) == (
        "clevr_1-3",
        "no",
        "text",
    )


def test_a_sentence_that_ends_in_a_capital_letter_keeps_its_tail(png, tmp_path):
    """Hint-GRPO's code cuts the question within its last sentence."""
    question = "In triangle ABC, find AB.\nA. 140\nB. 150"
    assert authors_question(question) == "In triangle ABC, find A"
    row, _ = one(png, tmp_path, question, "B")
    assert (row["problem"], row["solution"]) == ("In triangle ABC, find AB.", "150")


def test_an_answer_with_one_capital_letter_is_no_option(png, tmp_path):
    """Hint-GRPO's code takes it for option A, whose text, 70, becomes the gold."""
    assert authors_letter("The angle A is 40") == "A"
    row, _ = one(png, tmp_path, "What is the angle at A?\nA. 70\nB. 40", "The angle A is 40")
    assert row["solution"] == "The angle A is 40"
    assert row["problem"].endswith("B. 40")


@pytest.mark.parametrize("conclusion", ["B", "(B)", "B.", "B. 8√{3}", "(B) 8√{3} cm", "8√3", "8√{3}", "$8√{3}$"])
@pytest.mark.parametrize("announced", ["{}", "The answer is {}.", "So, the correct option is {}", "Answer: {}"])
def test_an_option_by_letter_or_text_becomes_the_gold(png, tmp_path, conclusion, announced):
    question = f"Find AD.\nOptions:\n(A) 8 cm\n(B) {'8√{3} cm' if 'cm' in conclusion else '8√{3}'}\n{LETTER_PLEASE}"
    if conclusion == "8√3":
        question = question.replace("√{3}", "√3")
    row, conversion = one(png, tmp_path, question, announced.format(conclusion))
    assert (row["problem"], row["problem_type"]) == ("Find AD.", "math")
    assert accuracy_reward(
        [r"<answer>8\sqrt{3}</answer>", "<answer>8</answer>", "<answer>B</answer>"], **gold(row)
    ) == [
        1,
        0,
        0,
    ]
    assert conversion.kept == {"fill-in, made from a choice": 1}


def gold(row, count=3):
    return {name: [row[name]] * count for name in ("solution", "problem_type", "problem")}


@pytest.mark.parametrize(
    ("question", "problem"),
    [
        ("Find AB.\nA. 1 B. 2\nC. 3 D. 4", "Find AB."),
        ("How long is AB? A. 1 B. 2 C. 3", "How long is AB?"),
        ("How long is AB? Options: (A) 1 (B) 2", "How long is AB?"),
        ("Vitamin A. and B. are here, how long is AB? A. 1 B. 2", "Vitamin A. and B. are here, how long is AB?"),
        ("<image>\nFind AB.\n\nA. 1\nB. 2\n\nPlease select the correct option.", "Find AB."),
        (
            "Hint: Please provide the correct option letter, e.g., A, B, C, D, at the end.\nQuestion: Find AB.\n"
            "Choices:\nA. 1\nB. 2",
            "Find AB.",
        ),
    ],
)
def test_a_trailing_block_of_options_is_cut(png, tmp_path, question, problem):
    row, _ = one(png, tmp_path, question, "B")
    assert (row["problem"], row["solution"], row["problem_type"]) == (problem, "2", "number")


@pytest.mark.parametrize(
    ("question", "why"),
    [
        ("Which of the following is AB?\nA. 1\nB. 2", "the question speaks of its options"),
        ("Then AB cannot be ()\nA. 1\nB. 2", "the question speaks of its options"),
        ("The correct one is ()\nA. 1\nB. 2", "the question speaks of its options"),
        ("Find AB.\nA. 1\nB. 2\nHere CD = 3.", "more words follow the options"),
        ("A. 1\nB. 2", "no words before the options"),
        ("Find AB.\nA. 1\nB. 2 or 3", "its option is no number"),
        ("Find AB.\nA. 1\nB. 2, 3", "its option is no number"),
        ("Find the ratio.\nA. 1:2\nB. 2:1", "its option is no number"),
        ("Find y.\nA. x+1\nB. 2√{2}x", "its option is no number"),
        ("The line meets A. 1 B. 2", "its options stand within a sentence"),
        ("Where is C? A. left of it B. 2", "its options stand within a sentence"),
    ],
)
def test_other_choices_stay_as_they_are(png, tmp_path, question, why):
    row, conversion = one(png, tmp_path, question, "The answer is B.")
    assert (row["problem"], row["solution"], row["problem_type"]) == (question, "B", "choice")
    assert conversion.kept == {f"choice: {why}": 1}


@pytest.mark.parametrize(
    ("conclusion", "solution", "problem_type"),
    [
        ("140°", "140°", "number"),
        ("140°.", "140°", "number"),
        (r"$\boxed{140}$", "140", "number"),
        ("The answer is 5 cm.", "5 cm", "number"),
        ("65π", "65π", "math"),
        ("x = 3", "x = 3", "math"),
        ("A", "A", "choice"),
        ("There are 5 objects, so the angle is 40°.", "There are 5 objects, so the angle is 40°.", "text"),
    ],
)
def test_answers_without_options(png, tmp_path, conclusion, solution, problem_type):
    row, _ = one(png, tmp_path, "What is it?", conclusion)
    assert (row["solution"], row["problem_type"], row["problem"]) == (solution, problem_type, "What is it?")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"conclusion": "five"}, "no number in the answer"),
        ({"conclusion": "E"}, "the answer is none of the options"),
        ({"conclusion": "A. 2"}, "the answer is none of the options"),
        ({"conclusion": " "}, "no CONCLUSION section"),
        ({"reasoning": ""}, "no REASONING section"),
        ({"question": "<image>"}, "no question"),
    ],
)
def test_a_dropped_question_has_a_reason(png, tmp_path, changes, reason):
    question = changes.pop("question", "Find AB.\nA. 1\nB. 2")
    with pytest.raises(ValueError, match=f"(?s)No question became a row.*1  {reason} .x."):
        one(png, tmp_path, question, changes.pop("conclusion", "B"), **changes)


def test_turns(png, tmp_path):
    write(tmp_path / "geoqa+" / "1.png", png())
    reply = {"from": "gpt", "value": "<REASONING>r</REASONING><CONCLUSION>1</CONCLUSION>"}
    question = {"from": "human", "value": "q?"}
    turns = [question, reply, question, question, reply, question, question]
    records = [
        {"id": 7, "image": "geoqa+/1.png", "conversations": turns},
        {"image": "./geoqa+/1.png", "conversations": [question, reply]},
        {"id": 7, "image": "geoqa+/1.png", "conversations": [question, reply]},
        {"id": "none", "image": "geoqa+/1.png", "conversations": []},
    ]
    conversion = convert(records, tmp_path)
    assert [row["id"] for row in conversion.rows] == ["7", "llava_cot-1", "7-5"]
    assert conversion.dropped == {"no reply follows the question": ["7-2", "7-3", "7-4"]}


def test_errors(images, tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file 'none.jsonl' .*set `path` to the train.jsonl"):
        load_rows("open_r1_vision.data.llava_cot.rows", path="none.jsonl")
    with pytest.raises(ValueError, match="`choices` is 'fill': set it to one of fill-in, keep"):
        load(images, choices="fill")
    with pytest.raises(ValueError, match="by 'lines': set `steps` to one of auto"):
        load(images, steps="lines")
    with pytest.raises(ValueError, match="options {.*'step': 'auto'}.*signature is"):
        load(images, step="auto")
    with pytest.raises(ValueError, match=r"(?s)`parts` \(it is \['geoqa'\]\) .*holds: geoqa\+, CLEVR_v1.0, chartqa"):
        load(images, parts=["geoqa"])
    with pytest.raises(
        ValueError, match=r"(?s)Set `images` \(it is '.*nowhere'\).*image missing \(geo_1, geo_2, geo_3\)"
    ):
        load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"Record 0 \(id 1\) has the keys 'id', 'text', but `image` must be a path"):
        convert([{"id": 1, "text": "a"}], tmp_path)


def test_imports_neither_torch_nor_transformers():
    code = (
        "import sys\n"
        "from open_r1_vision.data import geoqa, llava_cot, steps\n"
        "heavy = {'torch', 'transformers', 'vllm', 'trl'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture(scope="module")
def prepare():
    spec = importlib.util.spec_from_file_location("prepare_llava_cot", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def test_prepare_writes_rows_with_their_images(images, tmp_path, prepare, capsys):
    output = tmp_path / "rows"
    command = ["--input", str(SAMPLE), "--images", str(images), "--output", str(output)]
    assert prepare(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{output}: 4 of 12 questions became rows."
    assert "  dropped        1  image unreadable (geo_3)" in lines
    assert "  dropped        2  image too small (clevr_1, clevr_1-2)" in lines
    (images / "geoqa+" / "images" / "1.png").unlink()
    dataset = load_rows(str(output))
    assert list(dataset["id"]) == ["geo_1", "geo_2", "geo_4", "geo_7"]
    assert dataset[0]["images"][0].size == (56, 56)
    assert len(dataset[0]["reasoning_steps"]) == 3


def test_prepare_does_not_overwrite(images, tmp_path, prepare, capsys):
    output = tmp_path / "rows"
    command = ["--input", str(SAMPLE), "--images", str(images), "--output", str(output), "--min-side", "8"]
    assert prepare(command) == 0
    before = (output / "state.json").read_text()
    assert prepare([*command, "--parts", "chartqa"]) == 1
    assert "exists already: give another --output, or allow this with --overwrite" in capsys.readouterr().err
    assert (output / "state.json").read_text() == before
    assert prepare([*command, "--parts", "all", "--all-answers", "--overwrite"]) == 0
    assert list(load_rows(str(output))["id"])[-2:] == ["clevr_1-3", "chart_1"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear")
    assert prepare([*command[:4], "--output", str(tmp_path / "other"), "--overwrite"]) == 1
    assert (tmp_path / "other" / "letter.txt").read_text() == "dear"
    assert "holds no data set, so --overwrite won't replace it" in capsys.readouterr().err


def test_prepare_reports_bad_input_and_keeps_the_old_rows(images, tmp_path, prepare, capsys):
    output, broken = tmp_path / "rows", tmp_path / "broken.jsonl"
    assert prepare(["--input", str(SAMPLE), "--images", str(images), "--output", str(output)]) == 0
    broken.write_text(json.dumps({"id": 1})[:-1])
    assert prepare(["--input", str(broken), "--output", str(output), "--overwrite"]) == 1
    assert prepare(["--input", "none.jsonl", "--output", str(output), "--overwrite"]) == 1
    errors = capsys.readouterr().err
    assert "line 1: this is not JSON" in errors and "No such file" in errors
    assert len(load_rows(str(output))) == 4
