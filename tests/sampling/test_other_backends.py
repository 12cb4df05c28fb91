# SPDX-License-Identifier: Apache-2.0
"""vLLM, by a stand-in, and servers, by a scripted one."""

import base64
import json
import sys
from io import BytesIO
from pathlib import Path

import fake_vllm
import pytest
from PIL import Image
from tiny_models import IDS, VISION_IDS, image

sys.path.insert(0, str(Path(__file__).parents[1] / "reasoners"))
from scripted_server import ScriptedServer, fault, reply  # noqa: E402

from open_r1_vision.sample import main  # noqa: E402
from open_r1_vision.sampling.draws import seed_of  # noqa: E402
from open_r1_vision.sampling.endpoint import fit_pixels  # noqa: E402
from open_r1_vision.vllm_support import installation  # noqa: E402

ROWS = {"dataset": "processes.rows", "dataset_options": {"count": 3, "texts": [1]}, "system_prompt": None}


@pytest.fixture
def sample(tmp_path):
    """`sample(**settings)` runs the command on three rows, the second without image; gives exit code and lines."""

    def run(**settings):
        recipe = tmp_path / "recipe.yaml"
        settings = {**ROWS, "num_generations": 2, "output_dir": str(tmp_path / "samples"), **settings}
        recipe.write_text(json.dumps(settings))
        code = main(["--config", str(recipe)])
        file = tmp_path / "samples" / "samples.jsonl"
        return code, [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else None

    return run


@pytest.fixture
def engines(monkeypatch):
    return fake_vllm.install(monkeypatch)


def test_vllm_is_asked_as_training_would(sample, engines, tiny_model):
    settings = {"temperature": 1.1, "max_completion_length": 4, "max_pixels": 3136, "stop_token": "<|endoftext|>"}
    code, lines = sample(backend="vllm", model_name_or_path=tiny_model, seed=3, **settings)
    assert code == 0
    (engine,) = engines
    assert engine.kwargs["limit_mm_per_prompt"] == {"image": 1}
    assert engine.kwargs["mm_processor_kwargs"] == {"max_pixels": 3136}
    assert "distributed_executor_backend" not in engine.kwargs
    # each placeholder once, as vLLM expands it itself; the images beside
    assert [request["prompt_token_ids"].count(IDS["<|image_pad|>"]) for request in engine.requests] == [
        1,
        1,
        0,
        0,
        1,
        1,
    ]
    sizes = [[one.size for one in request.get("multi_modal_data", {}).get("image", [])] for request in engine.requests]
    assert sizes == [[(56, 56)]] * 2 + [[]] * 2 + [[(56, 56)]] * 2
    keys = [(f"train-{index}", number) for index in range(3) for number in range(2)]
    assert [param.seed for param in engine.params] == [seed_of(3, *key) for key in keys]
    assert {(param.temperature, param.top_p, param.max_tokens) for param in engine.params} == {(1.1, 0.99, 4)}
    assert engine.params[0].logit_bias == dict.fromkeys(VISION_IDS, -100.0)
    assert engine.params[0].stop_token_ids == [IDS["<|endoftext|>"]]
    assert [(line["id"], line["sample"]) for line in lines] == keys
    cut = {True: ("ABCD", 4, "length"), False: ("AB", 3, "stop")}
    told = [(line["completion"], line["num_tokens"], line["finish_reason"]) for line in lines]
    assert told == [cut[bool(seed_of(3, *key) % 2)] for key in keys]
    # nothing is missing: no engine is started
    assert sample(backend="vllm", model_name_or_path=tiny_model, seed=3, **settings) == (0, lines)
    assert len(engines) == 1


def test_vllm_that_is_not_installed(sample, tiny_model, monkeypatch, capsys):
    monkeypatch.setattr(installation, "DISTRIBUTIONS", ())
    assert sample(backend="vllm", model_name_or_path=tiny_model)[0] == 2
    said = capsys.readouterr().out
    assert "backend is vllm, but vLLM is not installed." in said
    assert "or set backend to transformers." in said


def content(body):
    return body["messages"][-1]["content"]


def question(body):
    parts = content(body)
    return parts if isinstance(parts, str) else parts[-1]["text"]


def block(server, **settings):
    limits = {"request_seconds": 5, "batch_seconds": 20, "start_seconds": 2, "backoff_seconds": 0.01, "retries": 1}
    return {"base_url": server.url, "model": "judge", **limits, **settings}


def test_a_server_gets_images_and_seeds(sample, tiny_model):
    with ScriptedServer(lambda body, number: reply(f"{question(body)} {body['seed']}", "length")) as server:
        code, lines = sample(
            backend="endpoint",
            endpoint=block(server, extra_body={"top_k": 0}),
            model_name_or_path=tiny_model,
            max_prompt_tokens=2000,
            max_pixels=1600,
            system_prompt="r1",
            max_completion_length=9,
        )
    assert code == 0
    bodies = {(question(body), body["seed"]): body for body in server.requests}
    assert len(bodies) == len(server.requests) == 6
    for line in lines:
        index = int(line["id"].split("-")[1])
        asked = f"How many of {index}?" + " please" * (index % 3)
        seed = seed_of(42, line["id"], line["sample"])
        assert line["completion"] == f"{asked} {seed}"
        assert (line["num_tokens"], line["finish_reason"]) == (None, "length")
        body = bodies[asked, seed]
        assert (body["temperature"], body["top_p"], body["max_tokens"], body["top_k"]) == (1.2, 0.99, 9, 0)
        assert body["logit_bias"] == {str(token): -100 for token in sorted(VISION_IDS)}
        assert isinstance(body["messages"][0]["content"], str)
        assert body["messages"][0]["role"] == "system"
        if index == 1:
            assert content(body) == asked
            continue
        (picture, text) = content(body)
        assert text == {"type": "text", "text": asked}
        data = base64.b64decode(picture["image_url"]["url"].removeprefix("data:image/png;base64,"))
        sent = Image.open(BytesIO(data))
        assert sent.size == (40, 40)
        assert sent.getpixel((20, 20)) == image(index).getpixel((20, 20))


def test_samples_that_a_server_did_not_give_are_asked_for_again(sample, capsys, tmp_path):
    broken = {"train-1", "train-2"}

    def script(body, number):
        lost = any(f"of {row_id[-1]}?" in question(body) for row_id in broken)
        return fault(400) if lost and body["seed"] % 2 else reply("fine")

    with ScriptedServer(script) as server:
        code, lines = sample(backend="endpoint", endpoint=block(server))
        assert (code, lines) == (1, None)
        # the two samples of a row have consecutive seeds
        assert "missing  2 samples: give the same command again" in capsys.readouterr().out
        assert len(server.requests) == 6
        broken.clear()
        code, lines = sample(backend="endpoint", endpoint=block(server))
        assert code == 0
        assert len(server.requests) == 8
    assert [(line["id"], line["sample"]) for line in lines] == [(f"train-{i}", s) for i in range(3) for s in range(2)]


def test_a_server_that_is_not_there(sample, capsys):
    server = ScriptedServer()
    assert sample(backend="endpoint", endpoint=block(server, start_seconds=0.5)) == (2, None)
    assert "does not answer within start_seconds" in capsys.readouterr().out


def test_settings_of_a_server_that_can_not_work(sample, capsys):
    for settings, message in [
        ({}, "set `endpoint` to a block such as"),
        ({"endpoint": {"base_url": "http://x/v1", "model": "m", "temperature": 1}}, "`endpoint` has temperature: set"),
        ({"endpoint": {"base_url": "http://x/v1", "model": "m"}, "max_prompt_tokens": 9}, "prompts can't be counted"),
        ({"endpoint": {"base_url": "http://x/v1"}}, "model is missing"),
        ({"endpoint": "{"}, "which is not JSON"),
    ]:
        assert sample(backend="endpoint", **settings)[0] == 2
        assert message in capsys.readouterr().out


def test_images_within_limits_of_pixels():
    assert fit_pixels(200, 100, None, 5000) == (100, 50)
    assert fit_pixels(10, 5, 200, 5000) == (20, 10)
    assert fit_pixels(40, 40, 200, 5000) == (40, 40)
    assert fit_pixels(1000, 1, None, 10) == (100, 1)
