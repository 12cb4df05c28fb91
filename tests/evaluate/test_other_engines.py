# SPDX-License-Identifier: Apache-2.0
"""Servers, by a scripted and by a real one; vLLM, by a stand-in."""

import base64
import json
from io import BytesIO

import fake_vllm
import pytest
from fakes import Sums, options
from PIL import Image
from real_server import Server
from scripted_server import ScriptedServer, fault, reply, send
from text_model import save_text_model
from tiny_models import IDS, VISION_IDS

from open_r1_vision.evaluate.__main__ import main
from open_r1_vision.evaluate.records import read_records
from open_r1_vision.evaluate.runner import evaluate
from open_r1_vision.reasoners import ReasonerConfig, build_reasoner
from open_r1_vision.sampling.draws import seed_of

KEY = "sk-a-secret-that-nobody-sees"
LIMITS = {"request_seconds": 5, "batch_seconds": 20, "start_seconds": 2, "backoff_seconds": 0.01, "retries": 1}


def words(output, server, count=3, **settings):
    settings = {"benchmark": "starter_digits", "data": count, "model": "judge", "backend": "endpoint", **settings}
    limits = {**LIMITS, **settings.pop("limits", {})}
    settings |= {"base_url": server.url, "server": json.dumps(limits), "output": output}
    return ["run", *(str(word) for name, value in settings.items() for word in (f"--{name}", value))]


def samples(output):
    return read_records(output / "starter_digits" / "samples.jsonl")


def question(body):
    return body["messages"][-1]["content"][-1]["text"]


def counted(text, tokens, finish_reason="stop"):
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
    return send({"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": tokens}})


def test_a_server_is_asked_with_images_greedily(tmp_path, capsys):
    with ScriptedServer(lambda body, number: counted("<answer>3</answer>", 7)) as server:
        assert main(words(tmp_path, server, max_tokens=60)) == 0
    records = samples(tmp_path)
    assert {(record.raw, record.tokens, record.seed, record.status) for record in records} == {
        ("<answer>3</answer>", 7, None, "ok")
    }
    for body in server.requests:
        assert (body["model"], body["temperature"], body["max_tokens"]) == ("judge", 0, 60)
        system, user = body["messages"]
        assert system["role"] == "system" and isinstance(system["content"], str)
        picture, text = user["content"]
        assert text["type"] == "text" and text["text"].startswith(("What", "How"))
        data = base64.b64decode(picture["image_url"]["url"].removeprefix("data:image/png;base64,"))
        assert Image.open(BytesIO(data)).size == (112, 112)
    assert "21 tokens" in capsys.readouterr().out


def test_each_sample_has_a_seed_of_its_own(tmp_path):
    with ScriptedServer(lambda body, number: reply(f"<answer>{body['seed']}</answer>", "length")) as server:
        assert main(words(tmp_path, server, samples=2, temperature=0.7, top_p=0.9, seed=3, max_pixels=3136)) == 0
    for record in samples(tmp_path):
        assert record.seed == seed_of(3, record.index, record.sample) == int(record.answer)
        assert (record.status, record.tokens, record.score) == ("truncated", None, 0.0)
    assert {(body["temperature"], body["top_p"]) for body in server.requests} == {(0.7, 0.9)}
    image = server.requests[0]["messages"][-1]["content"][0]["image_url"]["url"].partition(",")[2]
    assert Image.open(BytesIO(base64.b64decode(image))).size == (56, 56)


def test_what_a_server_refuses_is_counted_and_asked_again(tmp_path, capsys):
    def script(body, number):
        return fault(400) if question(body) == lost[0] else counted("<answer>3</answer>", 7)

    with ScriptedServer(lambda body, number: counted("<answer>3</answer>", 7)) as server:
        main(words(tmp_path / "first", server))
        lost = [question(server.requests[1])]
        num_lost = sum(question(body) == lost[0] for body in server.requests)
        server.script = script
        assert main(words(tmp_path / "lossy", server)) == 1
        said = capsys.readouterr().out
        assert f"failed {num_lost}: no reply; wrong in every metric; the same command asks again" in said
        assert f"{num_lost} x refused: status 400: scripted 400" in said
        assert sum(record.status == "failed" for record in samples(tmp_path / "lossy")) == num_lost
        count = len(server.requests)
        lost.insert(0, "none")
        assert main(words(tmp_path / "lossy", server)) == 0
        assert len(server.requests) == count + num_lost
    paths = [tmp_path / name / "starter_digits" / "samples.jsonl" for name in ("lossy", "first")]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_server_that_goes_down_in_the_middle(tmp_path, capsys):
    down = {"outage_seconds": 0.5, "breaker_failures": 2}
    with ScriptedServer(lambda body, number: counted("<answer>3</answer>", 7)) as server:
        server.script = lambda body, number: fault(500) if number >= 4 else counted("<answer>3</answer>", 7)
        assert main(words(tmp_path, server, count=9, batch_size=2, limits=down)) == 2
        said = capsys.readouterr().err
        assert "error: The server stopped to answer (outage: " in said
        kept = len(samples(tmp_path))
        assert f"{kept} of 9 samples are kept: start it again and give the same command." in said
        assert 1 <= kept < 9 and {record.status for record in samples(tmp_path)} <= {"ok", "failed"}
        server.script = lambda body, number: counted("<answer>3</answer>", 7)
        assert main(words(tmp_path, server, count=9, batch_size=2, limits=down)) == 0
    assert [record.status for record in samples(tmp_path)] == ["ok"] * 9


def test_a_server_that_is_not_there_and_a_model_that_it_does_not_have(tmp_path, capsys):
    server = ScriptedServer(scripts_check=True, script=lambda body, number: fault(404))
    assert main(words(tmp_path, server, limits={"start_seconds": 0.5})) == 2
    assert "does not answer within start_seconds 0.5" in capsys.readouterr().err
    with server:
        assert main(words(tmp_path, server, model="other")) == 2
    assert "can't use the model 'other'" in capsys.readouterr().err


def test_the_key_is_in_no_file(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)

    def script(body, number):
        return counted(f"<answer>{KEY}</answer>", 7) if number else fault(400, {"X": "Y"})

    with ScriptedServer(script) as server:
        main(words(tmp_path, server, api_key_env="MY_KEY"))
        assert {headers["authorization"] for headers in server.headers} == {f"Bearer {KEY}"}
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes()
    assert KEY not in "".join(capfd.readouterr())
    assert "[key]" in (tmp_path / "starter_digits" / "samples.jsonl").read_text()


def test_a_real_server_replies_as_the_model_in_this_process(tmp_path):
    """`transformers serve`, with texts alone: it can't load a processor of images without torchvision."""
    server = Server(save_text_model(tmp_path / "served"), tmp_path)
    server.start()
    try:
        server.wait()
        asked = options(
            tmp_path, backend="endpoint", model=server.model, base_url=server.url, max_tokens=8, batch_size=2
        )
        summary = evaluate(asked, Sums(5), lambda text: None)
    finally:
        server.kill()
    # a random model never ends in 8 tokens
    assert summary.status == {"ok": 0, "truncated": 5, "failed": 0, "no_answer": 0}
    records = read_records(tmp_path / "out" / "sums" / "samples.jsonl")
    assert {record.tokens for record in records} <= {8, None}
    local = build_reasoner(ReasonerConfig(kind="local", model=server.model, max_tokens=8))
    chats = [[{"role": "user", "content": f"What is {k} + 1?"}] for k in range(5)]
    expected = [outcome.text for (outcome,) in local.submit(chats).result()]
    # servers strip what they send
    assert [one.raw.strip("\ufffd \n\t") for one in records] == [text.strip("\ufffd \n\t") for text in expected]


def test_a_server_without_its_client(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("open_r1_vision.sample.find_spec", lambda name: None)
    assert main(words(tmp_path, ScriptedServer())) == 2
    assert "needs the package openai: `pip install open_r1_vision[reasoners]`" in capsys.readouterr().err


@pytest.mark.parametrize("drawn", [{"temperature": 0.6, "samples": 2}, {"temperature": 0.0, "samples": 1}])
def test_vllm_is_asked_for_what_the_run_says(tmp_path, monkeypatch, tiny_model, drawn):
    engines = fake_vllm.install(monkeypatch)
    settings = {"max_tokens": 4, "max_pixels": 3136, "seed": 2, "vllm_max_model_length": 512, **drawn}
    pairs = [str(word) for name, value in settings.items() for word in (f"--{name}", value)]
    arguments = ["run", "--benchmark", "starter_digits", "--data", "3", "--model", tiny_model, "--backend", "vllm"]
    assert main([*arguments, *pairs, "--output", str(tmp_path)]) == 0
    (engine,) = engines
    assert (engine.kwargs["model"], engine.kwargs["max_model_len"]) == (tiny_model, 512)
    assert engine.kwargs["limit_mm_per_prompt"] == {"image": 1}
    assert engine.kwargs["mm_processor_kwargs"] == {"max_pixels": 3136}
    assert [request["prompt_token_ids"].count(IDS["<|image_pad|>"]) for request in engine.requests] == [1] * (
        3 * drawn["samples"]
    )
    assert {(one.temperature, one.max_tokens) for one in engine.params} == {(drawn["temperature"], 4)}
    assert engine.params[0].logit_bias == dict.fromkeys(VISION_IDS, -100.0)
    records = samples(tmp_path)
    seeds = [seed_of(2, record.index, record.sample) for record in records]
    assert [record.seed for record in records] == (seeds if drawn["temperature"] else [None] * 3)
    assert [record.status for record in records] == ["truncated" if seed % 2 else "ok" for seed in seeds]
    assert [record.tokens for record in records] == [4 if seed % 2 else 3 for seed in seeds]


def test_three_steps_keep_where_images_stand():
    from open_r1_vision.evaluate.backends.three_step import question_of

    image, (one, two) = {"type": "image", "image": None}, ({"type": "text", "text": text} for text in ("In ", " see"))
    system = {"role": "system", "content": "Be short."}
    assert question_of([system, {"role": "user", "content": [image, image, one, two]}]) == "In  see"
    assert question_of([{"role": "user", "content": [one, image, two]}]) == "In <image> see"
    # a marker in the text stands for no image
    plain = {"type": "text", "text": "What is <image>?"}
    assert question_of([{"role": "user", "content": [image, plain]}]) == "What is ?"
    assert question_of([{"role": "user", "content": "Which?"}]) == "Which?"


def test_bad_commands_end_in_one_line(tmp_path, capsys):
    base = ["run", "--model", "x", "--output", str(tmp_path / "out")]
    (tmp_path / "empty.tsv").write_text("")
    for arguments, message in (
        (["--benchmark", "mathvist"], "There is no benchmark 'mathvist', did you mean 'mathvista'?"),
        (["--benchmark", "mathvista"], "mathvista needs its data: give the file with --data"),
        (["--benchmark", "mathvista", "--data", "nothing.tsv"], "There is no file 'nothing.tsv'"),
        (["--benchmark", "mathvista", "--data", str(tmp_path / "empty.tsv")], "empty"),
        (["--benchmark", "starter_digits", "--data", "2"], "--model is 'x': there is no such folder, and no hub"),
        (["--benchmark", "starter_digits", "--samples", "2"], "at temperature 0 all samples of an item are the same"),
        (["--benchmark", "starter_digits", "--recipe", "none.yaml"], "none.yaml"),
    ):
        assert main([*base, *arguments]) == 2
        said = capsys.readouterr().err.splitlines()
        assert said[-1].startswith("error: ") and message in said[-1]


def test_the_list_has_every_benchmark(capsys):
    from open_r1_vision.evaluate.benchmarks import names

    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == names()
    assert all(len(line.split()) > 3 for line in lines if not line.startswith(" "))


def test_runs_go_out_and_come_back(tmp_path, capsys):
    arguments = ["run", "--benchmark", "starter_digits", "--data", "5", "--max_tokens", "60"]
    policy = "open_r1_vision.starter.model.policy"
    assert main([*arguments, "--model", policy, "--output", str(tmp_path / "run")]) == 0
    run = tmp_path / "run" / "starter_digits"
    assert main(["export", str(run), "--to", "vlmevalkit", "--output", str(tmp_path / "tables")]) == 0
    (table,) = (tmp_path / "tables").iterdir()
    assert table.name == "open_r1_vision.starter.model.policy_starter_digits.tsv"
    assert f"written {table}: 5 rows, 0 without answer" in capsys.readouterr().out
    back = ["import", str(table), "--from", "vlmevalkit", "--benchmark", "starter_digits", "--data", "5"]
    assert main([*back, "--model", "again", "--output", str(tmp_path / "back")]) == 0
    ours, theirs = samples(tmp_path / "run"), samples(tmp_path / "back")
    for name in ("index", "raw", "answer", "extractor", "gold", "score", "status"):
        assert [getattr(record, name) for record in theirs] == [getattr(record, name) for record in ours]
    settings = json.loads((tmp_path / "back" / "starter_digits" / "run.json").read_text())
    assert (settings["model"], settings["backend"], settings["num_items"]) == ("again", "imported from vlmevalkit", 5)
    summaries = [json.loads((tmp_path / name / "starter_digits/summary.json").read_text()) for name in ("run", "back")]
    assert summaries[0]["metrics"] == summaries[1]["metrics"]
    # of another benchmark, and into the folder of another run
    back[back.index("starter_digits")] = "starter_figures"
    assert main([*back, "--model", "again", "--output", str(tmp_path / "wrong")]) == 2
    assert "from another benchmark" in capsys.readouterr().err
    back[back.index("starter_figures")] = "starter_digits"
    assert main([*back, "--model", "again", "--output", str(tmp_path / "run")]) == 2
    assert "holds samples that were made with other settings: backend: " in capsys.readouterr().err
    assert main(["export", str(tmp_path), "--to", "vlmevalkit"]) == 2
    assert "is no folder of an evaluation" in capsys.readouterr().err
