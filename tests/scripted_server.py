# SPDX-License-Identifier: Apache-2.0
"""An OpenAI-compatible server on loopback that does what a script says: replies, and every fault that servers have."""

import asyncio
import json
import socket
import threading
import time
from dataclasses import dataclass, field

REASONS = {200: "OK", 401: "Unauthorized", 404: "Not Found", 422: "Unprocessable", 429: "Too Many", 500: "Error"}


@dataclass
class Act:
    """What the server does with one request: wait, write bytes, and perhaps close the connection."""

    data: bytes = b""
    seconds: float = 0.0
    close: bool = False
    drip: bool = False


def reply(text, finish_reason="stop", **act):
    """A chat completion with this text."""
    message = {"role": "assistant", "content": text}
    return send({"choices": [{"index": 0, "message": message, "finish_reason": finish_reason}]}, **act)


def send(body, status=200, headers=None, **act):
    """A whole HTTP answer with a JSON body."""
    return send_text(json.dumps(body), status, headers, **act)


def send_text(text, status=200, headers=None, kind="application/json", **act):
    """A whole HTTP answer."""
    data = text.encode()
    fields = {"Content-Type": kind, "Content-Length": len(data), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return Act(f"HTTP/1.1 {status} {REASONS.get(status, 'X')}\r\n{head}\r\n".encode() + data, **act)


def fault(status, headers=None):
    """An error as servers word it."""
    return send({"error": {"message": f"scripted {status}"}}, status, headers)


def half():
    """Half of an answer, then a closed connection."""
    whole = reply("half a reply").data
    return Act(whole[: len(whole) - 20], close=True)


def drop():
    """A closed connection without an answer."""
    return Act(close=True)


def asked(body):
    """The text of a request's last message."""
    return body["messages"][-1]["content"]


def echo(body, number):
    """A script that replies `echo: <the question>`."""
    return reply(f"echo: {asked(body)}")


@dataclass
class ScriptedServer:
    """Serves in a thread. `script(body, number)` gives an Act for the chat request of that number, from 0.

    Requests of the kind that `Reasoner.check` sends are answered well, listed, and not counted, unless
    `scripts_check` says otherwise.
    """

    script: object = echo
    models: tuple = ("judge",)
    models_act: Act | None = None
    scripts_check: bool = False
    requests: list = field(default_factory=list)
    headers: list = field(default_factory=list)
    most_at_once: int = 0

    def __post_init__(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._at_once = 0
        self._thread = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    def start(self):
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), daemon=True)
        self._thread.start()
        assert ready.wait(10)
        return self

    def stop(self):
        """Stop as a killed process does: connections are reset, requests under way are lost."""
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._ended.set)
            self._thread.join(10)
            self._thread = None

    async def _serve(self, ready):
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        self._at_once = 0
        writers, tasks = set(), set()

        async def connected(reader, writer):
            writers.add(writer)
            task = asyncio.current_task()
            tasks.add(task)
            try:
                await self._converse(reader, writer)
            except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                pass
            finally:
                writers.discard(writer)
                tasks.discard(task)
                writer.transport.abort()

        server = await asyncio.start_server(connected, "127.0.0.1", self.port, backlog=1024)
        ready.set()
        await self._ended.wait()
        server.close()
        for writer in list(writers):
            writer.transport.abort()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _converse(self, reader, writer):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            data = await reader.readexactly(int(headers.get("content-length", 0)))
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            try:
                act = self._act(first.split()[1], headers, data)
                await asyncio.sleep(act.seconds)
            finally:
                self._at_once -= 1
            if act.drip:
                for byte in act.data:
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(0.05)
            writer.write(act.data)
            await writer.drain()
            if act.close:
                return

    def _act(self, path, headers, data):
        if path.endswith("/models"):
            return self.models_act or send({"data": [{"id": name} for name in self.models]})
        body = json.loads(data)
        if asked(body) == "Reply with one word." and not self.scripts_check:
            return reply("yes")
        self.headers.append(headers)
        self.requests.append(body)
        return self.script(body, len(self.requests) - 1)


def wait_until(condition, seconds=10):
    """Wait for a condition, or fail."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


def questions(count, word="q"):
    """Chats `q 0`, `q 1`, ..."""
    return [[{"role": "user", "content": f"{word} {index}"}] for index in range(count)]


def texts(outcomes):
    """The texts of replies, None where there is none."""
    return [[getattr(outcome, "text", None) for outcome in replies] for replies in outcomes]
