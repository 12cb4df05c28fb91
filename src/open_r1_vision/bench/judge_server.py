# SPDX-License-Identifier: Apache-2.0
"""A server on loopback that stands in for a judge of facts: it takes its time, and answers so many at once.

    python -m open_r1_vision.bench.judge_server --milliseconds 50 --limit 16

It speaks as much of the OpenAI protocol as a chat completion, and prints its port. A fact counts as stated if it
stands in the request twice: where the facts are listed, and in the response. A request's answer takes the same time
whatever it is; those beyond the limit wait, in the order in which they came, as at a server whose batch is full. It
runs in a process of its own, so that its work is not the asking one's, and ends with the process that started it.
"""

import argparse
import asyncio
import json
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from open_r1_vision.distributed import end_with_parent

_NUMBERED = re.compile(r"^\d+\. (.*)$", re.MULTILINE)
_TAGGED = re.compile(r"<info\d+>(.*)</info\d+>")


class JudgeServer:
    """Asks a server that :func:`serving` has started.

    Args:
        port: on loopback.
    """

    def __init__(self, port: int) -> None:
        self._root = f"http://127.0.0.1:{port}"
        self.url = f"{self._root}/v1"

    def pop_counts(self) -> dict[str, int]:
        """`requests` since the last call, and how many of them were under way at once (`most_at_once`)."""
        with urllib.request.urlopen(f"{self._root}/counts", timeout=30) as answer:
            counts: dict[str, int] = json.load(answer)
        return counts


@contextmanager
def serving(milliseconds: float, limit: int) -> Iterator[JudgeServer]:
    """Run a server in the `with` block.

    Args:
        milliseconds: from the turn of a request to its answer.
        limit: requests that are answered at once.

    Raises:
        RuntimeError: it didn't start.
    """
    command = [sys.executable, "-m", __name__, "--milliseconds", str(milliseconds), "--limit", str(limit)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = process.stdout.readline()
        if not port:
            raise RuntimeError(f"The judge's server ended before it listened: run `{' '.join(command)}` to see why.")
        yield JudgeServer(int(port))
    finally:
        process.terminate()
        process.wait()


def judge(request: str) -> str:
    """The reply to a request in the words of this library, or of Perception-R1's code."""
    if tagged := _TAGGED.findall(request):
        return "\n".join(f"<info{k}>{int(request.count(fact) > 1)}</info{k}>" for k, fact in enumerate(tagged, 1))
    facts = _NUMBERED.findall(request)
    return json.dumps(
        {"verdicts": [{"fact": k, "stated": int(request.count(fact) > 1)} for k, fact in enumerate(facts, 1)]}
    )


class _Server:
    def __init__(self, seconds: float, limit: int) -> None:
        self._seconds = seconds
        self._places = asyncio.Semaphore(limit)
        self._under_way = 0
        self._counts = {"requests": 0, "most_at_once": 0}

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection until it ends."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = re.search(r"^content-length: *(\d+)", head, re.IGNORECASE | re.MULTILINE)
                data = await reader.readexactly(int(length[1]) if length else 0)
                answer = await self._answer(data) if data else self._pop_counts()
                body = json.dumps(answer).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
                writer.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _answer(self, data: bytes) -> dict:
        self._under_way += 1
        self._counts["requests"] += 1
        self._counts["most_at_once"] = max(self._counts["most_at_once"], self._under_way)
        try:
            content = json.loads(data)["messages"][-1]["content"]
            async with self._places:
                await asyncio.sleep(self._seconds)
        finally:
            self._under_way -= 1
        message = {"role": "assistant", "content": judge(content)}
        return {
            "id": "reply",
            "object": "chat.completion",
            "created": 0,
            "model": "judge",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        }

    def _pop_counts(self) -> dict[str, int]:
        counts, self._counts = self._counts, {"requests": 0, "most_at_once": 0}
        return counts


async def _serve(seconds: float, limit: int) -> None:
    server = await asyncio.start_server(_Server(seconds, limit).converse, "127.0.0.1", 0, backlog=1024)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


def main() -> None:
    """Serve until the process that started it ends it, or ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--milliseconds", type=float, default=50, help="from the turn of a request to its answer")
    parser.add_argument("--limit", type=int, default=16, help="requests that are answered at once")
    args = parser.parse_args()
    end_with_parent(signal.SIGTERM)
    asyncio.run(_serve(args.milliseconds / 1000, args.limit))


if __name__ == "__main__":
    main()
