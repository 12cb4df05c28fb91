# SPDX-License-Identifier: Apache-2.0
"""How long verdicts take from a server that answers each request after the same time, and from the cache.

    python eval/benchmark_reasoner.py
    python eval/benchmark_reasoner.py --count 4096 --concurrency 128 --milliseconds 200

The ideal is count / concurrency times the server's time: nothing but waiting. The server runs in a process of its own.
Medians over the repeats, with the fastest and the slowest; processor seconds are of the asking process.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

_MESSAGE = {"role": "assistant", "content": "1"}
_BODY = json.dumps({"choices": [{"index": 0, "message": _MESSAGE, "finish_reason": "stop"}]}).encode()
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1024, help="verdicts")
    parser.add_argument("--concurrency", type=int, default=64, help="requests under way at once")
    parser.add_argument("--milliseconds", type=float, default=50, help="until the server answers")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.serve:
        asyncio.run(_serve(args.milliseconds / 1000))
        return
    results = measure(args.count, args.concurrency, args.milliseconds / 1000, args.repeats)
    ideal = args.count / args.concurrency * args.milliseconds / 1000
    asked, cached = statistics.median(results["asked"]), statistics.median(results["cached"])
    sys.stdout.write(
        f"{args.count} verdicts, concurrency {args.concurrency}, {args.milliseconds:g} ms each, "
        f"{args.repeats} repeats, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n"
        f"ideal       {ideal:8.3f} s\n"
        f"asked       {_spread(results['asked'])}   {asked / ideal:.2f} times the ideal\n"
        f"  processor {_spread(results['processor'])}\n"
        f"cached      {_spread(results['cached'])}   {asked / cached:.0f} times as fast\n"
    )


def measure(count: int, concurrency: int, seconds: float, repeats: int) -> dict[str, list[float]]:
    """Seconds for a batch that is asked, the processor's part of it, and for the same batch from the cache."""
    from open_r1_vision.reasoners import ReasonerConfig, Reply, build_reasoner

    command = [sys.executable, __file__, "--serve", "--milliseconds", str(1000 * seconds)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    results: dict[str, list[float]] = {"asked": [], "processor": [], "cached": []}
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        with tempfile.TemporaryDirectory() as folder:
            config = ReasonerConfig(
                kind="endpoint",
                model="judge",
                base_url=f"http://127.0.0.1:{port}/v1",
                concurrency=concurrency,
                cache=str(Path(folder) / "cache.sqlite"),
            )
            reasoner = build_reasoner(config)
            for repeat in range(repeats):
                chats = [[{"role": "user", "content": f"verdict {repeat} {index}"}] for index in range(count)]
                for name in ("asked", "cached"):
                    start, processor = time.perf_counter(), time.process_time()
                    outcomes = reasoner.submit(chats, read=int).result()
                    results[name].append(time.perf_counter() - start)
                    if name == "asked":
                        results["processor"].append(time.process_time() - processor)
                    assert all(isinstance(outcome, Reply) for (outcome,) in outcomes)
                    assert all(outcome.cached == (name == "cached") for (outcome,) in outcomes)
            reasoner.close()
    finally:
        server.terminate()
        server.wait()
    return results


class _FixedTime(asyncio.Protocol):
    """Answers each request of a connection after the same time."""

    seconds = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.data = b""

    def data_received(self, data: bytes) -> None:
        self.data += data
        while True:
            head, found, rest = self.data.partition(b"\r\n\r\n")
            lengths = [line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            length = int(lengths[0]) if lengths else 0
            if not found or len(rest) < length:
                return
            self.data = rest[length:]
            asyncio.get_running_loop().call_later(self.seconds, self.answer)

    def answer(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(_ANSWER)  # type: ignore[attr-defined]


async def _serve(seconds: float) -> None:
    _FixedTime.seconds = seconds
    server = await asyncio.get_running_loop().create_server(_FixedTime, "127.0.0.1", 0, backlog=1024)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):8.3f} s [{min(values):.3f}, {max(values):.3f}]"


if __name__ == "__main__":
    main()
