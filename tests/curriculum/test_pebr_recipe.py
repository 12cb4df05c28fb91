# SPDX-License-Identifier: Apache-2.0
"""The published recipe of PeBR-R1 from its first stage to its last, with a tiny model and a few rows on a CPU.

All its settings are those of the file, but for models, files, batch sizes, lengths and devices, and where key words
are looked for.
"""

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tiny_models import image

sys.path.append(str(Path(__file__).parents[1] / "rewards"))

from dual_encoders import save_clip

from open_r1_vision import sample
from open_r1_vision.curriculum import __main__ as command
from open_r1_vision.curriculum import read_curriculum
from open_r1_vision.sampling.seeded import TransformersSampler

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "qwen2_5_vl_7b" / "pebr_r1.yaml"
REPLY = (
    "### Image Description: {color} square\n### Rationales: count\n### Let's think step by step.\n### Step 1: look\n"
    "### The final answer is: {answer}"
)
REWARDS = ["clip_reward", "key_words_reward", "sections_format_reward", "length_reward", "accuracy_reward"]
#: Six rows are always answered, four now and then, two never; there must be enough for one sampling of each stage.
RIGHT = {
    **{f"easy-{i}": 8 for i in range(6)},
    **{f"medium-{i}": 1 + 2 * i for i in range(4)},
    "hard-0": 0,
    "hard-1": 0,
}
MACHINE = {"bf16": False, "dtype": "float32", "attn_implementation": "sdpa", "deepspeed": None}
#: 1 question an update in place of 112 and 128, so that 5 and 4 of them are sampled at once, as the recipe has it.
SIZES = {
    "warm_up": {},
    "difficulty": {"max_completion_length": 12, "backend": "transformers", "rows_per_batch": 4},
    "splits": {},
    "perceive": {
        "max_completion_length": 12,
        "prompts_per_step": 1,
        "use_vllm": False,
        "vllm_enable_sleep_mode": False,
    },
    "reason": {"max_completion_length": 12, "prompts_per_step": 1, "use_vllm": False, "vllm_enable_sleep_mode": False},
}


def write_downloads(folder):
    """Mulberry-SFT, the lessons of PeBR-R1 and its questions, in their published layouts."""
    for place in ("mulberry/mulberry_images", "pebr_r1/sft/images", "pebr_r1/grpo/pebr_grpo_images"):
        (folder / place).mkdir(parents=True)
        for index in range(12):
            image(index).save(folder / place / f"{index}.png")

    def lessons(count, place):
        turns = [("user", "<image>\nHow many?"), ("assistant", REPLY.format(color="red", answer="7"))]
        messages = [{"role": role, "content": text} for role, text in turns]
        return [{"messages": messages, "images": [f"{place}/{index}.png"]} for index in range(count)]

    rethinking = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "Let me rethink it."}]
    questions = [
        {
            "qid": row_id,
            "problem": "<image>How many squares?",
            "answer": "7",
            "images": [f"pebr_grpo_images/{index}.png"],
            "key_words": ["square", *"abcdefghijkl"],
        }
        for index, row_id in enumerate(RIGHT)
    ]
    for path, records in {
        "mulberry/mulberry_sft.json": [*lessons(12, "mulberry_images"), {"messages": rethinking, "images": []}],
        "pebr_r1/sft/pebr_sft.json": lessons(4, "images"),
        "pebr_r1/grpo/pebr_grpo_dataset.json": questions,
    }.items():
        (folder / path).write_text(json.dumps(records))


def shrunken(folder, model, encoder):
    """The recipe with a tiny model, and what a CPU can do, in place of its own; everything else is the file's."""
    plain = yaml.safe_load(RECIPE.read_text().replace(" data/", f" {folder}/"))
    plain["output_dir"], plain["processes"] = str(folder / "runs"), 1
    plain["shared"].update(MACHINE)
    for stage in plain["stages"]:
        stage.pop("processes", None)
        settings = stage["settings"] = {**stage["settings"], **SIZES[stage["name"]]}
        if stage["name"] == "warm_up":
            settings["model_name_or_path"] = model
        if stage["name"] == "perceive":
            clip = settings["reward_kwargs"]["open_r1_vision.rewards.clip_reward"]
            clip.update(encoder=encoder, device="cpu")
            # random completions describe nothing, but name a letter now and then, which makes them differ
            settings["reward_kwargs"]["open_r1_vision.rewards.key_words_reward"].update(where="response")
    path = folder / "curriculum.yaml"
    path.write_text(yaml.safe_dump(plain))
    return path


class Scripted(TransformersSampler):
    """Draws as always; then says what makes a row as easy as it is called."""

    def start(self, prompts, wanted):
        finish = super().start(prompts, wanted)
        return lambda: [replace(draw, completion=self.text(draw)) for draw in finish()]

    @staticmethod
    def text(draw):
        return REPLY.format(color="red", answer="7" if draw.sample < RIGHT[draw.id] else "8")


def start_here(words, *_):
    """A stage in this process: starting python five times would take longer than all stages."""
    module = importlib.import_module(words[words.index("-m", 3) + 1])
    result = module.main(["--config", words[-1]])
    return result if isinstance(result, int) else 0


def results(folder, stage):
    return json.loads((folder / "runs" / stage / "results.json").read_text())


def final_weights(folder, stage):
    return load_file(folder / "runs" / stage / "final" / "model.safetensors")


def parts_that_differ(before, after):
    return {
        "vision" if ".visual." in f".{name}" else "language"
        for name in before
        if not torch.equal(before[name], after[name])
    }


@pytest.mark.parametrize("size", ["3b", "7b"])
def test_a_dry_run_says_what_is_missing(size, monkeypatch, tmp_path, capsys):
    """Both downloads of the warm-up and that of the questions, where the recipe has them."""
    monkeypatch.chdir(tmp_path)
    recipe = ROOT / "recipes" / f"qwen2_5_vl_{size}" / "pebr_r1.yaml"
    assert command.main(["--config", str(recipe), "--dry_run"]) == 2
    out = capsys.readouterr().out
    for path in ("mulberry/mulberry_sft.json", "pebr_r1/sft/pebr_sft.json", "pebr_r1/grpo/pebr_grpo_dataset.json"):
        assert f"There is no file 'data/{path}'" in out
    assert not (tmp_path / "runs").exists()


def test_from_the_first_stage_to_the_last(tiny_model, tmp_path, monkeypatch, capsys):
    write_downloads(tmp_path)
    config = shrunken(tmp_path, tiny_model, save_clip(tmp_path / "clip"))
    assert command.main(["--config", str(config), "--dry_run"]) == 0, capsys.readouterr().out
    monkeypatch.setattr(command, "run_stage", start_here)
    monkeypatch.setattr(
        sample, "make_sampler", lambda options, model, processor, _: Scripted(options, model, processor)
    )
    assert command.main(["--config", str(config)]) == 0, capsys.readouterr().out

    # 16 lessons are one batch of 4 x 4; the one that rethinks is dropped
    assert results(tmp_path, "warm_up")["steps"] == 2
    base = load_file(Path(tiny_model) / "model.safetensors")
    assert parts_that_differ(base, final_weights(tmp_path, "warm_up")) == {"language"}
    splits = json.loads((tmp_path / "runs" / "splits" / "splits.json").read_text())["splits"]
    assert {name: len(ids) for name, ids in splits.items()} == {"easy": 6, "medium": 4, "hard": 2, "incomplete": 0}
    # the sixth easy row is not enough for another sampling of 5
    perceive, reason = results(tmp_path, "perceive"), results(tmp_path, "reason")
    assert (perceive["steps"], reason["steps"]) == (5, 8)
    assert {f"rewards/{name}/mean" for name in REWARDS} <= set(perceive["last_step"])
    assert "kl" in perceive["last_step"] and "kl" in reason["last_step"]
    # RL trains the vision tower too
    states = [final_weights(tmp_path, stage) for stage in ("warm_up", "perceive", "reason")]
    assert parts_that_differ(states[0], states[1]) == {"vision", "language"}
    # random completions are never right, so that the last stage leaves its model, and reference, as they came
    assert parts_that_differ(states[1], states[2]) == set()
    assert reason["last_step"]["reward"] == reason["last_step"]["kl"] == 0
    for stage in read_curriculum(config).stages:
        assert command.CurriculumState(read_curriculum(config)).of(stage) == "finished"
