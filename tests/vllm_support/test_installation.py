# SPDX-License-Identifier: Apache-2.0
"""vLLM that is missing, too new, beside another torch, for GPUs that aren't there; a port that is taken."""

import socket
import sys
from importlib import metadata

import pytest
import torch
from tiny_models import make_trainer, options, rows

from open_r1_vision.torchvision_ops import is_mismatched
from open_r1_vision.trainers import VisionGRPOTrainer
from open_r1_vision.vllm_support.installation import check_installation, check_port

ASKED = ("use_vllm is true", "set use_vllm to false")


@pytest.fixture
def install(monkeypatch):
    """`install(name, version, requires)` makes one distribution of vLLM the only one there is; `install()` none."""

    def pretend(name=None, version="0.31.0", requires=("torch==2.13.0+cpu", "numpy")):
        def version_of(asked):
            if asked != name:
                raise metadata.PackageNotFoundError(asked)
            return version

        monkeypatch.setattr(metadata, "version", version_of)
        monkeypatch.setattr(metadata, "requires", lambda asked: list(requires))

    return pretend


@pytest.fixture
def torch_is(monkeypatch):
    def pretend(version, cuda=None):
        monkeypatch.setattr(torch, "__version__", version)
        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(torch.version, "hip", None)

    return pretend


def test_no_vllm(install, tiny_model, tmp_path):
    """The trainer says so before it loads a model."""
    install()
    message = r"use_vllm is true, but vLLM is not installed.*\[vllm\].*make vllm-cpu.*set use_vllm to false"
    with pytest.raises(ValueError, match=message):
        check_installation(*ASKED)
    with pytest.raises(ValueError, match=message):
        make_trainer(VisionGRPOTrainer, tiny_model, options(tmp_path, use_vllm=True), rows(1))


@pytest.mark.parametrize("version", ["0.21.3", "0.32.0", "1.0"])
def test_another_version(install, torch_is, version):
    torch_is("2.13.0+cpu")
    install("vllm-cpu", version)
    expected = (
        rf"vllm-cpu {version} is installed, and TRL 1.16 works with <=0.31,>=0.22 alone.*constraints.txt vllm-cpu"
    )
    with pytest.raises(ValueError, match=expected):
        check_installation(*ASKED)


@pytest.mark.parametrize("version", ["0.22.0", "0.30.0", "0.31.0", "0.31.0+cu129"])
def test_versions_that_work(install, torch_is, version):
    torch_is("2.13.0+cu130", cuda="13.0")
    install("vllm", version, ["torch==2.13.0", 'torch==2.9.0; extra == "old"', "torchvision==0.28.0"])
    check_installation(*ASKED)


def test_another_torch(install, torch_is):
    torch_is("2.12.1+cpu")
    install("vllm-cpu")
    with pytest.raises(ValueError, match=r"was compiled for torch ==2.13.0, and torch 2.12.1\+cpu is installed"):
        check_installation(*ASKED)
    torch_is("2.13.0+cpu")
    check_installation(*ASKED)


def test_vllm_for_gpus_beside_torch_for_none(install, torch_is):
    torch_is("2.13.0+cpu")
    install("vllm", requires=["torch==2.13.0"])
    with pytest.raises(ValueError, match=r"compiled for GPUs, and torch 2.13.0\+cpu for none. Run `make vllm-cpu`"):
        check_installation(*ASKED)


def test_vllm_for_cpus_beside_torch_for_gpus(install, torch_is):
    torch_is("2.13.0+cu130", cuda="13.0")
    install("vllm-cpu")
    with pytest.raises(ValueError, match=r"compiled for torch without GPUs, and torch 2.13.0\+cu130 is one for GPUs"):
        check_installation(*ASKED)


def test_who_asks_is_said(install):
    install("vllm", "0.32.0")
    with pytest.raises(ValueError, match=r"^backend is vllm, but vllm 0.32.0 .*, or set backend to transformers\.$"):
        check_installation("backend is vllm", "set backend to transformers")


def test_a_port_that_is_none(monkeypatch):
    monkeypatch.setenv("MASTER_PORT", "70000")
    with pytest.raises(ValueError, match=r"MASTER_PORT is 70000, but .*must be 0-65535.*Leave MASTER_PORT out"):
        check_port()


def test_a_trainer_looks_at_the_port_first(install, torch_is, monkeypatch, tiny_model, tmp_path):
    torch_is("2.13.0+cpu")
    install("vllm-cpu")
    monkeypatch.setenv("MASTER_PORT", "70000")
    with pytest.raises(ValueError, match="MASTER_PORT is 70000"):
        make_trainer(VisionGRPOTrainer, tiny_model, options(tmp_path, use_vllm=True), rows(1))


def test_a_port_that_is_taken(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        monkeypatch.setenv("MASTER_PORT", str(port))
        with pytest.raises(
            ValueError, match=rf"MASTER_PORT is {port}, but .* 127.0.0.1:{port} \(.*in use.*Leave MASTER"
        ):
            check_port()
        # processes that have met need no port any more
        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
        check_port()
    monkeypatch.undo()


@pytest.mark.parametrize("port", ["", "0", "auto"])
def test_a_port_that_trl_looks_for(monkeypatch, port):
    monkeypatch.setenv("MASTER_PORT", port)
    check_port()


@pytest.mark.parametrize(
    ("of_torch", "of_torchvision", "expected"),
    [
        ("2.13.0+cpu", "0.28.0+cu130", True),
        ("2.13.0+cpu", "0.28.0+cpu", False),
        ("2.13.0+cu130", "0.28.0+cu130", False),
        ("2.13.0", "0.28.0", False),
        ("2.13.0+cpu", None, False),
        (None, "0.28.0+cu130", False),
    ],
)
def test_where_torchvisions_operators_are_missing(of_torch, of_torchvision, expected):
    assert is_mismatched(of_torch, of_torchvision) is expected


def test_torchvision_is_left_alone_where_it_works():
    """Importing the package loads neither torch nor torchvision, unless torchvision can't be imported without it."""
    import subprocess

    code = (
        "import sys, open_r1_vision.torchvision_ops as ops; sys.exit(bool(ops._libraries) != ('torch' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
