# SPDX-License-Identifier: Apache-2.0
"""From VLMEvalKit's table to metrics and to a comparison of two runs, through the commands; a server answers."""

import json

import pytest
from scripted_server import ScriptedServer, reply

from open_r1_vision.compare.__main__ import main as compare
from open_r1_vision.evaluate.__main__ import main
from open_r1_vision.evaluate.tsv import read_table

TURN = 1_000_000
#: Two questions, each asked again with its options turned.
ROWS = [
    {"index": 0, "question": "Which animal?", "A": "cat", "B": "dog", "answer": "A"},
    {"index": 1, "question": "Which colour?", "A": "red", "B": "blue", "answer": "A"},
    {"index": TURN, "image": "0", "question": "Which animal?", "A": "dog", "B": "cat", "answer": "B"},
    {"index": 1 + TURN, "image": "1", "question": "Which colour?", "A": "blue", "B": "red", "answer": "B"},
]


def run(server, table, output, *others):
    words = ["run", "--benchmark", "mmbench", "--data", str(table), "--backend", "endpoint", "--model", "judge"]
    limits = json.dumps({"start_seconds": 2, "request_seconds": 5, "batch_seconds": 20, "backoff_seconds": 0.01})
    return main([*words, "--base_url", server.url, "--server", limits, "--output", str(output), *others])


def test_a_table_becomes_metrics_and_a_comparison(tmp_path, write, capsys):
    table = write("MMBench_DEV_EN.tsv", ROWS)
    # the first knows the animal, and takes the first option for the colour; the second always takes the first option
    knowing = ScriptedServer(lambda body, number: reply("cat" if "animal" in str(body["messages"]) else "A"))
    first = ScriptedServer(lambda body, number: reply("<think>hm</think> \\boxed{A}"))
    with knowing, first:
        assert run(knowing, table, tmp_path / "knowing") == 0
        assert run(first, table, tmp_path / "first") == 0
        # turned options and a back-reference to the image; the layout of the benchmark
        body = next(
            body for body in knowing.requests if "A. dog\nB. cat" in body["messages"][-1]["content"][-1]["text"]
        )
        assert body["messages"][-1]["content"][0]["type"] == "image_url"
    said = capsys.readouterr().out
    values = {}
    for name in ("knowing", "first"):
        summary = json.loads((tmp_path / name / "mmbench" / "summary.json").read_text())
        values[name] = {metric["name"]: metric["value"] for metric in summary["metrics"]}
    # right in both turns: one question of two, then none; right in the first turn: both
    assert values["knowing"] == {"mmbench_circular": 0.5, "mmbench_vanilla": 1.0}
    assert values["first"] == {"mmbench_circular": 0.0, "mmbench_vanilla": 1.0}
    assert "mmbench_circular   50.0 %" in said and "tokens not known" in said
    # 3 of 4 rows against 2 of 4, in clusters of two
    assert compare([str(tmp_path / "first"), str(tmp_path / "knowing")]) == 0
    assert "75.0" in capsys.readouterr().out


def test_predictions_of_another_benchmark_are_refused(tmp_path, write, capsys):
    table = write("MMBench_DEV_EN.tsv", ROWS)
    other = [{**row, "question": f"And {row['question']}"} for row in ROWS]
    predictions = write("model_Other.tsv", [{**row, "prediction": "A"} for row in other], images=False)
    assert main(import_words(table, predictions, tmp_path / "out")) == 2
    assert "has another question there, so these predictions are from another benchmark" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def import_words(table, predictions, output, *others):
    words = ["import", str(predictions), "--from", "vlmevalkit", "--benchmark", "mmbench", "--model", "m"]
    return [*words, "--data", str(table), "--output", str(output), *others]


@pytest.mark.parametrize(
    ("data", "table"), [("MMBench_DEV_CN", "m_MMBench_DEV_CN.tsv"), ("mine", "m_MMBench_DEV_EN.tsv")]
)
def test_a_table_is_named_after_the_data_of_the_run(tmp_path, write, capsys, data, table):
    path = write(f"{data}.tsv", ROWS)
    rows = [{**row, "image": "", "prediction": "A"} for row in ROWS]
    predictions = write("predictions.tsv", rows, images=False)
    assert main(import_words(path, predictions, tmp_path / "out")) == 0
    assert main(["export", str(tmp_path / "out" / "mmbench"), "--to", "vlmevalkit"]) == 0
    assert f"written {tmp_path / 'out' / 'mmbench' / table}: 4 rows" in capsys.readouterr().out


def test_a_part_of_the_predictions_can_be_exported(tmp_path, write, capsys):
    table = write("MMBench_DEV_EN.tsv", ROWS)
    rows = [{**row, "image": "", "prediction": row["answer"]} for row in ROWS[1:3]]
    predictions = write("model_MMBench_DEV_EN.tsv", rows, images=False)
    assert main(import_words(table, predictions, tmp_path / "out", "--partial")) == 0
    target = tmp_path / "again.tsv"
    assert main(["export", str(tmp_path / "out" / "mmbench"), "--to", "vlmevalkit", "--output", str(target)]) == 0
    assert [row["index"] for row in read_table(target).rows] == ["1", str(TURN)]
    assert "2 rows, 0 without answer" in capsys.readouterr().out


@pytest.mark.parametrize("partial", [True, False])
def test_a_part_of_the_predictions(tmp_path, write, capsys, partial):
    table = write("MMBench_DEV_EN.tsv", ROWS)
    rows = [{**row, "image": "", "prediction": row["answer"]} for row in ROWS if int(row["index"]) % TURN == 0]
    predictions = write("model_MMBench_DEV_EN.tsv", rows, images=False)
    words = import_words(table, predictions, tmp_path / "out", *(["--partial"] if partial else []))
    assert main(words) == (0 if partial else 2)
    if partial:
        assert "m on mmbench: 2 items, prompts not known" in capsys.readouterr().out
        summary = json.loads((tmp_path / "out" / "mmbench" / "summary.json").read_text())
        assert (summary["num_items"], summary["metrics"][0]["value"]) == (2, 1.0)
    else:
        assert "has no prediction for 2 of the 4 items of 'mmbench'" in capsys.readouterr().err
