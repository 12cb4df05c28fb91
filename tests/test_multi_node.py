# SPDX-License-Identifier: Apache-2.0
"""Two launches that find each other as two machines do: one run, one output folder, checkpoints of both."""

import json
import os
import shutil
import socket
import threading
from pathlib import Path

import pytest
from processes import run_command, run_train, write_deepspeed, write_recipe
from safetensors.torch import load_file

from open_r1_vision.checkpoints import find_damage
from open_r1_vision.runs import LOCK_FILE, require_shared

ROOT = Path(__file__).parent.parent
STEPS = 2


def launch(recipe, *words_of_nodes):
    """One torchrun for each machine, each with one process; their outcomes in order."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = [
        *("-m", "torch.distributed.run", f"--nnodes={len(words_of_nodes)}", "--nproc_per_node=1"),
        *("--rdzv_backend=c10d", f"--rdzv_endpoint=127.0.0.1:{port}", f"--rdzv_id=test-{port}"),
        *("--local_addr=127.0.0.1", "-m", "open_r1_vision.train", "--config", recipe),
    ]
    outcomes = [None] * len(words_of_nodes)

    def run(index, words):
        outcomes[index] = run_command([*common, *words], 280, GLOO_SOCKET_IFNAME="lo")

    threads = [threading.Thread(target=run, args=item) for item in enumerate(words_of_nodes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(outcomes), "a launch did not end in time"
    return outcomes


def log_of(folder):
    state = json.loads((folder / "run" / f"checkpoint-{STEPS}" / "trainer_state.json").read_text())
    return [(entry["loss"], entry["grad_norm"]) for entry in state["log_history"] if "grad_norm" in entry]


def prepare(folder, model, **settings):
    folder.mkdir(parents=True, exist_ok=True)
    rows = {"dataset_options": {"count": 2 * STEPS}, "max_steps": STEPS}
    return write_recipe(folder, model, deepspeed=write_deepspeed(folder, 3), **rows, **settings)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_machines_are_one_run(model_folder, tmp_path):
    model = model_folder("qwen2_5_vl")
    one = prepare(tmp_path / "one", model)
    assert run_train(one, timeout=280).code == 0
    two = prepare(tmp_path / "two", model)
    outcomes = launch(two, [], [])
    assert [outcome.code for outcome in outcomes] == [0, 0], "\n".join(outcome.log[-3000:] for outcome in outcomes)
    run = tmp_path / "two" / "run"
    # each machine held half of the weights, and wrote its part of each checkpoint
    notes = [json.loads((run / f"notes-{rank}.jsonl").read_text().splitlines()[0]) for rank in (0, 1)]
    assert [note["engine"] for note in notes] == ["DeepSpeedEngine"] * 2
    assert sum(note["held"] for note in notes) == pytest.approx(notes[0]["whole"], rel=0.01)
    assert set(notes[0]["ids"]) != set(notes[1]["ids"])
    for step in range(1, STEPS + 1):
        checkpoint = run / f"checkpoint-{step}"
        assert find_damage(checkpoint) is None
        assert len(list(checkpoint.rglob("*zero_pp_rank_*_optim_states.pt"))) == 2
    # it is what one machine with two processes comes to
    for (loss, norm), (loss_of_one, norm_of_one) in zip(
        log_of(tmp_path / "two"), log_of(tmp_path / "one"), strict=True
    ):
        assert loss == pytest.approx(loss_of_one, abs=1e-6) and norm == pytest.approx(norm_of_one, rel=1e-4)
    # only the first process reported, on either machine
    assert (
        sum("checkpoint" not in line and "results.json" in line for o in outcomes for line in o.log.splitlines()) == 1
    )
    final = load_file(run / "final" / "model.safetensors")
    # a run that lost its last checkpoint goes on from the one before, on both machines
    for name in ("final", f"checkpoint-{STEPS}"):
        shutil.rmtree(run / name)
    (run / "results.json").unlink()
    outcomes = launch(two, [], [])
    assert [outcome.code for outcome in outcomes] == [0, 0], "\n".join(outcome.log[-3000:] for outcome in outcomes)
    assert any(f"Resuming from {run / 'checkpoint-1'}" in outcome.log for outcome in outcomes)
    again = load_file(run / "final" / "model.safetensors")
    assert all((again[name] == tensor).all() for name, tensor in final.items())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_machines_that_share_no_folder_are_told_so(model_folder, tmp_path, monkeypatch):
    model = model_folder("qwen2_5_vl")
    recipe = prepare(tmp_path, model)
    outcomes = launch(recipe, [], ["--output_dir", str(tmp_path / "elsewhere")])
    assert all(outcome.code for outcome in outcomes)
    assert any("set output_dir to a folder that all of them share" in outcome.log for outcome in outcomes)


def test_a_folder_that_is_seen_and_one_that_is_not(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    with pytest.raises(ValueError, match="does not see the output folder .*which runs on several"):
        require_shared(tmp_path, seconds=0)
    # a network file system shows it after a while
    timer = threading.Timer(0.7, lambda: (tmp_path / LOCK_FILE).touch())
    timer.start()
    require_shared(tmp_path, seconds=30)
    timer.join()
    # on one machine there is nothing to look for
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    require_shared(tmp_path / "nowhere", seconds=0)
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    monkeypatch.delenv("WORLD_SIZE")
    require_shared(tmp_path / "nowhere", seconds=0)


def test_the_launcher_gives_torchrun_the_rendezvous(tmp_path):
    import subprocess

    fake = tmp_path / "torchrun"
    fake.write_text('#!/bin/sh\necho "$@"\n')
    fake.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    words = ["bash", str(ROOT / "local_scripts" / "train_nodes.sh")]

    def run(*more, **variables):
        return subprocess.run([*words, *more], capture_output=True, text=True, env={**environment, **variables})

    result = run("a.yaml", "b.yaml", "--seed", "1", NODES="2", ENDPOINT="host:29400", GPUS="4")
    assert result.stdout.split() == [
        *("--nnodes=2", "--nproc_per_node=4", "--rdzv_backend=c10d", "--rdzv_endpoint=host:29400"),
        *("--rdzv_id=open_r1_vision", "-m", "open_r1_vision.train", "--config", "a.yaml", "b.yaml", "--seed", "1"),
    ]
    result = run("a.yaml", NODES="2", ENDPOINT="host:29400", LOCAL_ADDR="10.0.0.1", RUN_ID="mine")
    assert "--rdzv_id=mine --local_addr=10.0.0.1 -m" in result.stdout
    assert run("a.yaml", ENDPOINT="host:29400").returncode != 0
    assert "HOST:PORT of one of them" in run("a.yaml", NODES="2").stderr
