# SPDX-License-Identifier: Apache-2.0
"""The sampling command: what it reads, what it leaves out, and that being killed changes nothing."""

import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import pytest
from processes import TESTS

from open_r1_vision.sample import main

MARK = "OPEN_R1_VISION_SAMPLE_TEST"


@pytest.fixture
def recipe(tiny_model, tmp_path):
    """`recipe(**settings)` writes a training recipe that is sampled."""

    def write(**settings):
        defaults = {
            "model_name_or_path": tiny_model,
            "dataset": "processes.rows",
            "dataset_options": {"count": 10, "texts": [4]},
            "trainer": "open_r1_vision.trainers.VisionGRPOTrainer",
            "learning_rate": 1.0e-6,
            "max_completion_length": 8,
            "num_generations": 3,
            "rows_per_batch": 2,
            "output_dir": str(tmp_path / "samples"),
        }
        path = tmp_path / f"{uuid.uuid4().hex}.yaml"
        path.write_text(json.dumps({**defaults, **settings}))
        return ["--config", str(path)]

    return write


def lines_of(folder):
    return [json.loads(line) for line in (Path(folder) / "samples.jsonl").read_text().splitlines()]


def test_a_training_recipe_is_sampled(recipe, tmp_path, capsys):
    assert main(recipe()) == 0
    lines = lines_of(tmp_path / "samples")
    assert [(line["id"], line["sample"]) for line in lines] == [(f"train-{i}", s) for i in range(10) for s in range(3)]
    assert len({line["completion"] for line in lines}) == 30
    assert all(0 < line["num_tokens"] <= 8 for line in lines)
    out = capsys.readouterr().out
    assert out.splitlines() == ["rows     10", "samples  30", f"written  {tmp_path}/samples/samples.jsonl"]
    settings = json.loads((tmp_path / "samples" / "settings.json").read_text())
    assert (settings["temperature"], settings["top_p"], settings["num_generations"]) == (1.2, 0.99, 3)
    # given again, it has nothing to do; the size of a batch may change
    before = (tmp_path / "samples" / "samples.jsonl").stat().st_mtime_ns
    assert main(recipe(rows_per_batch=5)) == 0
    assert (tmp_path / "samples" / "samples.jsonl").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temprature": 1.0}, "Unknown key `temprature`"),
        ({"top_k": 50}, "top_k is 50, which training would use and sampling does not know"),
        ({"temperature": 0}, "temperature is 0, at which all samples of a row are the same"),
        ({"num_generations": 0}, "num_generations is 0: set at least 1"),
        ({"backend": "tgi"}, "backend is 'tgi': set one of transformers, vllm, endpoint"),
        ({"model_name_or_path": None}, "There is no model to sample: set model_name_or_path"),
        ({"dataset": "processes.nothing"}, "module 'processes' has no 'nothing'"),
        ({"stop_token": "How"}, "stop_token is 'How', which this model's tokenizer splits into 3 tokens"),
    ],
)
def test_what_can_not_be_sampled_is_said(recipe, tmp_path, capsys, settings, message):
    assert main(recipe(**settings)) == 2
    assert message in capsys.readouterr().out
    assert not list(tmp_path.glob("samples/*.jsonl"))


def test_other_settings_and_weights_are_refused(recipe, tmp_path, tiny_model, capsys):
    assert main(recipe(dataset_options={"count": 1})) == 0
    before = (tmp_path / "samples" / "samples.jsonl").read_bytes()
    assert main(recipe(dataset_options={"count": 2}, temperature=1.0)) == 2
    out = capsys.readouterr().out
    assert "dataset_options: {'count': 1} -> {'count': 2}; num_rows: 1 -> 2; rows: " in out
    assert "temperature: 1.2 -> 1.0" in out
    other = tmp_path / "model"
    other.mkdir()
    for path in Path(tiny_model).iterdir():
        data = path.read_bytes()
        (other / path.name).write_bytes(data[:-4] + b"\x00\x00\x80\x3f" if path.suffix == ".safetensors" else data)
    assert main(recipe(dataset_options={"count": 1}, model_name_or_path=str(other))) == 2
    assert "weights: " in capsys.readouterr().out
    assert (tmp_path / "samples" / "samples.jsonl").read_bytes() == before
    assert main(recipe(dataset_options={"count": 1}, seed=7, overwrite_output=True)) == 0
    assert (tmp_path / "samples" / "samples.jsonl").read_bytes() != before


def test_rows_that_training_would_refuse_are_left_out_and_told(recipe, tmp_path, capsys):
    rows = [
        {"id": f"row-{index}", "problem": text, "solution": "1", "problem_type": "number", "images": images}
        for index, (text, images) in enumerate(
            [("How many?", []), ("How many? " + 9 * "so ", []), ("How many?", ["gone.png"]), ("<image> this?", [])]
        )
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    data = {"dataset": str(tmp_path / "rows.json"), "dataset_options": None, "max_prompt_tokens": 70}
    assert main(recipe(**data)) == 0
    lines = lines_of(tmp_path / "samples")
    assert [line["id"] for line in lines] == ["row-0"] * 3 + ["row-1", "row-2", "row-3"]
    assert lines[3]["refused"].startswith("prompt too long: ")
    out = capsys.readouterr().out
    for told in (
        "left out 1 rows, prompt too long: row-1",
        "left out 1 rows, image unreadable: row-2",
        "left out 1 rows, image markers: row-3",
    ):
        assert told in out
    assert main(recipe(**data)) == 0
    assert lines_of(tmp_path / "samples") == lines
    rows[1]["id"] = "row-0"
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    assert main(recipe(**data)) == 2
    assert "1 ids stand for several rows, such as 'row-0'" in capsys.readouterr().out


# ---- sudden death


def start(words, processes):
    """The command in a session of its own, under torchrun where there are several processes."""
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "PYTHONPATH": path, MARK: uuid.uuid4().hex}
    process = subprocess.Popen(
        [sys.executable, *launch, "-m", "open_r1_vision.sample", *words],
        env=env,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return process, env[MARK]


def family(mark):
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def num_bytes(folder):
    return sum(path.stat().st_size for path in Path(folder).glob("shard-*.jsonl"))


def kill_when(words, processes, folder, least):
    """Start, and kill as soon as so many bytes are written: torchrun alone where there are several processes."""
    process, mark = start(words, processes)
    try:
        deadline = time.monotonic() + 90
        while num_bytes(folder) < least:
            assert process.poll() is None, process.stdout.read().decode()[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + 10
        while family(mark):
            assert time.monotonic() < deadline, "processes outlived torchrun"
            time.sleep(0.01)
    finally:
        for one in family(mark):
            one.kill()
        process.stdout.close()


def test_killed_at_random_moments_and_started_with_other_numbers_of_processes(recipe, tmp_path, capsys):
    settings = {"dataset_options": {"count": 24, "texts": [4]}, "max_completion_length": 40}
    undisturbed, folder = tmp_path / "undisturbed", tmp_path / "samples"
    assert main(recipe(**settings, output_dir=str(undisturbed))) == 0
    expected = (undisturbed / "samples.jsonl").read_bytes()
    seed = random.randrange(10**6)
    draw = random.Random(seed)
    words = recipe(**settings)
    for number, processes in enumerate((2, 1)):
        written = num_bytes(folder)
        least = written + draw.randint(1, (len(expected) - written) // 3)
        kill_when(words, processes, folder, least)
        assert num_bytes(folder) < len(expected), f"seed {seed}, kill {number}: it was over already"
    # as a machine that goes down in the middle of a line would leave it
    shard = folder / "shard-00000.jsonl"
    shard.write_bytes(shard.read_bytes()[: -draw.randint(2, 60)])
    capsys.readouterr()
    assert main(words) == 0
    assert "shard-00000.jsonl: dropped a torn last line; what it held is sampled again." in capsys.readouterr().out
    assert (folder / "samples.jsonl").read_bytes() == expected, f"seed {seed}"


def test_several_processes_sample_the_same(recipe, tmp_path):
    assert main(recipe(output_dir=str(tmp_path / "alone"))) == 0
    process, mark = start(recipe(), 3)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out.decode()[-3000:]
    assert not family(mark)
    assert out.decode().count("samples  30") == 1
    assert (tmp_path / "samples" / "samples.jsonl").read_bytes() == (tmp_path / "alone" / "samples.jsonl").read_bytes()


@pytest.mark.slow
def test_a_refusal_is_said_once_by_several_processes(recipe, tmp_path):
    assert main(recipe()) == 0
    process, mark = start(recipe(temperature=1.0), 2)
    out, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert out.decode().count("\nerror: ") + out.decode().startswith("error: ") == 1
    assert "open_r1_vision/sample.py" not in out.decode()  # no traceback of ours
    assert not family(mark)
