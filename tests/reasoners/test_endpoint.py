# SPDX-License-Identifier: Apache-2.0
"""What a server is asked, and each fault that its answer may have: none is mistaken for a reply."""

import asyncio
import random

import pytest
from scripted_server import (
    Act,
    ScriptedServer,
    asked,
    drop,
    echo,
    fault,
    half,
    questions,
    reply,
    send,
    send_text,
    texts,
    wait_until,
)

from open_r1_vision.reasoners import Failure, Reply
from open_r1_vision.reasoners.client import read_answer

# ---- what is asked, and when


def test_replies_come_in_the_order_of_the_chats(connect):
    def script(body, number):
        return reply(f"echo: {asked(body)}", seconds=random.Random(number).random() / 20)

    with ScriptedServer(script) as server:
        outcomes = connect(server, check=True).submit(questions(50)).result()
    assert texts(outcomes) == [[f"echo: q {index}"] for index in range(50)]
    assert all(outcome.attempts == 1 and not outcome.cached for (outcome,) in outcomes)


def test_the_request_says_what_the_config_says(connect):
    settings = {"temperature": 0.6, "top_p": 0.95, "max_tokens": 7, "seed": 5, "n": 2}
    schema = {"type": "object"}
    chat = [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]
    with ScriptedServer(lambda body, number: reply("{}")) as server:
        reasoner = connect(
            server,
            response_schema=schema,
            chat_template_kwargs={"enable_thinking": False},
            extra_body={"top_k": 20},
            **settings,
        )
        ((first, second),) = reasoner.submit([chat]).result()
    assert (first.verdict, second.verdict) == ({}, {})
    one, two = sorted(server.requests, key=lambda body: body["seed"])
    assert one == {
        "model": "judge",
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 7,
        "temperature": 0.6,
        "top_p": 0.95,
        "seed": 5,
        "response_format": {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema, "strict": True}},
        "chat_template_kwargs": {"enable_thinking": False},
        "top_k": 20,
    }
    assert two == {**one, "seed": 6}


def test_requests_start_when_they_are_submitted(connect):
    with ScriptedServer() as server:
        pending = connect(server).submit(questions(3))
        wait_until(lambda: len(server.requests) == 3)  # nobody waits for the result yet
        assert len(pending.result()) == 3


def test_a_result_can_be_awaited_in_another_loop(connect):
    async def reward(pending):
        return await pending

    with ScriptedServer() as server:
        assert texts(asyncio.run(reward(connect(server).submit(questions(1))))) == [["echo: q 0"]]


def test_no_more_requests_at_once_than_allowed(connect):
    with ScriptedServer(lambda body, number: reply("x", seconds=0.02)) as server:
        reasoner = connect(server, concurrency=3)
        first, second = reasoner.submit(questions(10)), reasoner.submit(questions(10, "r"))
        first.result(), second.result()
        assert server.most_at_once == 3


def test_equal_questions_are_asked_once_where_replies_are_equal(connect):
    with ScriptedServer(lambda body, number: reply(str(number))) as server:
        outcomes = connect(server).submit(questions(1) * 4).result()
        assert texts(outcomes) == [["0"]] * 4
        assert [outcome.cached for (outcome,) in outcomes] == [False, True, True, True]
        server.script = lambda body, number: fault(404) if asked(body) == "lost 0" else reply(str(number))
        sampled = connect(server, temperature=1).submit(questions(1) * 3).result()
        assert sorted(texts(sampled)) == [["1"], ["2"], ["3"]]
        lost = [outcome for (outcome,) in connect(server).submit(questions(1, "lost") * 3).result()]
        assert [(outcome.reason, outcome.attempts) for outcome in lost] == [
            ("refused", 1),
            ("refused", 0),
            ("refused", 0),
        ]


def test_images_are_refused_before_anything_is_asked(connect):
    chat = [{"role": "user", "content": [{"type": "image"}]}]
    with ScriptedServer() as server:
        with pytest.raises(ValueError, match="reads text only"):
            connect(server).submit([chat])
        with pytest.raises(ValueError, match="1 tags for 2 chats"):
            connect(server).submit(questions(2), tags=[{}])
    assert not server.requests


# ---- one fault


def after_one(act):
    """A script that does this at first, and is well afterwards."""
    return lambda body, number: act() if number == 0 else echo(body, number)


@pytest.mark.parametrize(
    "act",
    [
        lambda: fault(429, {"Retry-After": "0"}),
        lambda: fault(500),
        lambda: fault(503, {"Retry-After": "Fri, 31 Dec 2027 23:59:59 GMT"}),
        drop,
        half,
        lambda: send_text('{"choices": [{"mess'),
        lambda: reply("x", seconds=3),
        lambda: reply("x" * 200, drip=True),
    ],
    ids=["429", "500", "503", "dropped", "half", "half a JSON", "slow", "drip"],
)
def test_a_fault_that_passes_costs_an_attempt(connect, act):
    with ScriptedServer(after_one(act)) as server:
        reasoner = connect(server, request_seconds=0.3)
        ((outcome,),) = reasoner.submit(questions(1)).result()
    assert (outcome.text, outcome.attempts) == ("echo: q 0", 2)
    assert reasoner.pop_stats()["retries"] == 1


@pytest.mark.parametrize(
    ("act", "reason", "num_requests"),
    [
        (lambda: fault(429), "rate_limit", 3),
        (lambda: fault(500), "server_error", 3),
        (drop, "connection", 3),
        (half, "connection", 3),
        (lambda: reply("x", seconds=3), "timeout", 3),
        (lambda: fault(404), "refused", 1),
        (lambda: fault(401), "refused", 1),
        (lambda: reply("x", "content_filter"), "refused", 1),
        (lambda: send_text("<html>Welcome to nginx</html>", kind="text/html"), "malformed", 1),
        (lambda: send({}), "malformed", 1),
        (lambda: send([]), "malformed", 1),
        (lambda: send({"choices": []}), "malformed", 1),
        (lambda: send({"choices": "yes"}), "malformed", 1),
        (lambda: send({"choices": [{"message": "yes"}]}), "malformed", 1),
        (lambda: send({"choices": [{"message": {"content": 7}}]}), "malformed", 1),
        (lambda: send({"choices": [{"message": {"content": None}}]}), "malformed", 1),
        (lambda: send({"choices": [{"message": {"content": [{"type": "text"}]}}]}), "malformed", 1),
        (lambda: send({"choices": [{"message": {"content": "x"}, "finish_reason": [1]}]}), "malformed", 1),
        (lambda: send_text("[" * 100_000), "malformed", 3),
        (lambda: send_text("no JSON"), "malformed", 3),
        (lambda: send_text("x", headers={"Content-Encoding": "gzip"}), "malformed", 3),
    ],
)
def test_a_fault_that_stays_is_a_failure(connect, act, reason, num_requests):
    with ScriptedServer(lambda body, number: act()) as server:
        reasoner = connect(server, retries=2, request_seconds=0.2, breaker_failures=100)
        ((failure,),) = reasoner.submit(questions(1)).result()
    assert isinstance(failure, Failure)
    assert (failure.reason, failure.attempts) == (reason, num_requests)
    assert len(server.requests) == num_requests
    assert reasoner.pop_stats() | {"seconds": 0} == {
        "asked": 1,
        "cached": 0,
        "failed": 1,
        f"failed/{reason}": 1,
        "retries": num_requests - 1,
        "seconds": 0,
    }


def test_garbage_instead_of_http_is_a_failure(connect):
    with ScriptedServer(lambda body, number: Act(b"SSH-2.0-OpenSSH\r\n\r\n", close=True)) as server:
        ((failure,),) = connect(server, retries=0).submit(questions(1)).result()
    assert failure.reason in ("connection", "malformed")


def test_a_server_that_asks_for_patience_gets_it(connect):
    with ScriptedServer(after_one(lambda: fault(429, {"Retry-After": "0.5"}))) as server:
        ((outcome,),) = connect(server).submit(questions(1)).result()
    assert outcome.seconds >= 0.5


def test_thinking_that_takes_the_whole_limit_is_an_empty_reply(connect):
    with ScriptedServer(lambda body, number: reply(None, "length")) as server:
        ((outcome,),) = connect(server).submit(questions(1)).result()
    assert (outcome.text, outcome.finish_reason) == ("", "length")


@pytest.mark.parametrize("text", ["", "\x00", "\ud800", "x" * 1_000_000, "</s><|im_end|>", '{"a": NaN}'])
def test_odd_texts_are_texts(connect, tmp_path, text):
    with ScriptedServer(lambda body, number: reply(text)) as server:
        reasoner = connect(server, cache=str(tmp_path / "cache"), log=str(tmp_path / "log"))
        first, second = (reasoner.submit(questions(1)).result() for _ in range(2))
    expected = text.replace("\ud800", "?")
    assert texts(first) == texts(second) == [[expected]]
    assert len(server.requests) == 1


# ---- verdicts


def test_a_reply_without_verdict_is_a_failure_and_never_cached(connect, tmp_path):
    schema = {"type": "object", "required": ["verdict"]}
    good = '```json\n{"verdict": 1}\n```'
    with ScriptedServer(lambda body, number: reply("I think yes" if number == 0 else good)) as server:
        reasoner = connect(server, response_schema=schema, cache=str(tmp_path / "cache"))
        ((failure,),) = reasoner.submit(questions(1)).result()
        assert (failure.reason, failure.reply, failure.attempts) == ("unreadable", "I think yes", 1)
        ((outcome,),) = reasoner.submit(questions(1)).result()
        assert outcome.verdict == {"verdict": 1}
        ((outcome,),) = reasoner.submit(questions(1)).result()
        assert outcome.verdict == {"verdict": 1}
        assert outcome.cached


def test_a_cached_reply_that_another_reader_cannot_read_is_asked_for_anew(connect, tmp_path):
    with ScriptedServer(lambda body, number: reply("seven" if number == 0 else "7")) as server:
        reasoner = connect(server, cache=str(tmp_path / "cache"))
        assert texts(reasoner.submit(questions(1)).result()) == [["seven"]]
        ((outcome,),) = reasoner.submit(questions(1), read=int).result()
        assert (outcome.verdict, outcome.cached) == (7, False)
        ((outcome,),) = reasoner.submit(questions(1), read=int).result()
    assert (outcome.verdict, outcome.cached) == (7, True)


def test_an_unreadable_draw_is_drawn_again(connect):
    with ScriptedServer(lambda body, number: reply("x" if number == 0 else "7")) as server:
        ((outcome,),) = connect(server, temperature=1).submit(questions(1), read=int).result()
    assert (outcome.verdict, outcome.attempts) == (7, 2)


def test_a_reader_with_a_defect_stops_the_run_and_says_where(connect):
    def defective_reader(text):
        return {}[text]

    with ScriptedServer() as server:
        pending = connect(server).submit(questions(2), read=defective_reader)
        with pytest.raises(RuntimeError, match=r"KeyError in defective_reader \(.*must raise ValueError"):
            pending.result()


def test_a_field_that_the_server_lacks_is_left_out(connect, caplog):
    def script(body, number):
        if "response_format" in body:
            # as FastAPI words it, with the request repeated
            wrong = {"loc": ["body", "response_format"], "msg": "Extra inputs are not permitted", "input": body}
            return send({"detail": [wrong]}, 422)
        if "seed" in body:
            return send({"detail": "Unexpected fields in the request: {'seed'}"}, 422)
        if "max_tokens" in body:
            return send({"error": {"message": "Unsupported: 'max_tokens'. Use 'max_completion_tokens' instead."}}, 400)
        return reply('{"a": 1}')

    with ScriptedServer(script) as server:
        reasoner = connect(server, seed=1, response_schema={"type": "object"}, concurrency=1)
        outcomes = [outcome for (outcome,) in reasoner.submit(questions(3)).result()]
    assert [outcome.verdict for outcome in outcomes] == [{"a": 1}] * 3
    assert [outcome.attempts for outcome in outcomes] == [1, 1, 1]  # a misunderstanding is no fault
    assert len(server.requests) == 6
    assert server.requests[-1].keys() == {"model", "messages", "max_completion_tokens", "temperature", "top_p"}
    assert caplog.text.count("and is asked without it from now on") == 3


@pytest.mark.parametrize(
    "complaint",
    [
        "'max_tokens' or 'max_completion_tokens' is too large: 512. The maximum context length is 256 tokens.",
        "'temperature' does not support 0.0 with this model.",
        [{"loc": ["body", "messages"], "msg": "Field required", "input": {"seed": 1, "response_format": {}}}],
    ],
)
def test_other_complaints_change_nothing_and_are_passed_on(connect, complaint):
    body = {"error": {"message": complaint}} if isinstance(complaint, str) else {"detail": complaint}
    with ScriptedServer(lambda request, number: send(body, 400)) as server:
        reasoner = connect(server, seed=1, response_schema={"type": "object"})
        ((failure,),) = reasoner.submit(questions(1)).result()
    assert failure.reason == "refused"
    assert (complaint if isinstance(complaint, str) else "Field required") in failure.message
    assert len(server.requests) == 1


# ---- all faults at once


def slow():
    return reply("too late", seconds=2)


@pytest.mark.parametrize("transport", ["aiohttp", "httpx"])
def test_all_faults_at_once_and_no_reply_is_wrong(connect, monkeypatch, transport):
    if transport == "httpx":
        monkeypatch.setattr("open_r1_vision.reasoners.client._fast_transport", lambda: None)
    faults = [
        lambda: fault(429),
        lambda: fault(500),
        drop,
        half,
        lambda: send_text("{"),
        lambda: reply("x", seconds=2),
    ]

    def script(body, number):
        rng = random.Random(number)
        return rng.choice(faults)() if rng.random() < 0.4 else echo(body, number)

    with ScriptedServer(script) as server:
        reasoner = connect(server, request_seconds=0.5, retries=2, concurrency=16)
        outcomes = [outcome for (outcome,) in reasoner.submit(questions(200)).result()]
        stats = reasoner.pop_stats()
    replies = {index: outcome for index, outcome in enumerate(outcomes) if isinstance(outcome, Reply)}
    assert {index: outcome.text for index, outcome in replies.items()} == {
        index: f"echo: q {index}" for index in replies
    }
    assert len(replies) > 150
    assert stats["failed"] == 200 - len(replies)
    assert stats["retries"] == sum(max(outcome.attempts - 1, 0) for outcome in outcomes)


@pytest.mark.parametrize(
    ("usage", "count"),
    [({"completion_tokens": 7}, 7), ({}, None), (None, None), ([7], None), ({"completion_tokens": -1}, None)],
)
def test_tokens_are_those_that_the_server_counts(usage, count):
    choice = {"message": {"content": "hello"}, "finish_reason": "stop"}
    assert read_answer({"choices": [choice], "usage": usage}) == Reply("hello", num_tokens=count)
