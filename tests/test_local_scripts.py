# SPDX-License-Identifier: Apache-2.0
"""The shell scripts start what they say: their commands are recorded, and read as the programs would read them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_eval_scripts import load

from open_r1_vision.arguments import ScriptArguments, find_unknown_keys, read_recipe
from open_r1_vision.importing import import_callable

ROOT = Path(__file__).parents[1]
REPRODUCE = sorted((ROOT / "local_scripts").glob("reproduce_*.sh"))
_RECORD = f"""#!{sys.executable}
import json, sys
with open({{log!r}}, "a") as file:
    file.write(json.dumps(sys.argv) + "\\n")
"""


def record(script, folder, *words):
    """The commands that a script starts, program first."""
    log = folder / "commands.jsonl"
    for name in ("torchrun", "python"):
        (folder / name).write_text(_RECORD.format(log=str(log)), encoding="utf-8")
        (folder / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    subprocess.run(["bash", str(script), *words], cwd=ROOT, env=environment, check=True, timeout=60)
    commands = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return [[Path(program).name, *rest] for program, *rest in commands]


def module_of(command):
    """The module of a command and what it gets."""
    start = command.index("-m")
    return command[start + 1], command[start + 2 :]


def is_made_by_earlier_commands(words):
    return words[words.index("--config") + 1].startswith("runs/")


@pytest.mark.parametrize("script", REPRODUCE, ids=lambda path: path.stem)
def test_reproduce(script, tmp_path):
    """All keys of all commands are known, runs have folders of their own, and what is compared has been run."""
    from trl import ModelConfig

    made, compared = set(), set()
    for command in record(script, tmp_path):
        if command[0] == "python" and command[1].startswith("eval/"):
            assert hasattr(load(Path(command[1]).stem), "main")
            compared |= {word for word in command[2:] if word.startswith("runs/")}
            continue
        module, words = module_of(command)
        made.add(words[words.index("--output_dir") + 1])
        if module == "open_r1_vision.split" or is_made_by_earlier_commands(words):
            continue
        recipe = read_recipe(words)
        if module == "open_r1_vision.train":
            trainer = import_callable(recipe.as_plain().get("trainer", ScriptArguments.trainer))
            assert not find_unknown_keys(recipe, [ScriptArguments, trainer.config_class, ModelConfig])
        else:
            assert module in ("open_r1_vision.sft", "open_r1_vision.curriculum", "open_r1_vision.sample")
    assert made
    # a stage's or a model's folder lies within its run's
    unknown = {path for path in compared if not any(path == run or path.startswith(f"{run}/") for run in made)}
    assert not unknown


@pytest.mark.parametrize(
    ("script", "processes", "zero"),
    [("train_1_gpu.sh", 1, "zero2.json"), ("train_4_gpus.sh", 4, "zero3.json"), ("train_8_gpus.sh", 8, "zero3.json")],
)
def test_launchers(script, processes, zero, tmp_path):
    recipe = "recipes/qwen2_5_vl_3b/visionary_r1.yaml"
    (command,) = record(ROOT / "local_scripts" / script, tmp_path, recipe, "--seed", "7")
    assert command[:3] == ["torchrun", "--standalone", f"--nproc_per_node={processes}"]
    module, words = module_of(command)
    assert (module, words[:2], words[-2:]) == ("open_r1_vision.train", ["--config", recipe], ["--seed", "7"])
    deepspeed = Path(words[words.index("--deepspeed") + 1])
    assert (deepspeed.name, (ROOT / deepspeed).is_file()) == (zero, True)
