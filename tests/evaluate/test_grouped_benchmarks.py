# SPDX-License-Identifier: Apache-2.0
"""WeMath's four dimensions and DynaMath's worst case, and how sure means over groups are."""

import itertools
import logging

import pytest

from open_r1_vision.evaluate import benchmarks
from open_r1_vision.evaluate.benchmarks.aggregate import collect_scores, interval
from open_r1_vision.evaluate.benchmarks.dynamath import dynamath_part_of_gold, dynamath_tolerance, short_answer

OPTIONS = {"A": "1", "B": "2", "C": "3"}


def figures(benchmark, items, records):
    return {metric.name: (round(metric.value, 4), metric.n) for metric in benchmark.metrics(items, records)}


def replies(items, marks):
    return [f"Answer: {item.answer if right == '1' else 'C'}" for item, right in zip(items, marks, strict=True)]


def problem(number, steps):
    keys = [f"{steps}steps_{step}" for step in (*range(1, steps + 1), "multi")]
    about = {"question": "Which?", **OPTIONS, "answer": "A", "ID": number, "requirement": "Use <Answer>: <<X>>."}
    return [{"index": f"{steps}-{number}-{key}", "key": key, **about} for key in keys]


# steps and whole of eight problems, what they are, and their values strict and loose
WEMATH = [
    (2, "111", "CM", 1, 1),
    (2, "101", "RM strict", 0, 1),
    (2, "001", "RM", 0, 0),
    (2, "110", "IG", 0.5, 0.5),
    (2, "100", "IK", 0, 0),
    (3, "1111", "CM", 1, 1),
    (3, "1011", "RM strict", 0, 1),
    (3, "0000", "IK", 0, 0),
]


def wemath(write, name="wemath"):
    rows = [row for number, (steps, *_) in enumerate(WEMATH) for row in problem(number, steps)]
    benchmark = benchmarks.find(name)
    return benchmark, benchmark.read(write("WeMath.tsv", rows))


def test_wemath(write, answered):
    benchmark, items = wemath(write)
    assert items[0].cluster == "2steps 0" and items[-1].cluster == "3steps 7"
    marks = "".join(marks for _, marks, *_ in WEMATH)
    found = figures(benchmark, items, answered(benchmark, items, replies(items, marks)))
    assert list(found)[:3] == ["wemath_strict", "wemath_loose", "wemath_micro"]
    assert found == {
        "wemath_strict": (2.5 / 8, 8),
        "wemath_loose": (4.5 / 8, 8),
        # 15 + 12 rows, right 3 + 2 + 1 + 2 + 1 and 4 + 3 + 0
        "wemath_micro": (round(16 / 27, 4), 27),
        "wemath_insufficient_knowledge": (2 / 8, 8),
        "wemath_inadequate_generalization": (1 / 8, 8),
        "wemath_complete_mastery_strict": (2 / 8, 8),
        "wemath_complete_mastery_loose": (4 / 8, 8),
        "wemath_rote_memorization_rate_strict": (3 / 5, 5),
        "wemath_rote_memorization_rate_loose": (1 / 5, 5),
        # single steps: 2 + 1 + 0 + 2 + 1 of 10, and 3 + 2 + 0 of 9
        "wemath_one_step": (round(11 / 19, 4), 19),
        "wemath_two_step": (3 / 5, 5),
        "wemath_three_step": (round(2 / 3, 4), 3),
    }


def test_wemath_identity(write, answered):
    """(CM + IG / 2) / n is (n - IG / 2 - RM - IK) / n, for every outcome of a problem of two steps."""
    benchmark = benchmarks.find("wemath")
    outcomes = list(itertools.product("01", repeat=3))
    rows = [row for number in range(len(outcomes)) for row in problem(number, 2)]
    items = benchmark.read(write("WeMath.tsv", rows))
    marks = "".join(itertools.chain(*outcomes))
    found = {m.name: m.value for m in benchmark.metrics(items, answered(benchmark, items, replies(items, marks)))}
    for rule in ("strict", "loose"):
        mastered, rate = found[f"wemath_complete_mastery_{rule}"], found[f"wemath_rote_memorization_rate_{rule}"]
        rote = mastered * rate / (1 - rate)
        lost = found["wemath_inadequate_generalization"] / 2 + rote + found["wemath_insufficient_knowledge"]
        assert found[f"wemath_{rule}"] == pytest.approx(1 - lost)
    # of 8 outcomes: whole wrong 4 (IG 1, IK 3), whole right 4 (CM 1, RM strict 3, of these loose 1)
    assert found["wemath_strict"] == pytest.approx(1.5 / 8) and found["wemath_loose"] == pytest.approx(3.5 / 8)


def test_525_problems_have_1740_rows():
    assert 360 * len(problem(0, 2)) + 165 * len(problem(0, 3)) == 1740


def test_wemath_over_two_samples_is_the_mean_of_both(write, answered):
    benchmark = benchmarks.find("wemath")
    items = benchmark.read(write("WeMath.tsv", problem(0, 2) + problem(1, 2)))
    records = answered(benchmark, items, replies(items, "111100")) + answered(
        benchmark, items, replies(items, "110111"), sample=1
    )
    # first sample CM and IK, second IG and CM
    assert figures(benchmark, items, records)["wemath_strict"] == ((1 + 0.5 + 0 + 1) / 4, 2)


def test_wemath_without_a_whole_problem_has_no_strict_score(write, answered):
    benchmark = benchmarks.find("wemath")
    items = benchmark.read(write("WeMath.tsv", problem(0, 2)[:2]))
    found = figures(benchmark, items, answered(benchmark, items, replies(items, "10")))
    assert found == {"wemath_micro": (0.5, 2), "wemath_one_step": (0.5, 2)}


def test_wemath_counts_the_problems_that_it_leaves_out(write, answered, caplog):
    benchmark, items = wemath(write)
    found = figures(benchmark, items[:5], answered(benchmark, items[:5], replies(items[:5], "11111")))
    assert found["wemath_strict"] == (1.0, 1) and "wemath_strict: 1 of 2 groups of items are not there" in caplog.text


def test_problems_about_one_image_are_one_source(write, encoded, answered):
    benchmark = benchmarks.find("wemath")
    rows = [row | {"image": encoded(0)} for number in range(3) for row in problem(number, 2)]
    items = benchmark.read(write("WeMath.tsv", rows))
    assert items[0].cluster.endswith(" / 2steps 0") and items[8].cluster.endswith(" / 2steps 2")
    found = {m.name: m for m in benchmark.metrics(items, answered(benchmark, items, replies(items, "111" * 3)))}
    # all right, which one image shows once: Wilson of 1 in 1
    for name in ("wemath_strict", "wemath_micro", "wemath_complete_mastery_loose"):
        assert found[name].interval[0] == pytest.approx(1 / (1 + 1.96**2), abs=1e-4)


def test_wemath_prompts_and_replies(write):
    benchmark, items = wemath(write, "wemath_cot")
    assert benchmark.family == "wemath"
    text = benchmark.messages(items[0], "benchmark")[0]["content"][1]["text"]
    assert text == "Question: Which?\nOptions:\nA. 1\nB. 2\nC. 3\nUse <Answer>: <<X>>."
    for reply in ("<Thought process>: <<C? no>> <Answer>: <<B>>", "<Answer>: B", "<Answer>: <<B. 2>>"):
        assert benchmark.extract(items[0], reply) == ("B", "wemath_answer")
    assert benchmark.extract(items[0], r"\boxed{B}") == ("B", "boxed")
    bare = benchmark.read(write("x.tsv", [problem(0, 2)[0] | {"requirement": ""}]))
    with pytest.raises(ValueError, match="wemath_cot, item 2-0-2steps_1: 'requirement' is empty or missing"):
        benchmark.messages(bare[0], "benchmark")
    with pytest.raises(ValueError, match="row 1 .*'key' is '2steps_3' and 'ID' is '0'"):
        benchmark.read(write("x.tsv", [problem(0, 3)[2] | {"key": "2steps_3"}]))


# DynaMath -----------------------------------------------------------------------------------------------------------


def dynamath_rows(questions=4, variants=10):
    return [
        {"index": q if v == 1 else 1000 + 10 * q + v, "qid": q, "varid": v, "question": "How long?", "answer": "1.5"}
        | {"answer_type": "float", "subject": "geometry" if q % 2 else "algebra", "knowledge_level": "high school"}
        for q in range(questions)
        for v in range(1, variants + 1)
    ]


def test_dynamath_average_and_worst_case(write, answered):
    benchmark = benchmarks.find("dynamath")
    items = benchmark.read(write("DynaMath.tsv", dynamath_rows()))
    assert items[12].cluster == "question 1"
    marks = "1" * 10 + "1" * 9 + "0" + "0" * 10 + "1" * 10
    records = answered(benchmark, items, ['{"short answer": "%s"}' % ("1.500" if m == "1" else "2") for m in marks])
    found = benchmark.metrics(items, records)
    assert figures(benchmark, items, records) == {
        "dynamath_average": (29 / 40, 40),
        "dynamath_worst": (2 / 4, 4),
        "dynamath_average_subject_algebra": (0.5, 20),
        "dynamath_average_subject_geometry": (0.95, 20),
        "dynamath_average_knowledge_level_high_school": (0.725, 40),
    }
    # the worst case is of four independent questions: Wilson of 2 in 4
    assert [round(edge, 4) for edge in found[1].interval] == [0.15, 0.85]
    # the average has four clusters, not forty rows, which say far less
    low, high = found[0].interval
    assert high - low > 0.5
    two = records + answered(benchmark, items, ['{"short answer": 1.5}'] * 40, sample=1)
    assert figures(benchmark, items, two)["dynamath_worst"] == (0.75, 4)


def test_dynamath_leaves_out_questions_of_which_a_variant_was_not_asked(write, answered, caplog):
    benchmark = benchmarks.find("dynamath")
    items = benchmark.read(write("DynaMath.tsv", sorted(dynamath_rows(), key=lambda row: row["varid"])))
    # nine variants of each question and a tenth of the first
    part = items[:37]
    assert figures(benchmark, part, answered(benchmark, part, ["1.5"] * 36 + ["2"]))["dynamath_worst"] == (0.0, 1)
    assert "dynamath_worst: 3 of 4 groups of items are not there with all of their items" in caplog.text
    assert "dynamath_worst" not in figures(benchmark, items[:4], answered(benchmark, items[:4], ["1.5"] * 4))


def test_dynamath_of_one_variant_has_no_worst_case(write, answered, caplog):
    benchmark = benchmarks.find("dynamath")
    items = benchmark.read(write("DynaMath.tsv", dynamath_rows(4, 1)))
    assert list(figures(benchmark, items, answered(benchmark, items, ["1.5"] * 4)))[:2] == [
        "dynamath_average",
        "dynamath_average_subject_algebra",
    ]
    assert "one variant of each question, so there is no dynamath_worst" in caplog.text


@pytest.mark.parametrize(
    ("kind", "question", "gold", "reply", "expected"),
    [
        ("float", "How long?", "1.5", '{"solution": "x", "short answer": "1.501"}', 1),
        ("float", "How long?", "1.5", '{"solution": "x", "short answer": "1.502"}', 0),
        ("float", "How long?", "6.283", '{"short answer": "2π"}', 1),
        ("float", "How long?", "6.283", r'{"short answer": "2\pi"}', 1),
        ("float", "How long?", "1.5", "1.500 cm", 1),
        ("multiple choice", "Which?\nchoices: (A) 1 (B) 2", "B", '{"short answer": "2"}', 1),
        ("multiple choice", "Which?", "B", '{"short answer": "B"}', 1),
        ("multiple choice", "Which?", "B", '{"short answer": "It is B."}', 1),
        ("multiple choice", "Which?", "B", "Let me see.\nA or B", 0),
        ("text", "What does it do?", "increasing, then decreasing", '{"short answer": "Increasing"}', 1),
        ("text", "What does it do?", "increasing, then decreasing", '{"short answer": "creasing"}', 0),
        ("text", "What does it do?", "None", '{"short answer": "None"}', 1),
    ],
)
def test_dynamath_scores(write, kind, question, gold, reply, expected):
    benchmark = benchmarks.find("dynamath")
    row = dynamath_rows()[0] | {"answer_type": kind, "question": question, "answer": gold}
    (item,) = benchmark.read(write("DynaMath.tsv", [row]))
    assert benchmark.score(item, benchmark.extract(item, reply)[0]) == expected


@pytest.mark.parametrize(
    ("reply", "short"),
    [
        ('```json\n{"solution": "a {b}", "short answer": "B"}\n```', "B"),
        (r'{"solution": "\frac{1}{2}", "short answer": "\sqrt{3}"}', r"\sqrt{3}"),
        ('{"solution": "cut", "short answer": 12', "12"),
        ('{"short answer": ""}', None),
        ('{"short answer": ["A"]}', None),
        ("no JSON", None),
    ],
)
def test_the_short_answer(reply, short):
    assert short_answer(reply) == short


def test_official_rules_of_dynamath():
    assert dynamath_tolerance("1.001", "1") == 1 and dynamath_tolerance("1.0011", "1") == 0
    assert dynamath_tolerance("pi", "3.142") == 0 and dynamath_tolerance("π", "3.142") == 1
    assert dynamath_part_of_gold("", "x") == 0 and dynamath_part_of_gold("b c", "a b c") == 1


def test_dynamath_prompts_and_columns(write):
    benchmark = benchmarks.find("dynamath")
    path = write("DynaMath.tsv", dynamath_rows(1, 1))
    (item,) = benchmark.read(path)
    text = benchmark.messages(item, "benchmark")[0]["content"][1]["text"]
    assert text.startswith("## Question\nHow long?") and '"short answer"' in text and "three digits" in text
    plain = benchmarks.find("dynamath_noprompt")
    assert plain.messages(item, "benchmark")[0]["content"][1]["text"] == "How long?"
    with pytest.raises(ValueError, match="row 1 .*'answer_type' is 'essay' and 'qid' is '0'"):
        benchmark.read(write("x.tsv", [dynamath_rows()[0] | {"answer_type": "essay"}]))


# intervals and records ----------------------------------------------------------------------------------------------


def test_intervals():
    low, high = interval([1.0] * 683 + [0.0] * 317)
    assert (round(low, 3), round(high, 3)) == (0.654, 0.711)
    # Student's with three values 0, 0.5, 1: mean 0.5, standard error 0.5 / sqrt(3), quantile 4.303; cut to [0, 1]
    assert interval([0.0, 0.5, 1.0]) == (0.0, 1.0)
    low, high = interval([0.4, 0.5, 0.6])
    assert low == pytest.approx(0.5 - 4.3027 * 0.1 / 3**0.5, abs=1e-4) and high == pytest.approx(1 - low)
    assert interval([0.5]) is None
    # all right, but three clusters only: Wilson of 3 in 3
    assert interval([1.0] * 30, list("aaabbbccc") + ["c"] * 21)[0] == pytest.approx(0.4385, abs=1e-4)
    assert interval([1.0, 0.0], ["a", "a"]) is None


def test_clustered_interval():
    pytest.importorskip("statsmodels")
    values, clusters = [1.0, 1.0, 0.0, 0.0, 1.0, 0.0], ["a", "a", "b", "b", None, None]
    # Miller's equation 4: deviations from 1/2 sum to 1, -1, 1/2 and -1/2 in the clusters, so the variance is 2.5 / 36;
    # with four clusters statsmodels takes 4/3 of it, and Student's quantile for 3 degrees of freedom is 3.1824
    half = 3.1824 * (2.5 / 36 * 4 / 3) ** 0.5
    low, high = interval(values, clusters)
    assert (low, high) == (max(0.5 - half, 0), min(0.5 + half, 1)) == (0.0, 1.0)
    wide = [value for value in values for _ in range(40)]
    many = [(cluster or place, copy) for place, cluster in enumerate(clusters) for copy in range(40)]
    low, high = interval(wide, many)
    # 160 clusters with 40 times the sum of squares
    half = 1.9750 * (2.5 * 40 / 240**2 * 160 / 159) ** 0.5
    assert low == pytest.approx(0.5 - half, abs=1e-4) and high == pytest.approx(0.5 + half, abs=1e-4)


def test_without_statsmodels_the_interval_is_left_out_and_said(monkeypatch, caplog):
    import sys

    monkeypatch.setitem(sys.modules, "statsmodels.regression.linear_model", None)
    with caplog.at_level(logging.WARNING):
        assert interval([1.0, 0.0, 1.0], ["a", "a", "b"]) is None
    assert "pip install 'open_r1_vision[eval]'" in caplog.text


def test_only_ok_scores_and_records_must_fit(write, answered):
    benchmark = benchmarks.find("dynamath")
    items = benchmark.read(write("DynaMath.tsv", dynamath_rows(1, 2)))
    right = answered(benchmark, items, ["1.5", "1.5"])
    cut = answered(benchmark, items, ["1.5", "1.5"], status="truncated")
    assert [record.score for record in cut] == [1, 1]
    assert collect_scores("dynamath", items, [right[0], cut[1]]) == {"0": [1.0], "1002": [0.0]}
    with pytest.raises(ValueError, match="of the benchmark 'dynamath', but 'mmstar' is asked for"):
        collect_scores("mmstar", items, right)
    with pytest.raises(ValueError, match="the item '1002', but 'dynamath' has no such item"):
        collect_scores("dynamath", items[:1], right)
    with pytest.raises(ValueError, match="1 of the 2 items of 'dynamath' have fewer records"):
        collect_scores("dynamath", items, right[:1])
    with pytest.raises(ValueError, match="'0' has two records of sample 0"):
        collect_scores("dynamath", items, [*right, right[0]])
