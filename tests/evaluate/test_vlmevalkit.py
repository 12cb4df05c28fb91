# SPDX-License-Identifier: Apache-2.0
"""Prediction tables for VLMEvalKit, and what it makes of them."""

import dataclasses
import json

import pytest

from open_r1_vision.evaluate import benchmarks
from open_r1_vision.evaluate.exchange.vlmevalkit import export_table, import_table, table_name
from open_r1_vision.evaluate.tsv import read_table

ANSWERS = [
    "None",
    "nan",
    "答案，十二",
    "a\ttab",
    "two\nlines",
    "carriage\rreturn",
    'a "quote"',
    "-",
    "x" * 40_000,
    "7",
]


@pytest.fixture
def free(write):
    """A benchmark with free answers, and an item for each of `ANSWERS`."""
    benchmark = benchmarks.find("mathvista")
    about = {"question_type": "free_form", "answer_type": "text", "choices": "", "precision": ""}
    rows = [{"index": n, "question": f"Q{n}\t?\n", "answer": text, **about} for n, text in enumerate(ANSWERS)]
    return benchmark, benchmark.read(write("MathVista_MINI.tsv", rows)), rows


@pytest.fixture
def choices(write):
    benchmark = benchmarks.find("mmstar")
    rows = [{"index": n, "question": f"Q{n}", "A": "cat", "B": "dog", "answer": "AB"[n % 2]} for n in range(4)]
    return benchmark, benchmark.read(write("MMStar.tsv", rows)), rows


def with_answers(records, answers):
    return [dataclasses.replace(record, answer=answer) for record, answer in zip(records, answers, strict=True)]


def test_answers_and_texts_survive_the_way_there_and_back(free, tmp_path, answered):
    benchmark, items, _ = free
    texts = [f"<think>{text}\r\n\t</think>{text}" + "汉字\n" * 9_000 for text in ANSWERS]
    records = with_answers(answered(benchmark, items, texts), ANSWERS[:-1] + [None])
    records[-1] = dataclasses.replace(records[-1], extractor="none", status="no_answer", score=0.0)
    records[:-1] = [
        dataclasses.replace(record, extractor="tags", status="ok", score=benchmark.score(item, record.answer))
        for item, record in zip(items[:-1], records, strict=False)
    ]
    records[0] = dataclasses.replace(records[0], status="truncated", score=0.0)
    written = export_table(benchmark, items, records, tmp_path / table_name(benchmark, "org/model"))
    assert (written.path.name, written.rows, written.unanswered) == ("org_model_MathVista_MINI.tsv", 10, 1)
    assert written.read_as_missing == ("0", "1")  # None and nan, which pandas drops
    back = import_table(benchmark, items, written.path)
    assert back == [dataclasses.replace(record, prompt_sha="", tokens=None) for record in records]
    assert [record.score for record in back] == [0.0] + [1.0] * 8 + [0.0]
    assert [record.status for record in back] == ["truncated"] + ["ok"] * 8 + ["no_answer"]


def test_a_table_has_the_columns_of_the_data_without_images(free, tmp_path, answered):
    benchmark, items, rows = free
    export_table(benchmark, items, answered(benchmark, items, ["x"] * 10), tmp_path / "m_MathVista_MINI.tsv")
    table = read_table(tmp_path / "m_MathVista_MINI.tsv")
    assert table.columns == (*rows[0], "prediction", "thinking", "extractor", "status", "judged_by", "our_score")
    assert [row["answer"] for row in table.rows] == ANSWERS
    assert [row["question"] for row in table.rows] == [row["question"] for row in rows]


def test_the_bare_answer_is_what_the_kit_matches_by_rule(choices, tmp_path, answered):
    benchmark, items, _ = choices
    texts = [r"so \boxed{A}", "<answer>dog</answer>", "The answer is (A).", "I don't know\nat all"]
    records = answered(benchmark, items, texts)
    export_table(benchmark, items, records, tmp_path / "m_MMStar.tsv")
    rows = read_table(tmp_path / "m_MMStar.tsv").rows
    assert [row["prediction"] for row in rows] == ["A", "B", "A", "-"]
    assert [row["thinking"] for row in rows] == texts
    export_table(benchmark, items, records, tmp_path / "raw_MMStar.tsv", raw=True)
    table = read_table(tmp_path / "raw_MMStar.tsv")
    assert [row["prediction"] for row in table.rows] == texts and "thinking" not in table.columns
    assert [record.answer for record in import_table(benchmark, items, table.path)] == ["A", "B", "A", None]


def test_one_of_several_samples_is_written(choices, tmp_path, answered):
    benchmark, items, _ = choices
    records = answered(benchmark, items, "AAAA") + answered(benchmark, items, "BBBB", sample=1)
    export_table(benchmark, items, records, tmp_path / "m_MMStar.tsv", sample=1)
    assert [row["prediction"] for row in read_table(tmp_path / "m_MMStar.tsv").rows] == list("BBBB")
    with pytest.raises(ValueError, match="no prediction for 4 of the 4 items .*choose a sample other than 2"):
        export_table(benchmark, items, records, tmp_path / "m_MMStar.tsv", sample=2)


def test_what_can_not_be_exported_is_refused(choices, tmp_path, answered):
    benchmark, items, _ = choices
    records = answered(benchmark, items, "AAAA")
    with pytest.raises(ValueError, match=r"m\.xlsx' can't be written: give a name that ends in \.tsv"):
        export_table(benchmark, items, records, tmp_path / "m.xlsx")
    with pytest.raises(ValueError, match="item '0' of 'mmstar', but the items are 3 of 'mmstar'"):
        export_table(benchmark, items[1:], records, tmp_path / "m.tsv")
    with pytest.raises(ValueError, match="of 'mmstar', but the items are 4 of 'emma'"):
        export_table(benchmarks.find("emma"), items, records, tmp_path / "m.tsv")
    with pytest.raises(ValueError, match="VLMEvalKit has no data 'MMStarr' of the benchmark 'mmstar'"):
        table_name(benchmark, "m", "MMStarr")
    assert table_name(benchmarks.find("rows"), "m") == "m_rows.tsv"
    assert table_name(benchmarks.find("mathvision"), "m", "MathVision_MINI") == "m_MathVision_MINI.tsv"


def test_verdicts_and_failures_come_back(choices, tmp_path, answered, write):
    benchmark, items, rows = choices
    right, wrong, lost, cut = answered(benchmark, items, ["a cat, surely\nnot", "A", "", "B"])
    records = [
        # the judge found an answer, found none, did not reply; the last was cut off
        dataclasses.replace(right, extractor="judge", status="ok", score=1.0, judged_by="llm"),
        dataclasses.replace(wrong, score=0.0, judged_by="none"),
        dataclasses.replace(lost, extractor="none", status="failed", judged_by="none"),
        dataclasses.replace(cut, status="truncated", score=0.0),
    ]
    path = tmp_path / "m_MMStar.tsv"
    export_table(benchmark, items, records, path)
    back = import_table(benchmark, items, path)
    assert back == [dataclasses.replace(record, prompt_sha="", tokens=None) for record in records]
    # what the kit's judge then says comes first, but nothing that was cut off is right
    table = [{**row, "hit": "1"} for row in read_table(path).rows]
    judged = import_table(benchmark, items, write("m_MMStar_gpt_result.tsv", table, images=False))
    assert [(r.score, r.judged_by, r.status) for r in judged] == [
        (1.0, "llm", "ok"),
        (1.0, "llm", "ok"),
        (0.0, "none", "failed"),
        (0.0, "llm", "truncated"),
    ]
    for name, value in (("our_score", "1.5"), ("our_score", "nan"), ("judged_by", "me")):
        table = [{**row, name: value} for row in read_table(path).rows]
        with pytest.raises(ValueError, match=f"row 1 .*{name}' is '{value}'.* a number from 0 to 1"):
            import_table(benchmark, items, write("x.tsv", table, images=False))


def test_columns_of_the_data_are_no_verdicts(write, tmp_path, answered):
    benchmark = benchmarks.find("mmstar")
    about = {"question": "Q", "A": "cat", "B": "dog", "answer": "A", "hit": 0, "score": 0, "res": "B"}
    items = benchmark.read(write("MMStar.tsv", [{"index": n, **about} for n in range(2)]))
    path = tmp_path / "m_MMStar.tsv"
    export_table(benchmark, items, answered(benchmark, items, ["cat", "dog"]), path)
    found = [(r.answer, r.score, r.judged_by, r.extractor) for r in import_table(benchmark, items, path)]
    assert found == [("A", 1.0, "rule", "whole"), ("B", 0.0, "rule", "whole")]
    # the kit's judge writes over one of them
    table = [{**row, "hit": hit} for row, hit in zip(read_table(path).rows, "01", strict=True)]
    judged = import_table(benchmark, items, write("m_MMStar_result.tsv", table, images=False))
    assert [(r.answer, r.score, r.judged_by) for r in judged] == [("A", 0.0, "llm"), ("B", 1.0, "llm")]


def test_ids_with_leading_zeros(tmp_path, picture, answered, write):
    (tmp_path / "0.png").write_bytes(picture())
    about = {"image_path": "0.png", "question": "Q", "A": "cat", "B": "dog", "answer": "A"}
    benchmark = benchmarks.find("mmstar")

    def read(*indices):
        lines = "".join(json.dumps({"index": index, **about}) + "\n" for index in indices)
        (tmp_path / "MMStar.jsonl").write_text(lines, encoding="utf-8")
        return benchmark.read(tmp_path / "MMStar.jsonl")

    items = read("000", "001")
    export_table(benchmark, items, answered(benchmark, items, "AB"), tmp_path / "m.tsv")
    assert [(r.index, r.answer) for r in import_table(benchmark, items, tmp_path / "m.tsv")] == [
        ("000", "A"),
        ("001", "B"),
    ]
    # as spreadsheets write them
    numbers = [{"index": n, "question": "Q", "prediction": text} for n, text in (("1.0", "B"), ("0", "A"))]
    found = import_table(benchmark, items, write("x.tsv", numbers, images=False))
    assert [(r.index, r.answer) for r in found] == [("000", "A"), ("001", "B")]
    # 0 is an item of its own, 00 another one, and 0.0 neither
    items = read("0", "00")
    export_table(benchmark, items, answered(benchmark, items, "AB"), tmp_path / "m.tsv")
    assert [record.answer for record in import_table(benchmark, items, tmp_path / "m.tsv")] == ["A", "B"]
    with pytest.raises(ValueError, match=r"row 1 \(index 0.0\): 'mmstar' has no such item"):
        import_table(benchmark, items, write("x.tsv", [numbers[0] | {"index": "0.0"}], images=False), partial=True)


def test_predictions_of_other_rows_are_refused(tmp_path, picture, answered):
    (tmp_path / "0.png").write_bytes(picture())
    benchmark = benchmarks.find("rows")

    def read(name, **changes):
        row = {"id": "7", "problem": "How long?", "solution": "1.5", "images": ["0.png"], "problem_type": "number"}
        (tmp_path / name).write_text(json.dumps(row | changes) + "\n", encoding="utf-8")
        return benchmark.read(tmp_path / name)

    items = read("a.jsonl")
    export_table(benchmark, items, answered(benchmark, items, ["<answer>1.5</answer>"]), tmp_path / "m.tsv")
    assert [record.score for record in import_table(benchmark, items, tmp_path / "m.tsv")] == [1.0]
    with pytest.raises(ValueError, match=r"row 1 \(index 7\): 'rows' has another question there"):
        import_table(benchmark, read("b.jsonl", problem="How wide?"), tmp_path / "m.tsv")
    with pytest.raises(ValueError, match=r"row 1 \(index 7\): 'rows' has another gold answer there"):
        import_table(benchmark, read("c.jsonl", solution="2"), tmp_path / "m.tsv")
    # the same number in other words, as pandas writes it
    assert import_table(benchmark, read("d.jsonl", solution="1.50"), tmp_path / "m.tsv")[0].score == 1


# what the kit writes ------------------------------------------------------------------------------------------------


def test_a_prediction_table_of_the_kit(choices, write):
    benchmark, items, rows = choices
    predictions = ["A", "The answer is B.", "dog", "Failed to obtain answer via API."]
    table = [row | {"prediction": text} for row, text in zip(rows, predictions, strict=True)]
    table[1] |= {"thinking": "Dogs bark.", "prediction": "B"}
    records = import_table(benchmark, items, write("q_MMStar.tsv", table, images=False))
    assert [(r.answer, r.score, r.status, r.judged_by) for r in records] == [
        ("A", 1.0, "ok", "rule"),
        ("B", 1.0, "ok", "rule"),
        ("B", 0.0, "ok", "rule"),
        (None, 0.0, "failed", "none"),
    ]
    assert records[1].raw == "<think>\nDogs bark.\n</think>\nB"
    assert benchmark.metrics(items, records)[0].value == 0.5


@pytest.mark.parametrize(("judge", "judged_by"), [("exact_matching", "rule"), ("chatgpt-0125", "llm")])
def test_a_result_table_of_choices(choices, write, judge, judged_by):
    benchmark, items, rows = choices
    table = [row | {"prediction": "long text\nwithout", "hit": hit} for row, hit in zip(rows, "1010", strict=True)]
    records = import_table(benchmark, items, write(f"q_MMStar_{judge}_result.tsv", table, images=False))
    assert [record.score for record in records] == [1, 0, 1, 0]
    assert {record.judged_by for record in records} == {judged_by}
    # our rule finds no answer in the text; the judge's verdict that one is right stands, and counts
    assert [record.status for record in records] == ["ok", "no_answer", "ok", "no_answer"]
    assert benchmark.metrics(items, records)[0].value == 0.5
    with pytest.raises(ValueError, match="row 1 .*the verdict is 'maybe', but it must be 0 or 1"):
        import_table(benchmark, items, write("x.tsv", [row | {"hit": "maybe"} for row in table], images=False))


def test_judged_tables_of_free_answers(free, write):
    benchmark, items, rows = free
    # MathVista: the judge extracts, the kit compares; ours compares by its own rule
    table = [row | {"prediction": "It is long.\nSo.", "res": "7", "log": "x"} for row in rows]
    records = import_table(benchmark, items, write("q_MathVista_MINI_gpt.tsv", table, images=False))
    assert [record.answer for record in records] == ["7"] * 10
    assert [record.score for record in records] == [0.0] * 9 + [1.0]
    assert {(record.extractor, record.judged_by) for record in records} == {("vlmevalkit_judge", "rule")}
    # MathVerse and DynaMath: the judge's verdict
    for extracted, verdict in (("extract", "score"), ("extracted", "correct")):
        table = [row | {"prediction": "?", extracted: "six", verdict: row["index"] == 3} for row in rows]
        records = import_table(benchmark, items, write("q_gpt.tsv", table, images=False))
        assert [record.score for record in records] == [float(n == 3) for n in range(10)]
        assert {record.judged_by for record in records} == {"llm"}


def test_json_tables(choices, tmp_path):
    benchmark, items, rows = choices
    table = [row | {"prediction": None if n == 3 else "A", "hit": n == 0} for n, row in enumerate(rows)]
    (tmp_path / "q_MMStar.json").write_text(json.dumps(table), encoding="utf-8")
    records = import_table(benchmark, items, tmp_path / "q_MMStar.json")
    assert [record.score for record in records] == [1, 0, 0, 0] and records[3].raw == ""
    (tmp_path / "q_MMStar.json").write_text(json.dumps([table[0], table[0]]), encoding="utf-8")
    with pytest.raises(ValueError, match=r"row 2 \(index 0\): the index stands here twice"):
        import_table(benchmark, items, tmp_path / "q_MMStar.json")
    with pytest.raises(FileNotFoundError, match="There is no file .*none.json"):
        import_table(benchmark, items, tmp_path / "none.json")
    (tmp_path / "x.json").write_text(json.dumps([{"prediction": "A"}]), encoding="utf-8")
    with pytest.raises(ValueError, match="holds no rows, or rows without an 'index'"):
        import_table(benchmark, items, tmp_path / "x.json")


def test_predictions_of_other_data_are_refused(choices, write, tmp_path):
    benchmark, items, rows = choices
    table = [row | {"prediction": "A"} for row in rows]
    with pytest.raises(
        ValueError, match=r"row 1 \(index 0\): 'mmstar' has another question there, so .* another bench"
    ):
        import_table(benchmark, items, write("x.tsv", [row | {"question": "Else?"} for row in table], images=False))
    with pytest.raises(ValueError, match=r"row 1 \(index 0\): 'mmstar' has another gold answer there"):
        import_table(benchmark, items, write("x.tsv", [row | {"answer": "B"} for row in table], images=False))
    with pytest.raises(ValueError, match=r"row 5 \(index 9\): 'mmstar' has no such item"):
        import_table(benchmark, items, write("x.tsv", [*table, table[0] | {"index": 9}], images=False))
    with pytest.raises(
        ValueError, match="no prediction for 1 of the 4 items of 'mmstar', the first is '3'.* --partial"
    ):
        import_table(benchmark, items, write("x.tsv", table[:3], images=False))
    assert len(import_table(benchmark, items, write("x.tsv", table[:3], images=False), partial=True)) == 3
    with pytest.raises(ValueError, match="no 'prediction': give a table of VLMEvalKit's results"):
        import_table(benchmark, items, write("x.tsv", rows, images=False))
    with pytest.raises(ValueError, match=r"x\.xlsx' can't be read: .*PRED_FORMAT=tsv; .*cut cells at 32,767"):
        import_table(benchmark, items, write("x.xlsx", table, images=False))
    ours = [row | {"extractor": "tags", "status": "fine"} for row in table]
    with pytest.raises(ValueError, match="row 1 .*the status is 'fine', but it must be one of ok"):
        import_table(benchmark, items, write("x.tsv", ours, images=False))


def test_open_questions_of_mmmu_are_options_in_the_kit(write):
    benchmark = benchmarks.find("mmmu")
    row = {"index": 1, "question": "How many?", "A": "", "B": "", "answer": "4", "split": "validation"}
    items = benchmark.read(write("MMMU_DEV_VAL.tsv", [row]))
    made = row | {"A": "4", "B": "Other Answers", "answer": "A", "prediction": "4", "hit": 1}
    assert import_table(benchmark, items, write("q_result.tsv", [made], images=False))[0].score == 1


def test_a_circular_result_is_sent_back_to_its_predictions(write, encoded):
    benchmark = benchmarks.find("mmbench")
    rows = [
        {"index": roll * 1_000_000, "question": "Q", "A": "xy"[roll], "B": "yx"[roll], "answer": "AB"[roll]}
        for roll in range(2)
    ]
    items = benchmark.read(write("MMBench_DEV_EN.tsv", rows))
    table = [rows[0] | {"prediction": "A", "hit": 1, "g_index": 0}]
    with pytest.raises(ValueError, match="one row for all rotations of a question: import the table of predictions"):
        import_table(benchmark, items, write("q_result.tsv", table, images=False))
    both = [row | {"prediction": text} for row, text in zip(rows, "AA", strict=True)]
    records = import_table(benchmark, items, write("q.tsv", both, images=False))
    assert [metric.value for metric in benchmark.metrics(items, records)] == [0.0, 1.0]
