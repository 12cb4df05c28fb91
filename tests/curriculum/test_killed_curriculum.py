# SPDX-License-Identifier: Apache-2.0
"""Real curricula that are killed again and again end with the bytes of undisturbed ones, and leave no process."""

import json
import random
import time
from pathlib import Path

import pytest
from miniature import (
    NAMES,
    Command,
    curriculum_command,
    miniature_stages,
    products,
    progress,
    states,
    wait_until,
    write_curriculum,
)
from processes import checksum, write_recipe
from processes import rows as sampled_rows

from open_r1_vision import sample, sft, split, train
from open_r1_vision.curriculum import __main__ as command
from open_r1_vision.curriculum import read_curriculum
from open_r1_vision.trainers.warm_up import WarmUpTrainer

WHOM = ("machine", "machine", "supervisor", "supervisor", "launcher")


@pytest.fixture
def here(monkeypatch):
    """Stages run in this process, which has imported what they need."""
    entries = {"sft": sft.main, "sample": sample.main, "split": split.main, "train": train.main}

    def run_stage(words, mark):
        code = entries[words[-3].rpartition(".")[2]](words[-2:])
        return code if isinstance(code, int) else 0

    monkeypatch.setattr(command, "run_stage", run_stage)


def kill_once(process, curriculum, name, moment, whom, draw, seconds, last):
    """Start the command and kill it while a stage runs; whether that moment came before the stage was over.

    `last` is how far the stage can come: what lies behind that is killed there.
    """
    folder = curriculum.stage(name).folder
    begun = progress(folder)
    process.start()
    wait_until(lambda: states(curriculum)[name] == "interrupted", process)  # as a look at the file alone has it
    if moment == "time":
        end = time.monotonic() + draw.uniform(0, seconds)
        came = wait_until(lambda: time.monotonic() > end, process)
    else:
        files = {"final": folder / "final", "rates": folder / "pass_rates.json"}
        if moment in files:
            came = wait_until(files[moment].exists, process)
        else:
            came = wait_until(lambda: progress(folder) >= min(begun + moment, last), process)
        time.sleep(draw.uniform(0, 0.1))
    in_time = came and states(curriculum)[name] != "finished"
    process.kill(whom)
    if whom == "launcher":
        assert process.process.wait(60) != 0
    return in_time


def survive(config, kills, seed, undisturbed):
    """Kill a curriculum at these (stage, moment, whom, seconds), then let it end; returns what it said."""
    curriculum, process, draw = read_curriculum(config), curriculum_command(config), random.Random(seed)
    try:
        for name, moment, whom, seconds in kills:
            # where the machine was slow to look, there is nothing left to kill
            last = progress(undisturbed / name)
            in_time = kill_once(process, curriculum, name, moment, whom, draw, seconds, last)
            assert in_time, f"seed {seed}: {name}, {moment}"
        process.finish()
        assert not process.family()
    finally:
        process.kill("machine")
    assert set(states(curriculum).values()) == {"finished"}
    return process.text()


def check_splits(folder):
    """Splits from the samples by hand: a sample is right when the checksum of it and its question is at least 0.5."""
    rows = {row["id"]: row["problem"] for row in sampled_rows(count=16)}
    right = dict.fromkeys(rows, 0)
    for line in (folder / "difficulty" / "samples.jsonl").read_text().splitlines():
        record = json.loads(line)
        right[record["id"]] += checksum(record["completion"], rows[record["id"]]) >= 0.5
    splits = json.loads((folder / "splits" / "splits.json").read_text())["splits"]
    expected = {"easy": {3, 4}, "medium": {2}, "hard": {0, 1}, "incomplete": set()}
    assert splits == {name: sorted(i for i in rows if right[i] in counts) for name, counts in expected.items()}
    assert all(splits[name] for name in ("easy", "medium", "hard"))


@pytest.mark.timeout(900)
def test_one_kill_in_each_kind_of_stage(tiny_model, tmp_path, here, capsys):
    stages = miniature_stages(tiny_model)[:4]
    assert command.main(["--config", str(write_curriculum(tmp_path / "undisturbed", stages))]) == 0
    expected = products(tmp_path / "undisturbed" / "runs")
    check_splits(tmp_path / "undisturbed" / "runs")
    kills = [
        ("warm_up", 2, "machine", 0),  # the first checkpoint is whole then
        ("difficulty", 400, "supervisor", 0),
        ("splits", "time", "machine", 2),
        ("perceive", 2, "launcher", 0),
    ]
    seed = random.randrange(10**6)
    text = survive(write_curriculum(tmp_path / "killed", stages), kills, seed, tmp_path / "undisturbed" / "runs")
    assert products(tmp_path / "killed" / "runs") == expected, f"seed {seed}"
    assert [path for path in expected if path.endswith("safetensors")] == [
        f"{name}/final/model.safetensors" for name in ("perceive", "warm_up")
    ]
    assert expected["perceive/final/model.safetensors"] != expected["warm_up/final/model.safetensors"]
    for name in ("warm_up", "perceive"):
        assert f"Resuming from {tmp_path}/killed/runs/{name}/checkpoint-" in text


def test_a_run_that_was_killed_after_its_last_checkpoint_makes_no_step_more(tiny_model, tmp_path, monkeypatch):
    """Where that checkpoint lies within an epoch, as here after 4 steps with 3 in an epoch."""
    (stage,) = read_curriculum(write_curriculum(tmp_path, miniature_stages(tiny_model)[:1])).stages
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(stage.settings))
    final = Path(sft.main(["--config", str(recipe)])) / "model.safetensors"
    whole = final.read_bytes()
    (stage.folder / "results.json").unlink()
    final.unlink()
    monkeypatch.setattr(WarmUpTrainer, "training_step", lambda *_: pytest.fail("a step too many"))
    sft.main(["--config", str(recipe)])
    assert final.read_bytes() == whole
    assert json.loads((stage.folder / "results.json").read_text())["steps"] == 4


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_five_kills_in_each_kind_of_stage(tiny_model, tmp_path):
    stages = miniature_stages(tiny_model, steps=13)
    config = write_curriculum(tmp_path / "undisturbed", stages)
    undisturbed = curriculum_command(config)
    undisturbed.finish()
    expected = products(tmp_path / "undisturbed" / "runs")
    check_splits(tmp_path / "undisturbed" / "runs")
    noted = json.loads((tmp_path / "undisturbed" / "runs" / "curriculum.json").read_text())["stages"]
    seed = random.randrange(10**6)
    draw = random.Random(seed)
    kills = []
    for name in NAMES[:4]:
        moments = {
            "difficulty": ["time", *(draw.randint(1, 900) for _ in range(4))],
            "splits": ["time", "time", "time", "time", "rates"],
        }.get(name, ["time", *(draw.randint(1, 2) for _ in range(3)), "final"])
        # a quarter of what it took, since the machine may be less busy now
        seconds = noted[name]["seconds"] / 4
        kills += [(name, *pair, seconds) for pair in zip(moments, draw.sample(WHOM, 5), strict=True)]
    survive(write_curriculum(tmp_path / "killed", stages), kills, seed, tmp_path / "undisturbed" / "runs")
    assert products(tmp_path / "killed" / "runs") == expected, f"seed {seed}"
    finals = [data for path, data in expected.items() if path.endswith("safetensors")]
    assert len(set(finals)) == len(finals) == 3


@pytest.mark.parametrize("module", [pytest.param("sft", marks=pytest.mark.slow), "train"])
def test_workers_do_not_outlive_a_torchrun_that_was_killed(tiny_model, tmp_path, module):
    """Of one process too, which has nobody to wait for."""
    if module == "train":
        recipe = write_recipe(tmp_path, tiny_model, trainer="open_r1_vision.trainers.VisionGRPOTrainer", max_steps=999)
    else:
        (stage,) = read_curriculum(write_curriculum(tmp_path, miniature_stages(tiny_model, steps=999)[:1])).stages
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(json.dumps({**stage.settings, "output_dir": str(tmp_path / "run")}))
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1"]
    torchrun = Command(tmp_path / "log.txt", *words, "-m", f"open_r1_vision.{module}", "--config", recipe)
    torchrun.start()
    try:
        assert wait_until(lambda: progress(tmp_path / "run") > 0, torchrun), torchrun.text()[-3000:]
        assert len(torchrun.family()) > 1
        torchrun.kill("supervisor")  # here that is torchrun itself
        deadline = time.monotonic() + 5
        while torchrun.family():
            assert time.monotonic() < deadline, "workers outlived torchrun"
            time.sleep(0.05)
    finally:
        torchrun.kill("machine")
