# SPDX-License-Identifier: Apache-2.0
"""Runs: what is counted, what a later start goes on with, what is refused; counts worked out by hand."""

import csv
import json
import subprocess
import sys
from dataclasses import replace

import pytest
from fakes import Backend, Sums, options, run, samples_file
from PIL import Image

from open_r1_vision.evaluate.items import Record
from open_r1_vision.evaluate.records import RunFolder, read_records, read_run


def statuses(folder):
    return [(record.index, record.sample, record.status) for record in read_records(samples_file(folder))]


def test_every_way_in_which_a_sample_may_end_is_counted_apart(tmp_path, capsys):
    script = {
        "1": "<answer>7</answer>",
        # right, but the limit cut what came after it
        "2": {"completion": "<answer>3</answer> and so", "num_tokens": 60, "finish_reason": "length"},
        "3": {"completion": None, "failure": "server_error: status 500"},
        "4": {"completion": "I don't know.", "num_tokens": None},
    }
    summary = run(tmp_path, Backend(script), Sums(6, broken=5), batch_size=4)
    by_index = {record.index: record for record in read_records(samples_file(tmp_path))}
    assert [by_index[str(k)].status for k in range(6)] == ["ok", "ok", "truncated", "failed", "no_answer", "failed"]
    assert [by_index[str(k)].score for k in range(6)] == [1, 0, 0, 0, 0, 0]
    assert [by_index[str(k)].answer for k in range(6)] == ["1", "7", "3", None, None, None]
    assert [by_index[str(k)].judged_by for k in range(6)] == ["rule", "rule", "rule", "none", "rule", "none"]
    assert summary.status == {"ok": 2, "truncated": 1, "failed": 2, "no_answer": 1}
    assert summary.judged_by == {"rule": 4, "llm": 0, "none": 2}
    assert summary.metrics[0].value == pytest.approx(1 / 6)
    # 10 + 10 + 60; of the item without answer the number is not known, and two were never generated
    assert (summary.tokens, summary.num_counted) == (80, 3)
    assert summary.failures == {"server_error: status 500": 1, "unreadable: bytes 0 to 9 are no image": 1}
    assert summary.num_unfinished == 2
    text = str(summary)
    assert "sums_accuracy   16.7 %  [  0.0, 100.0]  n 6" in text
    assert "ok 2 of 6 samples" in text and "truncated 1: the limit of tokens cut them; wrong" in text
    assert "judged by rule 66.7 %, none 33.3 %" in text
    assert "80 tokens in the 3 samples whose number is known" in text


def test_the_summary_files_say_the_same(tmp_path):
    summary = run(tmp_path, Backend({"0": "<answer>9</answer>", "1": "no"}), Sums(4))
    folder = tmp_path / "out" / "sums"
    values = json.loads((folder / "summary.json").read_text())
    assert values["metrics"] == [{"name": "sums_accuracy", "value": 0.5, "low": 0.0, "high": 1.0, "n": 4}]
    assert values["status"] == {"ok": 3, "truncated": 0, "failed": 0, "no_answer": 1}
    assert values["judged_by_share"] == {"rule": 1.0, "llm": 0.0, "none": 0.0}
    assert (values["tokens"], values["num_items"], values["judge"]) == (40, 4, None)
    assert values["seconds"] == summary.seconds
    with (folder / "summary.csv").open() as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert (rows["sums_accuracy"]["value"], rows["sums_accuracy"]["n"]) == ("0.5", "4")
    assert rows["status_no_answer"]["value"] == "1" and rows["status_ok"]["value"] == "3"
    assert rows["judged_by_rule"]["value"] == "1.0" and rows["tokens"]["value"] == "40"


def test_a_record_has_its_keys_in_the_order_of_the_contract(tmp_path):
    run(tmp_path, benchmark=Sums(1), prompt_style="method")
    (line,) = map(json.loads, samples_file(tmp_path).read_text().splitlines())
    assert list(line) == [
        *("dataset", "index", "sample", "prompt_sha", "prompt_style", "raw", "answer", "extractor", "gold"),
        *("score", "judged_by", "status", "tokens", "seed", "cluster"),
    ]
    sha = line.pop("prompt_sha")
    assert len(sha) == 64
    assert line == {
        "dataset": "sums",
        "index": "0",
        "sample": 0,
        "prompt_style": "method",
        "raw": "<answer>1</answer>",
        "answer": "1",
        "extractor": "tags",
        "gold": "1",
        "score": 1.0,
        "judged_by": "rule",
        "status": "ok",
        "tokens": 10,
        "seed": None,
        "cluster": None,
    }
    elsewhere = {"output": str(tmp_path / "asked"), "prompt_style": "method", "system_prompt": "r1"}
    run(tmp_path, benchmark=Sums(1), **elsewhere)
    (other,) = read_records(tmp_path / "asked" / "sums" / "samples.jsonl")
    assert other.prompt_sha != sha


def test_items_without_gold_are_answered_and_not_scored(tmp_path):
    summary = run(tmp_path, Backend({"1": "no"}), Sums(3, gold=False))
    records = read_records(samples_file(tmp_path))
    assert {(record.score, record.judged_by, record.gold) for record in records} == {(None, "none", None)}
    assert summary.metrics == () and "no metric: the items have no gold answers" in str(summary)
    assert summary.num_unfinished == 0


def test_a_run_that_is_stopped_goes_on_where_it_was(tmp_path):
    script = {str(k): [f"<answer>{k + s}</answer>" for s in range(2)] for k in range(7)}
    settings = {"samples": 2, "temperature": 1.0, "batch_size": 2}
    whole = tmp_path / "whole"
    whole.mkdir()
    run(whole, Backend(script, samples=2), Sums(7), **settings)
    stopped = Backend({**script, "4": KeyboardInterrupt()}, samples=2)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, stopped, Sums(7), **settings)
    assert stopped.closed == 1
    assert len(statuses(tmp_path)) == 8
    assert not (tmp_path / "out" / "sums" / "summary.json").exists()
    # what a kill leaves: one of the samples of item 3 is torn
    path = samples_file(tmp_path)
    path.write_bytes(path.read_bytes()[:-30])
    said, later = [], Backend(script, samples=2)
    summary = run(tmp_path, later, Sums(7), said, **settings)
    assert said == ["samples.jsonl: dropped a torn last line; that sample is drawn again."]
    assert later.calls == [["2", "3"], ["4", "5"], ["6"]]
    assert path.read_bytes() == samples_file(whole).read_bytes()
    assert summary.metrics[0].value == 0.5 and summary.status["ok"] == 14
    # finished: nothing is loaded
    again = Backend(script, samples=2)
    assert run(tmp_path, again, Sums(7), **settings).metrics == summary.metrics
    assert again.calls == [] and not hasattr(again, "most_images")


def test_failed_samples_are_asked_for_again_and_stand_once(tmp_path):
    lost = {"completion": None, "failure": "timeout: no answer within 5 s"}
    assert run(tmp_path, Backend({"1": lost, "2": lost}), Sums(4), batch_size=1).num_unfinished == 2
    assert statuses(tmp_path) == [("0", 0, "ok"), ("1", 0, "failed"), ("2", 0, "failed"), ("3", 0, "ok")]
    later = Backend({"2": lost})
    summary = run(tmp_path, later, Sums(4), batch_size=1)
    assert later.calls == [["1"], ["2"]]
    assert statuses(tmp_path) == [("0", 0, "ok"), ("1", 0, "ok"), ("2", 0, "failed"), ("3", 0, "ok")]
    assert summary.failures == {"timeout: no answer within 5 s": 1}


@pytest.mark.parametrize("when", ["refuses", "refuses_later"])
def test_an_item_that_the_backend_refuses_does_not_end_the_run(tmp_path, when):
    backend = Backend({str(k): [f"<answer>{k + 1}</answer>"] * 2 for k in range(6)}, samples=2)
    setattr(backend, when, ("2", "5"))
    summary = run(tmp_path, backend, Sums(6), samples=2, temperature=1.0, batch_size=5)
    # the batch, its halves, and so on; then the last batch, of one
    assert backend.calls == [list("01234"), list("01"), list("234"), ["2"], ["3", "4"], ["5"]]
    assert [status for index, _, status in statuses(tmp_path) if index in "25"] == ["failed"] * 4
    assert summary.status == {"ok": 8, "truncated": 0, "failed": 4, "no_answer": 0}
    assert summary.failures == {"refused: the prompt (length 9000) is longer than 8192": 4}
    # what was refused is asked again, in the same batches
    assert run(tmp_path, Backend(samples=2), Sums(6), samples=2, temperature=1.0, batch_size=5).status["ok"] == 12


def test_an_image_that_is_too_narrow_for_processors_is_a_failed_sample(tmp_path):
    benchmark = Sums(3)
    benchmark.items[1] = replace(benchmark.items[1], images=(Image.new("RGB", (300, 1)),))
    benchmark.items[2] = replace(benchmark.items[2], images=(Image.new("RGB", (200, 1)),))
    backend = Backend()
    summary = run(tmp_path, backend, benchmark)
    assert backend.calls == [["0", "2"]]
    assert statuses(tmp_path) == [("0", 0, "ok"), ("1", 0, "failed"), ("2", 0, "ok")]
    reason = "unreadable: image too narrow, number 1 of 1: the sides of 300 x 1 differ over 200 times"
    assert summary.failures == {reason: 1}


def test_a_server_that_is_down_ends_the_run_and_keeps_what_there_is(tmp_path):
    down = {"completion": None, "failure": "outage: http://x/v1 has not answered for too long"}
    with pytest.raises(ValueError, match=r"The server stopped to answer .* 3 of 4 samples are kept: start it again"):
        run(tmp_path, Backend({"2": down}), Sums(4), batch_size=2)
    assert statuses(tmp_path) == [("0", 0, "ok"), ("1", 0, "ok"), ("3", 0, "ok")]
    assert run(tmp_path, Backend(), Sums(4), batch_size=2).status["ok"] == 4


def test_other_settings_are_refused_with_what_differs(tmp_path):
    run(tmp_path)
    before = samples_file(tmp_path).read_bytes()
    with pytest.raises(ValueError, match=r"other settings: max_tokens: 2048 -> 60; num_items: 6 -> 4. Go back to"):
        run(tmp_path, max_tokens=60, limit=4)
    with pytest.raises(ValueError, match=r"temperature: 0.0 -> 0.5"):
        run(tmp_path, temperature=0.5)
    # of a greedy run neither matters
    assert run(tmp_path, seed=3, batch_size=1).status["ok"] == 6
    assert samples_file(tmp_path).read_bytes() == before
    assert run(tmp_path, max_tokens=60, overwrite=True).status["ok"] == 6
    assert read_run(tmp_path / "out" / "sums")["max_tokens"] == 60


def test_other_weights_behind_the_same_name_are_refused(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    run(tmp_path)
    (tmp_path / "model" / "config.json").write_text('{"hidden_size": 1}')
    with pytest.raises(ValueError, match=r"other settings: weights: "):
        run(tmp_path)


def test_other_data_are_refused_and_data_elsewhere_are_not(tmp_path):
    for name, text in (("a.tsv", "1"), ("b.tsv", "1"), ("c.tsv", "2")):
        (tmp_path / name).write_text(text)
    run(tmp_path, data=str(tmp_path / "a.tsv"))
    # the md5 of "1"
    assert read_run(tmp_path / "out" / "sums")["data_md5"] == "c4ca4238a0b923820dcc509a6f75849b"
    assert run(tmp_path, data=str(tmp_path / "b.tsv")).status["ok"] == 6
    with pytest.raises(ValueError, match="data_md5: 'c4ca4238a0b923820dcc509a6f75849b' -> 'c81e728d9d4c2f636f067f89"):
        run(tmp_path, data=str(tmp_path / "c.tsv"))
    # a hub id has no md5: the name has to stand for the data
    hub = tmp_path / "hub"
    hub.mkdir()
    run(hub, data="someone/data")
    with pytest.raises(ValueError, match="data: 'someone/data' -> 'other/data'"):
        run(hub, data="other/data")


def test_other_versions_are_said(tmp_path, monkeypatch):
    monkeypatch.setattr("open_r1_vision.evaluate.runner.list_versions", lambda: {"torch": "2.13.0"})
    run(tmp_path)
    monkeypatch.setattr("open_r1_vision.evaluate.runner.list_versions", lambda: {"torch": "2.14.0"})
    said = []
    run(tmp_path, said=said)
    assert said == ["Other versions than at the last start: torch: 2.13.0 -> 2.14.0."]


def test_a_run_that_never_began_binds_nobody(tmp_path):
    with pytest.raises(OSError):
        run(tmp_path, Backend({"0": OSError("no weights")}))
    assert run(tmp_path, max_tokens=60).status["ok"] == 6


def test_folders_of_others_are_left_alone(tmp_path):
    (tmp_path / "out" / "sums").mkdir(parents=True)
    thesis = tmp_path / "out" / "sums" / "thesis.tex"
    thesis.write_text("precious")
    with pytest.raises(ValueError, match="holds no evaluation, but thesis.tex: give another --output"):
        run(tmp_path, overwrite=True)
    assert [path.name for path in thesis.parent.iterdir()] == ["thesis.tex"]


def test_a_folder_belongs_to_one_process(tmp_path):
    run(tmp_path)
    code = "import sys; from pathlib import Path; from open_r1_vision.runs import take_run; "
    code += "take_run(Path(sys.argv[1])); print('taken', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(tmp_path / "out" / "sums")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "taken\n"
        with pytest.raises(ValueError, match="is being written by another run"):
            run(tmp_path)
        other.stdin.close()
    assert run(tmp_path).status["ok"] == 6


def test_samples_of_items_that_are_not_there(tmp_path):
    run(tmp_path)
    path = samples_file(tmp_path)
    path.write_text(path.read_text().replace('"index": "3"', '"index": "33"'))
    with pytest.raises(ValueError, match="holds samples of 1 items that this run does not have, such as '33'"):
        run(tmp_path)


def test_lines_that_are_no_records(tmp_path):
    run(tmp_path)
    path = samples_file(tmp_path)
    whole = path.read_text()
    first, *others = whole.splitlines(keepends=True)
    for text, message in (
        (whole + first, "Line 7 of .* is a second line of item '0', sample 0: delete one of them"),
        ("{}\n" + whole, "Line 1 of .* is no record of a sample .*it has , but a record has dataset, index"),
        (whole.replace('"status": "ok"', '"status": "fine"', 1), "Line 1 .*status is 'fine', which is none of ok, tr"),
        (whole.replace('"sample": 0', '"sample": "0"', 1), "Line 1 .*sample '0', which are a text and a number"),
        ("".join(others) + "[]\n", "Line 6 .*it has list"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            run(tmp_path)


def test_an_index_that_stands_for_two_items(tmp_path):
    benchmark = Sums(3)
    benchmark.items[2] = benchmark.items[0]
    with pytest.raises(ValueError, match="1 indexes of 'x.tsv' stand for several items, such as 0"):
        run(tmp_path, benchmark=benchmark, data="x.tsv")
    with pytest.raises(ValueError, match="'x.tsv' holds no items of sums"):
        run(tmp_path, benchmark=Sums(0), data="x.tsv")
    assert not (tmp_path / "out").exists()


def test_options_that_can_not_work(tmp_path):
    for settings, message in (
        ({"samples": 2}, "at temperature 0 all samples of an item are the same"),
        ({"temperature": -1}, "--temperature is -1 and --top_p 1"),
        ({"max_tokens": 0}, "--max_tokens is 0: give at least 1"),
        ({"backend": "tpu"}, "--backend is 'tpu': give one of transformers, vllm, endpoint, three_step"),
        ({"prompt_style": "mine"}, "--prompt_style is 'mine': give one of benchmark, method"),
        ({"backend": "endpoint"}, "needs the server's address: give --base_url"),
        ({"backend": "three_step"}, "needs a text model that answers from the captions"),
        ({"backend": "vllm", "calibration": 0.8}, "--calibration has no effect with --backend vllm: leave it out"),
        ({"base_url": "http://x/v1"}, "--base_url has no effect with --backend transformers"),
        (
            {"backend": "three_step", "reasoner": "{}", "temperature": 0.6},
            "--temperature has no effect with --backend three_step: leave it out, or set it in the block of --reas",
        ),
        ({"system_prompt": "r1"}, "--prompt_style benchmark asks as the benchmark's authors do"),
        ({"model": ""}, "There is no model to evaluate: give --model"),
    ):
        with pytest.raises(ValueError, match=message):
            options(tmp_path, **settings)


def test_a_score_is_never_given_to_what_did_not_end_well():
    """The record's own rule, whatever a benchmark scores."""
    from open_r1_vision.evaluate.runner import record_of
    from open_r1_vision.sampling.draws import Draw

    benchmark = Sums(1)
    cut = record_of(benchmark, benchmark.items[0], Draw("0", 3, "<answer>1</answer>", 9, "length"), "sha", "method", 5)
    assert cut == Record(
        "sums", "0", 3, "sha", "method", "<answer>1</answer>", "1", "tags", "1", 0.0, "rule", "truncated", 9, 5, None
    )


def test_a_kill_while_seconds_are_written(tmp_path, monkeypatch):
    """They are there whole, or as they were: an empty file would end every later start."""
    folder = RunFolder(tmp_path)
    folder.add_seconds(1.25)

    def killed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        folder.add_seconds(2.0)
    monkeypatch.undo()
    assert folder.seconds() == 1.25
    folder.add_seconds(2.0)
    assert folder.seconds() == 3.25
