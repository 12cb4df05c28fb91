# SPDX-License-Identifier: Apache-2.0
"""Processes: start DeepSpeed on machines without a GPU, prove that its engine runs, end a run cleanly."""

import atexit
import contextlib
import ctypes
import os
import signal
import sys
from datetime import timedelta
from typing import Any

_PR_SET_PDEATHSIG = 1


def boot_deepspeed_on_cpu(timeout_seconds: int) -> None:
    """Make accelerate start a process group that DeepSpeed can use without a GPU.

    With `use_cpu` alone, accelerate leaves DeepSpeed's communication uninitialised until after ZeRO-3 has partitioned
    the model, and drops the time limit. Starting the process state first, with an explicit backend, avoids both; the
    trainer's arguments then need `use_cpu=True` and `accelerator_config={"use_configured_state": True}`.

    Args:
        timeout_seconds: limit of one collective operation.
    """
    from accelerate import PartialState

    os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    os.environ["DS_ACCELERATOR"] = "cpu"
    # one machine: without these DeepSpeed looks for MPI
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29500")
    os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
    try:
        PartialState(backend="gloo", timeout=timedelta(seconds=timeout_seconds))
    finally:
        del os.environ["ACCELERATE_USE_DEEPSPEED"]


def require_deepspeed_engine(model: Any) -> None:
    """Refuse to train when DeepSpeed was asked for but the model was wrapped by something else.

    Raises:
        RuntimeError: `model` is not a DeepSpeed engine.
    """
    if type(model).__name__ != "DeepSpeedEngine":
        raise RuntimeError(
            f"`deepspeed` is set, but the model runs as {type(model).__name__}: nothing would be sharded. Launch with "
            "torchrun and leave the process group to this library, or unset `deepspeed`."
        )


def num_processes() -> int:
    """Processes of this run as torchrun announces them, 1 outside of torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Number of this process among those of the run, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_main_process() -> bool:
    """Whether this is the process that prints and writes."""
    return int(os.environ.get("RANK", "0")) == 0


def end_with_launcher() -> None:
    """Let this process die with the torchrun that launched it: workers would go on when torchrun is killed.

    Without torchrun nothing changes: a process that was started in a terminal may outlive it.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        end_with_parent(signal.SIGKILL)


def end_with_parent(number: int) -> None:
    """Let this process get a signal when the one that started it dies."""
    with contextlib.suppress(OSError, AttributeError):  # other systems than Linux have no such call
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def finish(code: int = 0) -> None:
    """End a command line process after its work is done and saved, with an exit code.

    One of several processes runs its exit hooks, in which trackers send what they still hold, and leaves without any
    teardown: a gloo thread that is still up when its process group or the interpreter goes aborts now and then
    ("terminate called without an active exception"), and torchrun then reports a finished run as failed."""
    from torch import distributed as dist

    if num_processes() > 1:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        if dist.is_available() and dist.is_initialized():
            dist.barrier()
        os._exit(code)
    if code:
        raise SystemExit(code)
