# SPDX-License-Identifier: Apache-2.0
"""A real OpenAI-compatible server as a process: `transformers serve`, or `vllm serve` where it is installed."""

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

#: Seconds that a server may take to start on a machine that is busy with other things.
_START_SECONDS = 120


class Server:
    """The server's process, which can be killed and started again at the same address."""

    def __init__(self, model, folder):
        self.model = model
        self.log = folder / "server.log"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.process = None

    def start(self):
        binary = Path(sys.executable).parent
        if importlib.util.find_spec("vllm"):
            command = [binary / "vllm", "serve", self.model, "--max-model-len", "256", "--enforce-eager"]
            command += ["--gpu-memory-utilization", "0.2", "--dtype", "float32"]
        else:
            command = [binary / "transformers", "serve", self.model, "--device", "cpu"]
        command += ["--host", "127.0.0.1", "--port", str(self.port)]
        with self.log.open("ab") as log:
            # a process group of its own, so that all it starts can be ended with it
            self.process = subprocess.Popen(
                list(map(str, command)), stdout=log, stderr=log, env={**os.environ}, start_new_session=True
            )

    def wait(self):
        end = time.monotonic() + _START_SECONDS
        while True:
            assert self.process.poll() is None and time.monotonic() < end, self.log.read_text()[-3000:]
            try:
                return urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5).read()
            except OSError:
                time.sleep(0.2)

    def kill(self):
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):  # it ended by itself
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None
