# SPDX-License-Identifier: Apache-2.0
"""Each benchmark on a miniature of its table: what it asks, what it takes for right, what its metrics come to."""

import subprocess
import sys

import pytest

from open_r1_vision.evaluate import benchmarks

OPTIONS = {"A": "cat", "B": "dog", "C": "bird", "D": "None"}


def texts(chat):
    return [part.get("text", "IMAGE") for part in chat[-1]["content"]]


def figures(benchmark, items, records):
    return {metric.name: (round(metric.value, 4), metric.n) for metric in benchmark.metrics(items, records)}


def mark(benchmark, items, marks, answered, **about):
    """Records with the gold answer where the mark is 1, with a wrong one where it is 0."""
    replies = [item.answer if right == "1" else "certainly wrong" for item, right in zip(items, marks, strict=True)]
    return answered(benchmark, items, [f"<answer>{reply}</answer>" for reply in replies], **about)


def test_every_name_is_found():
    for name in benchmarks.names():
        assert benchmarks.find(name).name == name
    assert benchmarks.find("MathVista_MINI").name == "mathvista"
    assert benchmarks.find("MMMU_Pro_V_COT").name == "mmmu_pro_vision_cot"
    with pytest.raises(ValueError, match="There is no benchmark 'mathvsita', did you mean 'mathvista'"):
        benchmarks.find("mathvsita")


def test_benchmarks_are_imported_without_torch():
    heavy = ("torch", "transformers", "datasets", "pandas", "scipy", "statsmodels")
    code = (
        "import sys; from open_r1_vision.evaluate import benchmarks; "
        "[benchmarks.find(name) for name in benchmarks.names()]; "
        "from open_r1_vision.evaluate.exchange import lmms_eval, vlmevalkit; "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["mmstar", "mathverse", "rows", "geo170k_754"])
def test_a_benchmark_without_its_file_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} reads its items from a file, but none was given"):
        benchmarks.find(name).read(None)


# MMStar -------------------------------------------------------------------------------------------------------------


def mmstar_rows():
    axes = [("math", "geometry"), ("math", "geometry"), ("math", "statistics"), ("science", "geometry")]
    golds = "ABCD"
    return [
        {"index": n, "question": f"Q{n}?", **OPTIONS, "answer": golds[n], "category": axis[0], "l2-category": axis[1]}
        for n, axis in enumerate(axes)
    ]


def test_mmstar(write, answered):
    benchmark = benchmarks.find("mmstar")
    items = benchmark.read(write("MMStar.tsv", mmstar_rows()))
    assert items[3].options == OPTIONS  # the text "None" is an option
    assert items[3].fields["D"] == "None" and items[3].cluster is None
    chat = benchmark.messages(items[0], "benchmark")
    assert texts(chat) == [
        "IMAGE",
        "Question: Q0?\nOptions:\nA. cat\nB. dog\nC. bird\nD. None\nPlease select the correct answer from the options "
        "above.",
    ]
    assert chat[-1]["content"][0]["image"].size == (30, 40)
    assert texts(benchmark.messages(items[0], "method")) == ["IMAGE", "Q0?\nA. cat\nB. dog\nC. bird\nD. None"]
    records = answered(benchmark, items, ["A", "(C) bird", "<answer>bird</answer>", "None"])
    assert [record.score for record in records] == [1, 0, 1, 1]
    # micro 3/4; axes: math geometry 1/2, math statistics 1, science geometry 1
    assert figures(benchmark, items, records) == {
        "mmstar_micro": (0.75, 4),
        "mmstar_macro": (round(2.5 / 3, 4), 3),
        "mmstar_category_math": (round(2 / 3, 4), 3),
        "mmstar_category_science": (1.0, 1),
    }


def test_wilson_of_683_in_1000(write, answered):
    benchmark = benchmarks.find("mmstar")
    items = benchmark.read(write("MMStar.tsv", [mmstar_rows()[0] | {"index": n} for n in range(1000)], images=True))
    low, high = benchmark.metrics(items, mark(benchmark, items, "1" * 683 + "0" * 317, answered))[0].interval
    assert (round(low, 3), round(high, 3)) == (0.654, 0.711)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"A": "", "B": "", "C": "", "D": ""},
            r"MMStar\.tsv', row 1 \(index 0\): 0 options, but mmstar asks for a choice",
        ),
        ({"answer": "E"}, r"row 1 \(index 0\): the gold answer 'E' is none of the options A, B, C, D"),
        ({"question": ""}, r"row 1 \(index 0\): 'question' is empty or missing"),
        ({"image": "9" * 70}, r"row 1 \(index 0\): the image '9+' is not base64|row 1 \(index 0\): this is no image"),
    ],
)
def test_unusable_rows_are_refused(write, change, message):
    rows = mmstar_rows()
    rows[0] |= change
    with pytest.raises(ValueError, match=message):
        benchmarks.find("mmstar").read(write("MMStar.tsv", rows))


def test_rows_without_image_are_left_out_and_counted(write, caplog):
    rows = [row | ({"image": ""} if row["index"] == 2 else {}) for row in mmstar_rows()]
    items = benchmarks.find("mmstar").read(write("MMStar.tsv", rows))
    assert [item.index for item in items] == ["0", "1", "3"]
    assert "1 of 4 rows have no image and are left out" in caplog.text
    with pytest.raises(ValueError, match="has 4 rows and no images: mmstar needs a column image or image_path"):
        benchmarks.find("mmstar").read(write("bare.tsv", mmstar_rows(), images=False))


def test_items_with_one_image_are_one_cluster(write, encoded):
    rows = mmstar_rows()
    rows[1]["image"] = "0"
    rows[2]["image"] = encoded(5)
    rows[3]["image"] = encoded(5)  # the same picture, written out twice
    clusters = [item.cluster for item in benchmarks.find("mmstar").read(write("MMStar.tsv", rows))]
    assert clusters[0] == clusters[1] != clusters[2] == clusters[3]
    assert clusters[0].startswith("image ")


# MathVista ----------------------------------------------------------------------------------------------------------


def mathvista_rows():
    free = {"question_type": "free_form", "choices": "", "answer_option": ""}
    return [
        {
            **{"index": 1, "question": "Hint: choose.\nQuestion: Which?\nChoices:\n(A) 1\n(B) 12", "answer": "12"},
            **{"choices": "['1', '12']", "question_type": "multi_choice", "answer_option": "B", "answer_type": "text"},
            **{"precision": "", "task": "figure question answering", "skills": "['a b', 'c']"},
        },
        {"index": 2, "question": "How many?", "answer": "7", **free, "answer_type": "integer", "skills": "['c']"},
        {"index": 3, "question": "How long?", "answer": "1.2", **free, "answer_type": "float", "precision": "1.0"},
        {"index": 4, "question": "Which years?", "answer": "[1, 2]", **free, "answer_type": "list"},
        {"index": 5, "question": "Who?", "answer": "None", **free, "answer_type": "text"},
    ]


MATHVISTA = [
    (0, "B", 1),
    (0, "12", 1),
    (0, r"\boxed{(B) 12}", 1),
    (0, "1", 0),
    (1, "7", 1),
    (1, "7.0", 1),
    (1, "7 apples", 1),
    (1, "7.6", 1),  # the official code cuts off
    (1, "8", 0),
    (2, "1.23", 1),  # rounded to one digit
    (2, "1.26", 0),
    (3, "[1,2]", 1),
    (3, "[2, 1]", 0),
    (4, "None", 1),
    (4, "none.", 1),
    (4, "nobody", 0),
]


@pytest.mark.parametrize(("item", "reply", "score"), MATHVISTA)
def test_mathvista_scores(write, item, reply, score):
    benchmark = benchmarks.find("mathvista")
    item = benchmark.read(write("MathVista_MINI.tsv", mathvista_rows()))[item]
    assert benchmark.score(item, benchmark.extract(item, reply)[0]) == score


def test_mathvista(write, answered):
    benchmark = benchmarks.find("mathvista")
    items = benchmark.read(write("MathVista_MINI.tsv", mathvista_rows()))
    assert (items[0].answer, items[0].options) == ("B", {"A": "1", "B": "12"})
    assert items[0].fields["answer"] == "12"
    assert texts(benchmark.messages(items[0], "benchmark"))[1] == mathvista_rows()[0]["question"]
    found = figures(benchmark, items, mark(benchmark, items, "10110", answered))
    assert found == {
        "mathvista_micro": (0.6, 5),
        "mathvista_task_figure_question_answering": (1.0, 1),
        "mathvista_skills_a_b": (1.0, 1),
        "mathvista_skills_c": (0.5, 2),
    }
    with pytest.raises(ValueError, match="row 1 .*'question_type' is 'quiz', but MathVista's is"):
        benchmark.read(write("x.tsv", [mathvista_rows()[0] | {"question_type": "quiz"}]))
    with pytest.raises(ValueError, match="multi_choice, but 'choices' holds 0"):
        benchmark.read(write("x.tsv", [mathvista_rows()[0] | {"choices": ""}]))


@pytest.mark.parametrize("missing", ["", "nan", "None"])
def test_a_precision_that_is_missing_is_the_golds(write, missing):
    benchmark = benchmarks.find("mathvista")
    (item,) = benchmark.read(write("x.tsv", [mathvista_rows()[2] | {"precision": missing}]))
    assert [benchmark.score(item, answer) for answer in ("1.23", "1.26")] == [1, 0]


@pytest.mark.parametrize("precision", ["inf", "-1", "1e300", "two"])
def test_a_precision_that_is_none_is_refused(write, precision):
    message = rf"row 1 \(index 3\): 'precision' is '{precision}', but it must be a number of digits"
    with pytest.raises(ValueError, match=message):
        benchmarks.find("mathvista").read(write("x.tsv", [mathvista_rows()[2] | {"precision": precision}]))


# MathVision, MathVerse ----------------------------------------------------------------------------------------------


def test_mathvision(write, answered):
    rows = [
        {"index": 1, "question": "Which?", "choices": "['2', '3']", "answer": "B", "category": "algebra"},
        {"index": 2, "question": "How long?", "choices": "[]", "answer": r"2\sqrt{3}", "category": "solid geometry"},
        {
            "index": 3,
            "question": "Which?\nChoices: (A) 2\n(B) 3",
            "choices": "['2', '3']",
            "answer": "A",
            "category": "",
        },
    ]
    benchmark = benchmarks.find("mathvision")
    items = benchmark.read(write("MathVision.tsv", rows))
    assert texts(benchmark.messages(items[0], "benchmark"))[1] == "Which?\nA. 2\nB. 3"
    assert texts(benchmark.messages(items[2], "method"))[1] == rows[2]["question"]
    records = answered(benchmark, items, ["3", r"\boxed{\sqrt{12}}", "B"])
    assert figures(benchmark, items, records) == {
        "mathvision_micro": (round(2 / 3, 4), 3),
        "mathvision_category_algebra": (1.0, 1),
        "mathvision_category_solid_geometry": (1.0, 1),
    }


def mathverse_rows():
    full = "Find x.\nChoices:\nA:1\nB:2"
    versions = ["Text Lite", "Vision Only"]
    about = {"question_for_eval": full, "query_cot": "Think. " + full, "metadata": "{'subject': 'Plane Geometry'}"}
    return [
        {"index": 2 * p + v, "problem_index": p, "problem_version": version, "question": q, "answer": "B", **about}
        for p in range(3)
        for v, (version, q) in enumerate(zip(versions, (full, "Directly answer."), strict=True))
    ]


def test_mathverse_by_version(write, answered):
    benchmark = benchmarks.find("mathverse")
    items = benchmark.read(write("MathVerse_MINI.tsv", mathverse_rows()))
    assert items[1].options == {"A": "1", "B": "2"} and items[1].question == "Directly answer."
    assert [item.cluster for item in items] == [f"problem {p}" for p in (0, 0, 1, 1, 2, 2)]
    assert texts(benchmarks.find("mathverse_cot").messages(items[1], "benchmark"))[1].startswith("Think. Find x.")
    # problems right in (lite, only): 11, 10, 00
    records = mark(benchmark, items, "111000", answered)
    assert figures(benchmark, items, records) == {
        "mathverse_all_versions": (0.5, 6),
        "mathverse_text_lite": (round(2 / 3, 4), 3),
        "mathverse_vision_only": (round(1 / 3, 4), 3),
        "mathverse_subject_plane_geometry": (0.5, 6),
    }
    assert [metric.name for metric in benchmark.metrics(items, records)][0] == "mathverse_all_versions"
    drawn = [row | {"image": "0"} if row["index"] == 2 else row for row in mathverse_rows()]
    shared = [item.cluster.rpartition(" / ") for item in benchmark.read(write("shared.tsv", drawn))]
    assert [name for _, _, name in shared] == [f"problem {p}" for p in (0, 0, 1, 1, 2, 2)]
    assert len({source for source, _, _ in shared[:4]}) == 1 and shared[4][0] == "" != shared[0][0]
    one = benchmark.read(
        write("one.tsv", [row for row in mathverse_rows() if row["problem_version"] == "Vision Only"])
    )
    assert [item.cluster for item in one] == [None] * 3
    assert benchmark.metrics(one, mark(benchmark, one, "100", answered))[0].name == "mathverse_vision_only"
    with pytest.raises(ValueError, match="row 1 .*'problem_version' is empty or missing"):
        benchmark.read(write("x.tsv", [mathverse_rows()[0] | {"problem_version": ""}]))
    inside = {"problem_version": "", "metadata": "{'problem_version': 'Text Lite', 'subfield': 'Angle'}"}
    (item,) = benchmark.read(write("x.tsv", [mathverse_rows()[0] | inside]))
    assert list(figures(benchmark, [item], mark(benchmark, [item], "1", answered))) == [
        "mathverse_text_lite",
        "mathverse_subfield_angle",
    ]
    bare = benchmark.read(write("x.tsv", [mathverse_rows()[0] | {"query_cot": ""}]))
    with pytest.raises(ValueError, match="'query_cot' is empty or missing"):
        benchmarks.find("mathverse_cot").messages(bare[0], "benchmark")


# MMBench ------------------------------------------------------------------------------------------------------------


def mmbench_rows(questions=3, rolls=4):
    letters = "ABCD"
    rows = []
    for roll in range(rolls):
        for q in range(questions):
            rolled = {letters[n]: list(OPTIONS.values())[(n + roll) % 4] for n in range(4)}
            gold = next(letter for letter, text in rolled.items() if text == "dog")
            index = q + roll * 1_000_000
            row = {"index": index, "question": f"Q{q}?", "hint": "A hint." if q == 0 else "", **rolled, "answer": gold}
            rows.append(row | {"category": f"c{q % 2}", **({"image": str(q)} if roll else {})})
    return rows


def test_mmbench_counts_a_question_that_is_right_in_every_rotation(write, answered):
    benchmark = benchmarks.find("mmbench")
    items = benchmark.read(write("MMBench_DEV_EN.tsv", mmbench_rows()))
    assert [item.cluster for item in items[:4]] == ["question 0", "question 1", "question 2", "question 0"]
    assert texts(benchmark.messages(items[0], "benchmark"))[1].startswith(
        "Hint: A hint.\nQuestion: Q0?\nOptions:\nA. cat"
    )
    assert texts(benchmark.messages(items[1], "method"))[1] == "Q1?\nA. cat\nB. dog\nC. bird\nD. None"
    # question 0 right in all rotations, 1 in the first only, 2 in all but the first
    records = mark(benchmark, items, "110101101101", answered)
    assert figures(benchmark, items, records) == {
        "mmbench_circular": (round(1 / 3, 4), 3),
        "mmbench_vanilla": (round(2 / 3, 4), 3),
        "mmbench_circular_category_c0": (0.5, 2),
        "mmbench_circular_category_c1": (0.0, 1),
    }


def test_mmbench_leaves_out_questions_of_which_a_rotation_was_not_asked(write, answered, caplog):
    benchmark = benchmarks.find("mmbench")
    # question 2 is not turned in the table, as some of MMBench's are not: it is whole in one row
    rows = [row for row in mmbench_rows() if row["index"] % 1_000_000 != 2 or row["index"] == 2]
    items = benchmark.read(write("MMBench_DEV_EN.tsv", rows))
    assert [item.group_size for item in items[:3]] == [4, 4, 1]
    whole = figures(benchmark, items, mark(benchmark, items, "111101111", answered))
    assert whole["mmbench_circular"] == (round(2 / 3, 4), 3) and not caplog.text
    # the last row, of question 1, was not asked, and its others are right
    part = figures(benchmark, items[:8], mark(benchmark, items[:8], "11111111", answered))
    assert (part["mmbench_circular"], part["mmbench_vanilla"]) == ((1.0, 2), (1.0, 3))
    assert part["mmbench_circular_category_c0"] == (1.0, 2) and "mmbench_circular_category_c1" not in part
    assert "mmbench_circular: 1 of 3 groups of items are not there with all of their items, and are" in caplog.text
    first = figures(benchmark, items[:2], mark(benchmark, items[:2], "11", answered))
    assert first == {"mmbench_vanilla": (1.0, 2)}


def test_questions_about_one_image_are_one_source(write, answered):
    pytest.importorskip("statsmodels")
    benchmark = benchmarks.find("mmbench")
    # questions 0 and 1 of three are about one image
    rows = [row | ({"image": "0"} if row["index"] % 1_000_000 == 1 else {}) for row in mmbench_rows()]
    items = benchmark.read(write("MMBench_DEV_EN.tsv", rows))
    clusters = [item.cluster for item in items[:4]]
    assert clusters[0].startswith("image ") and clusters[0].endswith(" / question 0") and clusters[3] == clusters[0]
    assert clusters[1] == clusters[0].replace("question 0", "question 1") and clusters[2] == "question 2"
    found = benchmark.metrics(items, mark(benchmark, items, "111110110110", answered))
    assert [(metric.name, metric.n) for metric in found[:2]] == [("mmbench_circular", 3), ("mmbench_vanilla", 3)]
    # three questions are all right, from two images: Wilson of 2 in 2
    assert found[1].interval[0] == pytest.approx(0.3424, abs=1e-4)
    # two questions of three, of two sources that deviate by 2/3 and -2/3: (2 * (2/3)^2 * 2)^0.5 / 3 times 12.706
    assert found[0].value == pytest.approx(2 / 3) and found[0].interval == (0.0, 1.0)
    alone = benchmark.read(write("one.tsv", rows[1:3] + [rows[0]]))
    assert [item.cluster and item.cluster.rpartition(" / ")[2] for item in alone] == ["question 1", None, "question 0"]


def test_mmbench_without_rotations_or_gold_answers(write, answered, caplog):
    benchmark = benchmarks.find("mmbench")
    items = benchmark.read(write("MMBench_DEV_EN.tsv", mmbench_rows(rolls=1)))
    assert [item.cluster for item in items] == [None] * 3
    assert next(iter(figures(benchmark, items, mark(benchmark, items, "110", answered)))) == "mmbench_vanilla"
    assert "no rotated rows" in caplog.text
    hidden = benchmark.read(write("MMBench_TEST_EN.tsv", [row | {"answer": ""} for row in mmbench_rows()]))
    records = answered(benchmark, hidden, ["A"] * 12)
    assert {record.score for record in records} == {None} and benchmark.metrics(hidden, records) == []
    with pytest.raises(ValueError, match="row 1 .*the index of MMBench must be a whole number"):
        benchmark.read(write("x.tsv", [mmbench_rows()[0] | {"index": "a"}]))


def test_an_unknown_style_is_refused(write):
    benchmark = benchmarks.find("mmstar")
    items = benchmark.read(write("MMStar.tsv", mmstar_rows()))
    with pytest.raises(ValueError, match="The prompt style is 'Method': set it to benchmark or method"):
        benchmark.messages(items[0], "Method")
    chat = benchmark.messages(items[0], "method", system_prompt="Be brief.", user_prompt="{problem}\nThink.")
    assert chat[0] == {"role": "system", "content": [{"type": "text", "text": "Be brief."}]}
    assert texts(chat)[-1].endswith("D. None\nThink.")
