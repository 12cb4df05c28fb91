# SPDX-License-Identifier: Apache-2.0
"""A key is sent to its server and is found nowhere else."""

import dataclasses
import json
import logging
import pickle

import pytest
from scripted_server import ScriptedServer, drop, fault, half, reply, send, send_text

from open_r1_vision.reasoners import ReasonerConfig, build_reasoner
from open_r1_vision.reasoners.keys import NO_KEY, Redactor, read_key

KEY = "sk-sentinel-0123456789abcdef"


@pytest.fixture
def reasoner_for(monkeypatch, tmp_path):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    made = []

    def make(server, **settings):
        config = ReasonerConfig(
            kind="endpoint",
            model="judge",
            base_url=server.url,
            api_key_env="JUDGE_KEY",
            cache=str(tmp_path / "cache"),
            log=str(tmp_path / "log"),
            **{"request_seconds": 0.3, "retries": 1, "backoff_seconds": 0.01, "start_seconds": 1, **settings},
        )
        made.append(build_reasoner(config, check=False))
        return made[-1]

    yield make
    for reasoner in made:
        reasoner.close()


def told(text):
    return send({"error": {"message": f"Incorrect API key provided: {text}"}}, 401)


#: What servers do that know the key and tell it.
ECHOES = {
    "ok": lambda: reply(f"the key is {KEY}"),
    "401": lambda: told(KEY),
    "500": lambda: send({"error": {"message": KEY}}, 500),
    "500 text": lambda: send_text(KEY, 500, kind="text/plain"),
    "429": lambda: send({"error": KEY}, 429),
    "422": lambda: send({"detail": f"seed {KEY}"}, 422),
    "no chat completion": lambda: send({"key": KEY}),
    "cut": lambda: send({"padding": "x" * 260, "key": KEY}),
    "no JSON": lambda: send_text(f'{{"{KEY}'),
    "html": lambda: send_text(KEY, kind="text/html"),
    "filter": lambda: send({"choices": [{"message": {"refusal": KEY}}]}),
    "slow": lambda: reply(KEY, seconds=1),
    "drop": drop,
    "half": half,
    "404": lambda: fault(404),
}


@pytest.mark.parametrize("name", ECHOES)
def test_the_key_is_nowhere(name, reasoner_for, tmp_path, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    act = ECHOES[name]
    with ScriptedServer(lambda body, number: act(), scripts_check=True) as server:
        reasoner = reasoner_for(server, seed=3)
        seen = [repr(reasoner), repr(reasoner.config), repr(pickle.dumps(reasoner))]
        seen += [json.dumps(dataclasses.asdict(reasoner.config)), str(vars(reasoner))]
        try:
            reasoner.check()
        except ValueError as error:
            seen += [str(error), repr(error.__cause__), repr(error.__context__)]

        def read(text):
            raise ValueError(f"no verdict in {text}")

        for reader in (None, read):
            outcomes = reasoner.submit([[{"role": "user", "content": "hello"}]], read=reader).result()
            seen.append(repr(outcomes))
        assert all(headers["authorization"] == f"Bearer {KEY}" for headers in server.headers)
        assert server.headers
    reasoner.close()
    seen += [path.read_bytes().decode(errors="replace") for path in tmp_path.iterdir()]
    seen += [caplog.text, *capfd.readouterr()]
    assert not [text for text in seen if KEY[:16] in text]  # not even a part of it


def test_a_dead_server_does_not_make_it_known_either(reasoner_for, caplog):
    caplog.set_level(logging.DEBUG)
    reasoner = reasoner_for(ScriptedServer(), outage_seconds=0.1)
    with pytest.raises(ValueError, match="does not answer") as error:
        reasoner.check()
    ((failure,),) = reasoner.submit([[{"role": "user", "content": "hello"}]]).result()
    assert KEY not in str(error.value) + str(failure) + caplog.text


def test_a_defect_does_not_make_it_known_either(reasoner_for):
    def read(text):
        raise KeyError(KEY)

    with ScriptedServer() as server:
        pending = reasoner_for(server).submit([[{"role": "user", "content": "hello"}]], read=read)
        with pytest.raises(RuntimeError, match=r"KeyError .*\[key\]") as error:
            pending.result()
    assert KEY not in str(error.value)
    assert error.value.__cause__ is None


def test_without_a_key_nobody_elses_is_sent_and_nothing_about_the_machine(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with ScriptedServer() as server:
        config = ReasonerConfig(kind="endpoint", model="judge", base_url=server.url)
        reasoner = build_reasoner(config)
        reasoner.submit([[{"role": "user", "content": "hello"}]]).result()
        reasoner.close()
    assert server.headers[0]["authorization"] == f"Bearer {NO_KEY}"
    machine = {"x-stainless-os", "x-stainless-arch", "x-stainless-runtime-version"}
    assert not machine & server.headers[0].keys()


def test_the_key_is_read_from_its_variable(monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", f" {KEY}\n")
    assert read_key("JUDGE_KEY") == KEY
    assert read_key(None) == NO_KEY
    monkeypatch.setenv("JUDGE_KEY", "")
    with pytest.raises(ValueError, match="JUDGE_KEY, but this environment variable is empty or not set"):
        read_key("JUDGE_KEY")


def test_words_that_are_no_secrets_stay():
    assert Redactor(NO_KEY)("an EMPTY set") == "an EMPTY set"
    assert Redactor(KEY)(f"<{KEY}>") == "<[key]>"
