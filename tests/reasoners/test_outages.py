# SPDX-License-Identifier: Apache-2.0
"""A server that is late, dead, killed, back or somebody else; and what becomes of threads and processes."""

import asyncio
import gc
import os
import pickle
import signal
import socket
import threading
import time

import pytest
from scripted_server import Act, ScriptedServer, asked, echo, fault, questions, reply, send, texts, wait_until

from open_r1_vision.reasoners import Failure, ReasonerConfig, Reply, build_reasoner

# ---- time


def test_a_batch_ends_in_time_whatever_the_server_does(connect):
    def script(body, number):
        return reply(asked(body), seconds=30 if asked(body) in ("q 1", "q 3") else 0)

    with ScriptedServer(script) as server:
        reasoner = connect(server, request_seconds=0.7, batch_seconds=0.7, concurrency=4)
        start = time.monotonic()
        outcomes = reasoner.submit(questions(5)).result()
        assert time.monotonic() - start < 3
    assert [outcome.text if isinstance(outcome, Reply) else outcome.reason for (outcome,) in outcomes] == [
        "q 0",
        "deadline",
        "q 2",
        "deadline",
        "q 4",
    ]


def test_requests_that_never_got_their_turn_are_failures_too(connect):
    with ScriptedServer(lambda body, number: reply("x", seconds=30)) as server:
        reasoner = connect(server, request_seconds=0.5, batch_seconds=0.5, concurrency=2)
        outcomes = reasoner.submit(questions(6)).result()
        assert [outcome.reason for (outcome,) in outcomes] == ["deadline"] * 6
        stats = reasoner.pop_stats()
        assert (stats["asked"], stats["failed"]) == (6, 6)
        assert len(server.requests) == 2


def test_a_batch_ends_even_if_its_requests_do_not(connect, monkeypatch):
    async def hang(*args):
        await asyncio.sleep(60)

    monkeypatch.setattr("open_r1_vision.reasoners.client.Client.ask", hang)
    with ScriptedServer() as server:
        reasoner = connect(server, request_seconds=0.2, batch_seconds=0.2)
        outcomes = reasoner.submit(questions(3)).result()
    assert [outcome.reason for (outcome,) in outcomes] == ["deadline"] * 3
    assert reasoner.pop_stats()["failed/deadline"] == 3


# ---- the start


def test_a_dead_server_is_found_in_seconds(connect):
    server = ScriptedServer()  # not started
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"does not answer within start_seconds 1 .*Start the server before the run"):
        connect(server, check=True)
    assert time.monotonic() - start < 4


def test_a_server_that_accepts_and_is_silent_counts_as_dead(connect):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        server = ScriptedServer()
        server.url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        with pytest.raises(ValueError, match="does not answer within start_seconds"):
            connect(server, check=True)


def test_something_else_at_the_address_is_told_from_a_server(connect):
    with ScriptedServer() as server:
        server.models_act = Act(b"SSH-2.0-OpenSSH\r\n\r\n", close=True)
        with pytest.raises(ValueError, match="does not (answer|speak the OpenAI protocol)"):
            connect(server, check=True)


def test_a_server_that_is_still_starting_is_waited_for(connect):
    server = ScriptedServer()
    threading.Timer(0.7, server.start).start()
    connect(server, check=True, start_seconds=10)
    server.stop()


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (
            lambda: fault(404),
            r"can't use the model 'judge': refused.*It has the models: a, b.*Correct `model` or `base_url`",
        ),
        (lambda: fault(401), "Set api_key_env to the name of the environment variable"),
        (lambda: send({"error": "hello"}), "malformed"),
    ],
)
def test_a_wrong_model_or_key_is_named_at_the_start(connect, act, message):
    with (
        ScriptedServer(lambda body, number: act(), models=("a", "b"), scripts_check=True) as server,
        pytest.raises(ValueError, match=message),
    ):
        connect(server, check=True)


# ---- outages


def test_a_server_that_is_killed_and_comes_back_costs_no_verdict(connect, caplog):
    with ScriptedServer(lambda body, number: reply(f"echo: {asked(body)}", seconds=0.02)) as server:
        reasoner = connect(server, check=True, concurrency=8, retries=1)
        pending = reasoner.submit(questions(60))
        wait_until(lambda: len(server.requests) >= 16)
        server.stop()
        wait_until(lambda: "times in a row" in caplog.text)
        time.sleep(0.3)
        before = len(server.requests)
        server.start()
        assert texts(pending.result()) == [[f"echo: q {index}"] for index in range(60)]
        assert reasoner.pop_stats()["failed"] == 0
    assert len(server.requests) - before <= 60
    assert "answers again" in caplog.text


def test_a_single_question_waits_for_its_server_too(connect):
    with ScriptedServer() as server:
        reasoner = connect(server, check=True, retries=1, breaker_failures=2)
        server.stop()
        pending = reasoner.submit(questions(1))
        time.sleep(1)
        server.start()
        ((outcome,),) = pending.result()
    assert outcome.text == "echo: q 0"
    assert outcome.attempts > 2


def test_a_server_that_stays_away_is_waited_for_once(connect):
    server = ScriptedServer()
    with server:
        reasoner = connect(server, check=True, outage_seconds=0.5, retries=1)
    start = time.monotonic()
    outcomes = reasoner.submit(questions(40)).result()
    assert 0.5 <= time.monotonic() - start < 5
    assert {outcome.reason for (outcome,) in outcomes} <= {"outage", "connection"}
    start = time.monotonic()
    outcomes = reasoner.submit(questions(200, "r")).result()
    assert time.monotonic() - start < 2  # fails at once
    assert all(isinstance(outcome, Failure) for (outcome,) in outcomes)
    with server:

        def answers():
            return isinstance(reasoner.submit(questions(1)).result()[0][0], Reply)

        wait_until(answers, 20)
        assert all(isinstance(outcome, Reply) for (outcome,) in reasoner.submit(questions(50, "s")).result())


# ---- the end, and processes


def test_closing_gives_up_what_is_under_way(connect):
    with ScriptedServer(lambda body, number: reply("x", seconds=30)) as server:
        reasoner = connect(server, request_seconds=20)
        pending = reasoner.submit(questions(3))
        wait_until(lambda: len(server.requests) == 3)
        reasoner.close()
        with pytest.raises(RuntimeError, match="was still being asked when its reasoner was closed"):
            pending.result()
        server.script = echo
        assert texts(reasoner.submit(questions(1)).result()) == [["echo: q 0"]]  # opens anew


def test_a_reasoner_that_is_dropped_ends_its_thread():
    with ScriptedServer() as server:
        reasoner = build_reasoner(ReasonerConfig(kind="endpoint", model="judge", base_url=server.url))
        thread = reasoner._connection.thread._thread
        assert thread.is_alive()
        del reasoner
        gc.collect()
        assert not thread.is_alive()


def test_it_survives_a_fork_and_a_pickle(connect):
    with ScriptedServer() as server:
        reasoner = connect(server, check=True)  # its thread runs before the fork
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(20)  # rather than wait forever
            os.write(write_end, reasoner.submit(questions(1)).result()[0][0].text.encode())
            os._exit(0)
        os.waitpid(child, 0)
        assert os.read(read_end, 100) == b"echo: q 0"
        copy = pickle.loads(pickle.dumps(reasoner))
        assert texts(copy.submit(questions(1)).result()) == [["echo: q 0"]]
        copy.close()
        assert texts(reasoner.submit(questions(1)).result()) == [["echo: q 0"]]
        os.close(read_end), os.close(write_end)
