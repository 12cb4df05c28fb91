# SPDX-License-Identifier: Apache-2.0
"""A real OpenAI-compatible server on loopback, started as a user does, with a tiny model: the plumbing, no wisdom.

`transformers serve`, or `vllm serve` where the vllm extra is installed.
"""

import time

import pytest
from real_server import Server
from text_model import save_text_model

from open_r1_vision.reasoners import Failure, ReasonerConfig, Reply, TextReader, build_reasoner


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    server = Server(save_text_model(folder / "model"), folder)
    server.start()
    try:
        server.wait()
        yield server
    finally:
        server.kill()


@pytest.fixture
def endpoint(server):
    made = []

    def make(**settings):
        defaults = {"kind": "endpoint", "model": server.model, "base_url": server.url, "max_tokens": 8}
        made.append(build_reasoner(ReasonerConfig(**{**defaults, "request_seconds": 60, **settings})))
        return made[-1]

    yield make
    for reasoner in made:
        reasoner.close()


def questions(*texts):
    return [[{"role": "user", "content": text}] for text in texts]


def test_a_server_replies_as_the_same_model_in_this_process(server, endpoint):
    chats = questions("a", "how many?", "a much longer question than the others", "b")
    local = build_reasoner(ReasonerConfig(kind="local", model=server.model, max_tokens=8))
    ours = [outcome.text for (outcome,) in local.submit(chats).result()]
    theirs = [outcome for (outcome,) in endpoint().submit(chats).result()]
    assert all(isinstance(outcome, Reply) for outcome in theirs), theirs
    # servers strip what they send, of spaces or of half a character at the end
    assert [outcome.text.strip("\ufffd \n\t") for outcome in theirs] == [text.strip("\ufffd \n\t") for text in ours]
    assert {outcome.finish_reason for outcome in theirs} == {"length"}


def test_captions_are_read_through_a_server(endpoint, tmp_path):
    log = tmp_path / "log.jsonl"
    reader = TextReader(endpoint(log=str(log), cache=str(tmp_path / "cache")), "Answer.")
    first = reader.read(["two cats", None, "a dog"], ["how many?"] * 3)
    assert [reading.failure for reading in first] == [None] * 3
    assert [bool(reading.reply) for reading in first] == [True, False, True]
    assert reader.read(["two cats", None, "a dog"], ["how many?"] * 3) == first
    assert reader.reasoner.pop_stats()["cached"] == 2
    assert len(log.read_text().splitlines()) == 4


def test_sampling_and_a_schema_reach_the_server(endpoint):
    sampled = endpoint(temperature=1.0, n=3, seed=1)
    ((one, two, three),) = sampled.submit(questions("a")).result()
    assert all(isinstance(outcome, Reply) for outcome in (one, two, three))
    held = endpoint(response_schema={"type": "object"}).submit(questions("a")).result()
    # transformers serve ignores the schema, vLLM keeps to it for 8 tokens: no verdict either way
    ((outcome,),) = held
    assert isinstance(outcome, Failure) and outcome.reason == "unreadable"


def test_a_wrong_model_is_found_at_the_start(endpoint, tmp_path):
    with pytest.raises(ValueError, match="can't use the model .*nowhere"):
        endpoint(model=str(tmp_path / "nowhere"), request_seconds=20)


@pytest.mark.slow
def test_a_server_that_is_killed_and_started_again_costs_no_verdict(server, endpoint):
    reasoner = endpoint(backoff_seconds=0.2)
    server.kill()
    pending = reasoner.submit(questions("a", "b", "c"))
    time.sleep(1)
    server.start()
    server.wait()
    assert all(isinstance(outcome, Reply) for (outcome,) in pending.result())
    assert reasoner.pop_stats()["failed"] == 0
