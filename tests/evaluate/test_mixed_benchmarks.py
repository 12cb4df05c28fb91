# SPDX-License-Identifier: Apache-2.0
"""MMMU, MMMU-Pro, EMMA and LogicVista on miniatures of their tables."""

import pytest

from open_r1_vision.evaluate import benchmarks

OPTIONS = {"A": "cat", "B": "dog", "C": "bird", "D": "None"}


def texts(chat):
    return [part.get("text", "IMAGE") for part in chat[-1]["content"]]


def figures(benchmark, items, records):
    return {metric.name: (round(metric.value, 4), metric.n) for metric in benchmark.metrics(items, records)}


# MMMU, MMMU-Pro, EMMA -----------------------------------------------------------------------------------------------


def mmmu_rows(encoded):
    two = str([encoded(1), encoded(2)])
    return [
        {"index": 1, "image": two, "question": "Compare <image 2> with <image 1>.", **OPTIONS, "answer": "A"}
        | {"split": "validation", "category": "Art"},
        {"index": 2, "question": "How many?", "answer": "['4', 'four']", "split": "validation", "category": "Math"},
        {
            "index": 3,
            "question": "Which?",
            "A": "<image 1>",
            "B": "x",
            "answer": "B",
            "split": "dev",
            "category": "Art",
        },
    ]


def test_mmmu(write, encoded, answered):
    benchmark = benchmarks.find("mmmu")
    items = benchmark.read(write("MMMU_DEV_VAL.tsv", mmmu_rows(encoded)))
    chat = benchmark.messages(items[0], "benchmark")
    assert texts(chat)[:4] == ["Question: Compare ", "IMAGE", " with ", "IMAGE"]
    assert [part["image"].width for part in chat[0]["content"] if "image" in part] == [32, 31]
    assert texts(benchmark.messages(items[2], "method"))[:2] == ["Which?\nA. ", "IMAGE"]
    assert texts(benchmark.messages(items[1], "benchmark")) == ["IMAGE", "How many?"]
    assert [benchmark.score(items[1], answer) for answer in ("4", "four", "4.0", "five", None)] == [1, 1, 1, 0, 0]
    records = answered(benchmark, items, ["A", "five", "B"])
    assert figures(benchmark, items, records) == {
        "mmmu_validation": (0.5, 2),
        "mmmu_validation_category_art": (1.0, 1),
        "mmmu_validation_category_math": (0.0, 1),
        "mmmu_dev": (1.0, 1),
    }
    broken = benchmark.read(write("x.tsv", [mmmu_rows(encoded)[0] | {"question": "See <image 3>."}]))
    with pytest.raises(ValueError, match=r"mmmu, item 1: the text holds <image 3>, but there are 2 images"):
        benchmark.messages(broken[0], "benchmark")


def test_mmmu_pro(write, answered):
    ten = {letter: f"option {letter.lower()}" for letter in "ABCDEFGHIJ"}
    rows = [{"index": "test_1", "question": "Which is <image 1>?", **ten, "answer": "J", "subject": "Art"}]
    cot, direct = benchmarks.find("mmmu_pro_10c_cot"), benchmarks.find("mmmu_pro_10c")
    items = cot.read(write("MMMU_Pro_10c.tsv", rows))
    assert texts(cot.messages(items[0], "benchmark"))[:2] == ["Which is ", "IMAGE"]
    assert "Answer: X" in texts(cot.messages(items[0], "benchmark"))[-1]
    assert "letter of the right option alone" in texts(direct.messages(items[0], "benchmark"))[-1]
    assert cot.extract(items[0], "Not option a, but rather\nanother one.\nAnswer: J") == ("J", "answer_line")
    assert list(figures(cot, items, answered(cot, items, ["Answer: J"]))) == [
        "mmmu_pro_10c_micro",
        "mmmu_pro_10c_subject_art",
    ]
    vision = benchmarks.find("mmmu_pro_vision")
    items = vision.read(write("MMMU_Pro_V.tsv", [rows[0] | {"question": ""}]))
    image, text = texts(vision.messages(items[0], "benchmark"))
    (bare,) = vision.read(write("x.tsv", [{"index": 1, "answer": "J"}]))
    assert vision.score(bare, vision.extract(bare, "Answer: J")[0]) == 1
    assert image == "IMAGE" and "option c" not in text


def test_emma(write, answered):
    rows = [
        {
            "index": 1,
            "context": "Look.",
            "question": "Which?",
            "type": "MCQ",
            **OPTIONS,
            "answer": "B",
            "subject": "Math",
        },
        {
            "index": 2,
            "context": "",
            "question": "Name <image 1>.",
            "type": "Open",
            "answer": "benzene",
            "subject": "Chem",
        },
    ]
    benchmark, cot = benchmarks.find("emma"), benchmarks.find("emma_cot")
    items = benchmark.read(write("EMMA.tsv", rows))
    text = texts(benchmark.messages(items[0], "benchmark"))[1]
    assert text.startswith("Look.\n\nWhich?\n\nA: cat\nB: dog\nC: bird\nD: None\n\n") and "alone" in text
    assert texts(cot.messages(items[1], "benchmark"))[2].endswith("Solve the problem step by step.")
    assert texts(benchmark.messages(items[1], "method")) == ["Name ", "IMAGE", "."]
    records = answered(benchmark, items, ["B", "toluene"])
    assert figures(benchmark, items, records) == {
        "emma_micro": (0.5, 2),
        "emma_subject_chem": (0.0, 1),
        "emma_subject_math": (1.0, 1),
    }
    with pytest.raises(ValueError, match="'type' is 'MCQ', but there are 0 options"):
        benchmark.read(write("x.tsv", [rows[1] | {"type": "MCQ"}]))


# LogicVista ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gold", "reply", "score"),
    [
        ("A, C", "A, C", 1),
        ("A, C", "<answer>C and A</answer>", 1),
        ("A, C", "A", 0),
        ("A, C", "A, B, C", 0),
        ("B", r"\boxed{B}", 1),
        ("B", "The pattern turns.\n\nSo it is B.", 1),
        ("B", "The pattern turns, as A and C do not.", 0),
        ("B", "<answer>the option B</answer>", 1),
        ("A, C", r"\boxed{CA}", 1),
        ("A, C", "<answer>I</answer>", 0),
        ("3", "<answer>3</answer>", 1),
        ("3", "13", 0),
    ],
)
def test_logicvista_wants_all_letters_and_no_others(write, gold, reply, score):
    benchmark = benchmarks.find("logicvista")
    (item,) = benchmark.read(
        write("LogicVista.tsv", [{"index": 1, "question": "Next?", "answer": gold, "skill": "x"}])
    )
    assert benchmark.score(item, benchmark.extract(item, reply)[0]) == score


def test_logicvista(write, answered):
    rows = [
        {"index": n, "question": "Next?", "answer": "A", "skill": ("Deductive", "['deductive', 'spatial']")[n]}
        for n in range(2)
    ]
    benchmark = benchmarks.find("logicvista")
    items = benchmark.read(write("LogicVista.tsv", rows))
    assert figures(benchmark, items, answered(benchmark, items, ["B", "A"])) == {
        "logicvista_micro": (0.5, 2),
        "logicvista_skill_deductive": (0.5, 2),
        "logicvista_skill_spatial": (1.0, 1),
    }
    with pytest.raises(ValueError, match="row 1 .*the gold answer is 'three', but LogicVista's are labels"):
        benchmark.read(write("x.tsv", [rows[0] | {"answer": "three"}]))
