# SPDX-License-Identifier: Apache-2.0
"""The cache and the log under several processes, kills, forks and damage."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import pytest
from scripted_server import wait_until

from open_r1_vision.reasoners import Failure, ReasonerConfig, Reply
from open_r1_vision.reasoners.cache import ReplyCache
from open_r1_vision.reasoners.log import RequestLog
from open_r1_vision.reasoners.records import Records


def entry(number, text=None):
    return b"key %d" % number, "judge", text or f"reply {number}", "stop"


def test_what_is_put_is_found_again(tmp_path):
    cache = ReplyCache(tmp_path / "deep" / "cache.sqlite")
    cache.put([entry(number) for number in range(2000)])
    keys = [b"key %d" % number for number in range(2005)]
    expected = {b"key %d" % number: (f"reply {number}", "stop") for number in range(2000)}
    assert cache.get(keys) == expected
    cache.close()
    assert cache.get(keys) == expected  # opened anew
    cache.put([entry(0, "another")])
    assert cache.get([b"key 0"]) == {b"key 0": ("another", "stop")}
    cache.close()


WRITER = """
import sys
from open_r1_vision.reasoners.cache import ReplyCache
from open_r1_vision.reasoners.log import RequestLog
path, worker, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
cache, log = ReplyCache(path), RequestLog(path + ".jsonl")
print("ready", flush=True)
for number in range(rounds):
    own = (b"%d/%d" % (worker, number), "judge", "x" * 2000, "stop")
    shared = (b"shared/%d" % number, "judge", "same", "stop")
    cache.put([own, shared])
    assert cache.get([own[0], shared[0]]) == {own[0]: own[2:], shared[0]: ("same", "stop")}
    log.write([{"worker": worker, "number": number, "text": "x" * 5000}] * 2)
assert not cache.num_faults and not log.num_faults
"""


def start_writer(path, worker, rounds):
    return subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(worker), str(rounds)], stdout=-1)


def test_several_processes_write_one_cache_and_one_log(tmp_path):
    path = tmp_path / "cache.sqlite"
    writers = [start_writer(path, worker, 50) for worker in range(4)]
    assert [writer.wait(60) for writer in writers] == [0] * 4
    keys = [b"%d/%d" % (worker, number) for worker in range(4) for number in range(50)]
    cache = ReplyCache(path)
    assert len(cache.get(keys)) == 200
    assert len(cache.get([b"shared/%d" % number for number in range(50)])) == 50
    lines = [json.loads(line) for line in (tmp_path / "cache.sqlite.jsonl").read_text().splitlines()]
    for worker in range(4):
        own = [line["number"] for line in lines if line["worker"] == worker]
        assert own == [number for number in range(50) for _ in range(2)]
    for writer in writers:
        writer.stdout.close()


def test_a_file_that_another_process_is_setting_up_is_waited_for(tmp_path):
    # to a process that turns a file to a write-ahead log while another writes, SQLite says "locked" at once
    other = sqlite3.connect(tmp_path / "cache.sqlite", isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE unrelated (number INTEGER)")
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.5, other.execute, ["COMMIT"])
    release.start()
    cache = ReplyCache(tmp_path / "cache.sqlite")
    assert cache.num_faults == 0
    release.join()
    cache.put([entry(1)])
    assert cache.get([b"key 1"]) == {b"key 1": ("reply 1", "stop")}
    cache.close()
    other.close()


def test_a_process_killed_while_writing_leaves_whole_replies(tmp_path):
    path = tmp_path / "cache.sqlite"
    writer = start_writer(path, 0, 100_000)
    wait_until(lambda: path.exists() and len(ReplyCache(path).get([b"0/20"])) == 1, 30)
    writer.kill()
    writer.wait()
    writer.stdout.close()
    cache = ReplyCache(path)
    cache.put([entry(1)])
    assert cache.get([b"key 1"])
    cache.close()
    database = sqlite3.connect(path)
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    numbers = database.execute("SELECT count(*) FROM replies WHERE key LIKE '0/%'").fetchone()
    assert numbers == database.execute("SELECT count(*) FROM replies WHERE key LIKE 'shared/%'").fetchone()
    database.close()


def test_a_fork_opens_the_file_for_itself(tmp_path):
    cache = ReplyCache(tmp_path / "cache.sqlite")
    cache.put([entry(1)])
    with cache._lock:  # held by a thread of the parent, as far as the child can see
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(20)  # rather than wait forever
            cache.put([entry(2)])
            os._exit(0 if cache.get([b"key 1", b"key 2"]).keys() == {b"key 1", b"key 2"} else 1)
        assert os.waitpid(child, 0)[1] == 0
    assert len(cache.get([b"key 1", b"key 2"])) == 2
    cache.close()


def test_a_file_that_is_no_cache_is_refused(tmp_path):
    path = tmp_path / "cache.sqlite"
    path.write_text("these are my notes, and no database" * 100)
    with pytest.raises(ValueError, match="can't be used .*delete the file if it is damaged"):
        ReplyCache(path)


def test_damage_during_a_run_costs_replies_but_no_run(tmp_path, caplog):
    path = tmp_path / "cache.sqlite"
    cache = ReplyCache(path)
    cache.put([entry(number, "x" * 3000) for number in range(100)])
    cache.close()
    with path.open("r+b") as file:
        file.seek(1000)
        file.write(b"damage" * 20_000)
    assert cache.get([b"key %d" % number for number in range(100)]) == {}
    cache.put([entry(1)])
    assert cache.num_faults == 2
    assert caplog.text.count("Said once") == 1


def test_a_log_that_cannot_be_written_is_said_once_and_counted(tmp_path, caplog, monkeypatch):
    log = RequestLog(tmp_path / "log.jsonl")
    log.write([{"text": "ü\ud800", "path": tmp_path}])
    assert json.loads((tmp_path / "log.jsonl").read_text())["text"] == "ü?"

    def full_disk(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full_disk)
    for _ in range(3):
        log.write([{"a": 1}])
    assert log.num_faults == 3
    assert caplog.text.count("No space left") == 1


# ---- what decides whether a reply can be had from the cache


def keys(chats=None, **settings):
    config = ReasonerConfig(kind="local", **{"model": "judge", **settings})
    return [question.key for question in Records(config).questions(chats or [[message("hello")]], None)]


def message(content, role="user"):
    return {"role": role, "content": content}


def test_the_key_is_made_of_model_messages_and_sampling():
    different = [
        keys(),
        keys(model="other"),
        keys(max_tokens=7),
        keys(temperature=0.5),
        keys(top_p=0.5),
        keys(seed=1),
        keys(response_schema={"type": "object"}),
        keys(chat_template_kwargs={"enable_thinking": False}),
        keys([[message("hello ")]]),
        keys([[message("hello", "system")]]),
        keys([[message("hel"), message("lo")]]),
        keys(n=2, temperature=1)[1:],
    ]
    assert len({key for (key,) in different}) == len(different)
    assert keys() == keys([[message([{"type": "text", "text": "hello"}])]], batch_seconds=1, log=None)


def test_n_draws_are_n_entries(tmp_path):
    settings = {"kind": "local", "model": "judge", "temperature": 1, "n": 3, "cache": str(tmp_path / "cache")}
    records = Records(ReasonerConfig(**settings, cache_sampled=True))
    questions = records.questions([[message("a")], [message("b")]], None)
    assert len({question.key for question in questions}) == 6
    for number in (0, 1, 3):
        records.settle(questions[number], Reply(f"draw {number}"))
    records.settle(questions[4], Failure("timeout", "late"))
    records.flush()
    found = records.find(questions, None)
    assert {number: (reply.text, reply.cached) for number, reply in found.items()} == {
        number: (f"draw {number}", True) for number in (0, 1, 3)
    }
    records.close()


def test_the_log_says_what_was_asked_and_what_came_back(tmp_path):
    config = ReasonerConfig(kind="local", model="judge", log=str(tmp_path / "log.jsonl"), max_tokens=9)
    records = Records(config)
    questions = records.questions([[message("a")], [message("b")]], [{"id": "row-1"}, {"id": "row-2"}])
    records.settle(questions[0], Reply("7", "length", verdict=7, attempts=2, seconds=0.5))
    records.settle(questions[1], Failure("unreadable", "no number", "seven"))
    records.close()
    first, second = (json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines())
    assert abs(first.pop("time") - time.time()) < 60
    assert first == {
        "id": f"{questions[0].key.hex()}-0",
        "rank": 0,
        "kind": "local",
        "model": "judge",
        "sampling": {"temperature": 0, "top_p": 1, "max_tokens": 9, "seed": None},
        "tag": {"id": "row-1"},
        "messages": [{"role": "user", "content": "a"}],
        "reply": "7",
        "finish_reason": "length",
        "verdict": 7,
        "failure": None,
        "cached": False,
        "attempts": 2,
        "seconds": 0.5,
    }
    assert second["failure"] == {"reason": "unreadable", "message": "no number"}
    assert second["reply"] == "seven"
