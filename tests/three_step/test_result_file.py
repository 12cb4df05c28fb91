# SPDX-License-Identifier: Apache-2.0
"""Runs over a data set: what is written, what a later run goes on with, and what it refuses."""

import json

import pytest
from scripted_server import ScriptedServer, asked, fault, reply
from stubs import Model, ScriptedReasoner, row

from open_r1_vision.data.rows import rows_from_list
from open_r1_vision.reasoners import Failure
from open_r1_vision.three_step import ThreeStep, read_results
from open_r1_vision.three_step.results import Result, ResultFile

ROWS = [row(0, solution="4"), row(1, solution="5"), row(2, num_images=0, solution="4"), row(3, num_images=2)]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def run(path, rows=ROWS, model=None, reasoner=None, options=None, **settings):
    return ThreeStep(model or Model(), reasoner or ScriptedReasoner(), **(options or {})).run(rows, path, **settings)


def failing(word, failure=True):
    """A reasoner that fails where the word is read."""
    return ScriptedReasoner(lambda text: Failure("timeout", "late") if failure and word in text else r"\boxed{4}")


def test_a_run_writes_a_line_for_each_row_and_counts(tmp_path):
    path = tmp_path / "new" / "out.jsonl"
    summary = run(path, batch_size=3)
    assert [line["id"] for line in lines(path)] == ["row-0", "row-1", "row-2", "row-3"]
    assert [line["score"] for line in lines(path)] == [1, 0, 1, None]
    assert lines(path)[3]["num_images"] == 2 and lines(path)[2]["caption"] is None
    assert (summary.num_rows, summary.num_failed, summary.num_unanswered, summary.num_without_caption) == (4, 0, 0, 0)
    assert summary.accuracy.mean == 2 / 3 and summary.accuracy.count == 3
    assert str(summary).splitlines() == [
        "rows 4",
        f"accuracy {summary.accuracy} of 3 rows",
        "unanswered 0",
        "cut by max_tokens 0",
        "without caption 0",
        "failed 0",
    ]


def test_a_data_set_and_a_list_give_the_same(tmp_path):
    rows = [one for one in ROWS if "solution" in one]
    run(tmp_path / "list.jsonl", rows)
    run(tmp_path / "data_set.jsonl", rows_from_list(rows))
    assert lines(tmp_path / "list.jsonl") == lines(tmp_path / "data_set.jsonl")


def test_a_finished_run_is_not_done_again(tmp_path):
    path = tmp_path / "out.jsonl"
    first = run(path)
    before, model = path.read_bytes(), Model()
    reasoner = ScriptedReasoner()
    assert run(path, model=model, reasoner=reasoner) == first
    assert model.calls == [] and reasoner.chats == [] and path.read_bytes() == before


def test_a_longer_run_goes_on_and_a_shorter_one_drops_nothing(tmp_path):
    path = tmp_path / "out.jsonl"
    run(path, ROWS[:1])
    reasoner = ScriptedReasoner()
    assert run(path, reasoner=reasoner).num_rows == 4 and len(reasoner.chats) == 3
    assert run(path, ROWS[:2]).num_rows == 2 and len(lines(path)) == 4


@pytest.mark.parametrize("torn", [b'{"id": "row-1", "prob', b'{"id": "row-1"}', "{“".encode()[:-1]])
def test_a_torn_last_line_is_done_again(tmp_path, torn):
    whole, path = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    run(whole)
    run(path, ROWS[:1])
    with path.open("ab") as file:
        file.write(torn)
    run(path)
    assert path.read_bytes() == whole.read_bytes()


def test_failed_rows_are_tried_again_with_the_captions_they_have(tmp_path):
    path = tmp_path / "out.jsonl"
    summary = run(path, reasoner=failing("What is 1?"), batch_size=1)
    assert summary.num_failed == 1 and lines(path)[1]["failure"] == "timeout: late"
    assert "failed 1: start the same command again" in str(summary)
    model, reasoner = Model(), failing("What is 1?", failure=False)
    assert run(path, model=model, reasoner=reasoner).num_failed == 0
    assert model.calls == [] and len(reasoner.chats) == 1
    assert [(line["id"], line["failure"]) for line in lines(path)] == [(f"row-{index}", None) for index in range(4)]
    assert lines(path)[1]["caption"] == "caption: What is 1?"


def test_a_row_whose_image_was_mended_is_done_from_the_start(tmp_path):
    path, picture = tmp_path / "out.jsonl", tmp_path / "picture.png"
    picture.write_text("nothing")
    rows = [row(0), row(1) | {"images": [str(picture)]}]
    assert run(path, rows).num_failed == 1
    ROWS[0]["images"][0].save(picture)
    model = Model()
    assert run(path, rows, model).num_failed == 0 and len(model.calls) == 2


def test_of_several_lines_of_an_id_the_last_counts(tmp_path):
    file = ResultFile(tmp_path / "out.jsonl", {})
    file.begin()
    file.add([Result("b", "?", failure="timeout"), Result("a", "?", answer="1")])
    file.add([Result("b", "?", answer="2\u2028\ud800")])
    assert len(lines(file.path)) == 3
    file.finish(["a", "b"])
    file.close()
    assert [line["id"] for line in lines(file.path)] == ["a", "b"]
    assert read_results(file.path)["b"].answer == "2\u2028\ud800"


# ---- refused


def test_other_settings_are_refused_with_the_difference(tmp_path):
    path = tmp_path / "out.jsonl"
    run(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"caption_max_tokens: 4096 -> 5\. Set another output, or --overwrite"):
        run(path, options={"caption_max_tokens": 5})
    with pytest.raises(ValueError, match=r"reasoner\.temperature: 0\.0 -> 0\.5"):
        run(path, reasoner=ScriptedReasoner(temperature=0.5))
    with pytest.raises(ValueError, match=r"rows: None -> 'elsewhere'"):
        run(path, source="elsewhere")
    assert path.read_bytes() == before
    run(path, ROWS[:1], options={"caption_max_tokens": 5}, overwrite=True)
    assert len(lines(path)) == 1


def test_an_edited_prompt_is_another_setting(tmp_path):
    path, prompt = tmp_path / "out.jsonl", tmp_path / "prompt.txt"
    prompt.write_text("Look: {problem}")
    run(path, options={"answer_prompt": str(prompt)})
    prompt.write_text("Look well: {problem}")
    with pytest.raises(ValueError, match=r"'Look: {problem}' -> 'Look well: {problem}'"):
        run(path, options={"answer_prompt": str(prompt)})


def test_the_address_of_a_server_may_change(tmp_path):
    path = tmp_path / "out.jsonl"
    run(path, reasoner=ScriptedReasoner(kind="endpoint", base_url="http://127.0.0.1:1/v1"))
    run(path, reasoner=ScriptedReasoner(kind="endpoint", base_url="http://127.0.0.1:2/v1"))


def test_nothing_is_overwritten_before_all_is_loaded(tmp_path):
    path = tmp_path / "out.jsonl"
    run(path)
    before = path.read_bytes()
    pipeline = ThreeStep(str(tmp_path / "no_model"), ScriptedReasoner())
    with pytest.raises(ValueError, match="no_model"):
        pipeline.run(ROWS, path, overwrite=True)
    assert path.read_bytes() == before


def test_other_rows_under_the_same_ids_are_refused(tmp_path):
    path = tmp_path / "out.jsonl"
    run(path)
    with pytest.raises(ValueError, match="other problems under the same ids, such as row-1"):
        run(path, [ROWS[0], row(1, "Another?")])


def test_files_that_are_no_results_are_refused(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text("my notes\n")
    with pytest.raises(ValueError, match="what it was made with is not known"):
        run(path)
    assert path.read_text() == "my notes\n"
    with pytest.raises(ValueError, match=r"Line 1 of .* is no result"):
        read_results(path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(0), row(0)], "1 ids are there more than once, such as row-0"),
        ([row(0, "<image> and <image>?")], "holds 2 <image> markers"),
        ([row(0, problem_type="guess", solution="1")], "'guess' is not known"),
        ([], "holds no rows"),
    ],
)
def test_rows_that_cant_be_asked_are_refused_before_anything_is_written(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "out.jsonl", rows)
    assert list(tmp_path.iterdir()) == []


def test_two_runs_at_once_are_refused(tmp_path):
    path = tmp_path / "out.jsonl"
    file = ResultFile(path, {})
    with pytest.raises(ValueError, match="Another process is writing"):
        run(path)
    file.close()
    run(path)


# ---- another reasoner on the same captions


def test_another_reasoner_reads_the_captions_of_an_earlier_run(tmp_path):
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    reasoner, other = ScriptedReasoner(), ScriptedReasoner(lambda text: r"\boxed{5}", model="other")
    run(first, reasoner=reasoner)
    summary = ThreeStep(None, other).run(ROWS, second, captions=first)
    assert other.chats == reasoner.chats and summary.accuracy.mean == 1 / 3
    assert [line["caption"] for line in lines(second)] == [line["caption"] for line in lines(first)]
    # an earlier response may be left out
    third = ScriptedReasoner()
    ThreeStep(None, third, tentative=False).run(ROWS, tmp_path / "third.jsonl", captions=first)
    assert "tentative" not in third.chats[0][1]["content"]


def test_a_row_whose_image_was_broken_stays_a_failure_for_another_reasoner(tmp_path):
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    picture = tmp_path / "picture.png"
    picture.write_text("nothing")
    rows = [row(0), row(1) | {"images": [str(picture)]}]
    run(first, rows)
    summary = ThreeStep(None, ScriptedReasoner(model="other")).run(rows, second, captions=first)
    assert (summary.num_rows, summary.num_failed) == (2, 1)
    assert "image unreadable" in lines(second)[1]["failure"]


def test_a_file_of_captions_has_to_fit(tmp_path):
    first, plain = tmp_path / "first.jsonl", tmp_path / "plain.jsonl"
    run(first, ROWS[:2])
    run(plain, options={"tentative": False})
    with pytest.raises(ValueError, match="has no captions of 1 of the rows, such as row-3"):
        run(tmp_path / "out.jsonl", captions=first)
    with pytest.raises(ValueError, match="without tentative responses"):
        run(tmp_path / "out.jsonl", captions=plain)
    with pytest.raises(ValueError, match="are one file"):
        run(plain, captions=plain)
    with pytest.raises(ValueError, match="can't be read"):
        run(tmp_path / "out.jsonl", captions=tmp_path / "nothing.jsonl")


# ---- a server works beside the model


def test_a_server_answers_while_the_next_captions_are_written(tmp_path):
    order = []

    class Noting(Model):
        def __call__(self, chats, max_new_tokens):
            order.append("model")
            return super().__call__(chats, max_new_tokens)

    class Slow(ScriptedReasoner):
        def submit(self, chats, **others):
            order.append("submit")
            return super().submit(chats, **others)

        def _outcomes(self, text, read):
            order.append("reply")
            return super()._outcomes(text, read)

    rows = ROWS[:2]
    one_step = {"tentative": False}
    server = Slow(deferred=True, kind="endpoint", base_url="http://127.0.0.1:1/v1")
    run(tmp_path / "server.jsonl", rows, Noting(), server, one_step, batch_size=1)
    assert order == ["model", "submit", "model", "submit", "reply", "reply"]
    order.clear()
    run(tmp_path / "local.jsonl", rows, Noting(), Slow(deferred=True), one_step, batch_size=1)
    assert order == ["model", "submit", "reply", "model", "submit", "reply"]


def test_a_run_with_a_real_server_that_comes_back(tmp_path):
    path = tmp_path / "out.jsonl"
    broken = []

    def script(body, number):
        return fault(500) if broken and "What is 1?" in asked(body) else reply(r"\boxed{4}")

    with ScriptedServer(script) as server:
        settings = {"kind": "endpoint", "model": "judge", "base_url": server.url, "retries": 0}
        broken.append(True)
        assert ThreeStep(Model(), settings).run(ROWS, path, batch_size=2).num_failed == 1
        broken.clear()
        model = Model()
        assert ThreeStep(model, settings).run(ROWS, path, batch_size=2).num_failed == 0
    assert model.calls == [] and [line["answer"] for line in lines(path)] == ["4"] * 4
