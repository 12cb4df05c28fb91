# SPDX-License-Identifier: Apache-2.0
"""Two processes under torchrun: DDP, DeepSpeed ZeRO-2 and ZeRO-3, sudden death, captions across processes."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet
import pytest
import torch
from processes import EchoReader, checksum, evaluate_parts, rows, run_train, write_deepspeed, write_recipe
from safetensors.torch import load_file

from open_r1_vision.data.rows import add_prompts, rows_from_list
from open_r1_vision.generation import GreedyGenerator
from open_r1_vision.held_out import evaluate, read_evaluations
from open_r1_vision.trainers.callbacks import RequireDeepSpeedCallback

#: Two rows a step, one for each process. Step 4 gives process 1 no image, step 5 gives process 0 none.
STEPS = 5
TEXT_ROWS = [7, 8]
ENGINES = ("ddp", "zero2", "zero3")


def prepare(folder, model, engine, **settings):
    """A recipe for an engine."""
    folder.mkdir(parents=True, exist_ok=True)
    if engine != "ddp":
        settings["deepspeed"] = write_deepspeed(folder, int(engine[-1]))
    rows = {"dataset_options": {"count": 2 * STEPS, "texts": TEXT_ROWS}}
    return write_recipe(folder, model, **{"max_steps": STEPS, **rows, **settings})


def steps(folder, *names):
    """The log of a finished run, one tuple for each step."""
    state = json.loads((folder / "run" / f"checkpoint-{STEPS}" / "trainer_state.json").read_text())
    return [tuple(entry[name] for name in names) for entry in state["log_history"] if "grad_norm" in entry]


def notes(folder, rank):
    """What a process noted."""
    return [json.loads(line) for line in (folder / "run" / f"notes-{rank}.jsonl").read_text().splitlines()]


def weights(folder):
    return load_file(folder / "run" / "final" / "model.safetensors")


def succeed(outcome):
    assert outcome.code == 0, outcome.log[-5000:]
    return outcome


@pytest.fixture(scope="module")
def straight(tiny_model, tmp_path_factory):
    """`straight(engine)` is the folder of an uninterrupted run."""
    folders = {}

    def get(engine):
        if engine not in folders:
            folders[engine] = tmp_path_factory.mktemp(engine)
            succeed(run_train(prepare(folders[engine], tiny_model, engine)))
        return folders[engine]

    return get


@pytest.mark.parametrize("engine", ENGINES)
def test_engines_are_real(straight, engine):
    folder = straight(engine)
    wrapped, optimizer = {
        "ddp": ("DistributedDataParallel", "NoneType"),
        "zero2": ("DeepSpeedEngine", "DeepSpeedZeroOptimizer"),
        "zero3": ("DeepSpeedEngine", "DeepSpeedZeroOptimizer_Stage3"),
    }[engine]
    noted = [notes(folder, rank) for rank in (0, 1)]
    assert [len(lines) for lines in noted] == [STEPS, STEPS]
    for line in noted[0] + noted[1]:
        assert (line["engine"], line["optimizer"]) == (wrapped, optimizer)
    held, whole, optimized = ([lines[0][name] for lines in noted] for name in ("held", "whole", "optimized"))
    if engine == "ddp":
        assert held == whole
    elif engine == "zero2":
        assert held == whole
        assert optimized[0] == optimized[1] == pytest.approx(whole[0] / 2, rel=0.001)
    else:
        # a tensor that can't be halved evenly is filled up
        assert held[0] == held[1] == pytest.approx(whole[0] / 2, rel=0.001)


def test_engines_agree(straight):
    """Also where a process has no image in its batch, in the last two steps."""
    for rank in (0, 1):
        assert [line["ids"] for line in notes(straight("ddp"), rank)] == [
            [f"train-{2 * step + rank}"] * 4 for step in range(STEPS)
        ]
    assert [line["images"] for line in notes(straight("ddp"), 0)] == [4, 4, 4, 4, 0]
    assert [line["images"] for line in notes(straight("ddp"), 1)] == [4, 4, 4, 0, 4]
    expected = steps(straight("ddp"), "grad_norm", "reward", "kl")
    assert len(expected) == STEPS
    assert min(grad_norm for grad_norm, _, _ in expected) > 0.1
    for engine in ("zero2", "zero3"):
        for measured, wanted in zip(steps(straight(engine), "grad_norm", "reward", "kl"), expected, strict=True):
            assert measured == pytest.approx(wanted, rel=1e-4), engine


@pytest.mark.parametrize("engine", ENGINES)
def test_weights_keep_their_names(straight, tiny_model, engine):
    before, after = load_file(Path(tiny_model) / "model.safetensors"), weights(straight(engine))
    assert after.keys() == before.keys()
    assert {name: value.shape for name, value in after.items()} == {
        name: value.shape for name, value in before.items()
    }
    for name, value in weights(straight("ddp")).items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=1e-4)


@pytest.mark.parametrize("engine", ["ddp", "zero3"])
def test_killed_twice_and_started_again(straight, tiny_model, tmp_path, engine):
    recipe = prepare(tmp_path, tiny_model, engine)
    in_a_step, while_saving = tmp_path / "in_a_step", tmp_path / "while_saving"
    # process 1 dies in step 3, when the last checkpoint is that of step 2
    first = run_train(recipe, DIE="1 step 3", DIED=str(in_a_step))
    assert first.code != 0
    assert in_a_step.exists(), first.log[-5000:]
    assert not (tmp_path / "run" / "final").exists()
    # under DDP process 0 alone saves the optimizer's state, under ZeRO-3 each process its part
    rank = 0 if engine == "ddp" else 1
    second = run_train(recipe, DIE=f"{rank} save 4", DIED=str(while_saving))
    assert second.code != 0
    assert while_saving.exists(), second.log[-5000:]
    assert f"Resuming from {tmp_path}/run/checkpoint-2." in second.log
    assert (tmp_path / "run" / "checkpoint-4").is_dir()
    third = succeed(run_train(recipe))
    message = f"Skipping the torn checkpoint {tmp_path}/run/checkpoint-4: the run ended while it was being saved."
    assert third.log.count(message) == 1
    assert f"Resuming from {tmp_path}/run/checkpoint-3." in third.log
    names = ("step", "loss", "grad_norm", "reward", "kl")
    assert steps(tmp_path, *names) == steps(straight(engine), *names)
    expected = weights(straight(engine))
    for name, value in weights(tmp_path).items():
        assert torch.equal(value, expected[name]), name


@pytest.fixture(scope="module")
def captions(tiny_model, tmp_path_factory):
    """Folder of a run with 3 prompts of 2 completions a step, so that the second prompt's are on both processes."""
    folder = tmp_path_factory.mktemp("captions")
    recipe = write_recipe(
        folder,
        tiny_model,
        trainer="processes.CaptioningTrainer",
        dataset_options={"count": 6, "texts": [4]},
        eval_dataset="processes.rows",
        eval_dataset_options={"count": 5, "texts": [2]},
        reward_funcs=["processes.text_reward", "processes.answer_reward"],
        reward_weights=[1.0, 0.5],
        num_generations=2,
        prompts_per_step=3,
        max_steps=2,
        log_completions=True,
        save_strategy="no",
    )
    succeed(run_train(recipe))
    return folder / "run"


def test_rewards_belong_to_their_completions(captions):
    for step in (1, 2):
        table = pyarrow.parquet.read_table(captions / "completions" / f"completions_{step:05d}.parquet").to_pydict()
        problems = [prompt[-1]["content"][-1]["text"] for prompt in table["prompt"]]
        start = 3 * (step - 1)
        expected = [problem for row in rows(count=6)[start : start + 3] for problem in [row["problem"]] * 2]
        assert problems == expected
        texts = [completion[-1]["content"] for completion in table["completion"]]
        found = [re.match("<info>(.*?)</info>", text) for text in texts]
        texts_of_captions = [match and match[1] for match in found]
        assert 0 < texts_of_captions.count(None) < 6
        assert table["caption"] == texts_of_captions
        assert table["caption_answer"] == texts_of_captions
        assert table["reader_reply"] == [
            f"{caption} for {problem}" if caption else ""
            for caption, problem in zip(texts_of_captions, problems, strict=True)
        ]
        rewards = [checksum(text, problem) for text, problem in zip(texts, problems, strict=True)]
        readings = [checksum(caption, "") if caption else 0.0 for caption in texts_of_captions]
        assert table["text_reward"] == pytest.approx(rewards)
        assert table["answer_reward"] == pytest.approx(readings)
        sums = [reward + 0.5 * reading for reward, reading in zip(rewards, readings, strict=True)]
        # two numbers are each |a - b| / sqrt(2) of a standard deviation from their mean, on opposite sides
        for index in (0, 2, 4):
            half = (sums[index] - sums[index + 1]) / 2
            advantage = half / (abs(half) * 2**0.5 + 1e-4)
            assert table["advantage"][index : index + 2] == pytest.approx([advantage, -advantage], abs=1e-4)


def test_held_out_rows_come_in_order_and_once(captions):
    expected = evaluate_parts(add_prompts(rows_from_list(rows(count=6))))
    for rank in (0, 1):
        assert json.loads((captions / f"evaluated-{rank}.json").read_text()) == expected
    assert [row_id for row_id, _ in expected["5 rows, 2 at a time"]] == [f"train-{index}" for index in range(5)]


def test_held_out_evaluation_is_that_of_one_process(captions, tiny_model):
    evaluations = read_evaluations(captions)
    assert list(evaluations) == [0, 2]
    for step, model in ((0, tiny_model), (2, str(captions / "final"))):
        held_out = add_prompts(rows_from_list(rows("test", 5, [2])))
        generate = GreedyGenerator(model)
        assert evaluations[step] == evaluate(generate, held_out, reader=EchoReader(), max_new_tokens=6)


@pytest.fixture(scope="module")
def hinted(tiny_model, tmp_path_factory):
    """`hinted(engine)`: folder of a run with 3 groups of 4 completions a step, the second on both processes."""
    folders = {}

    def get(engine):
        if engine not in folders:
            folder = tmp_path_factory.mktemp(f"hints_{engine}")
            recipe = prepare(
                folder,
                tiny_model,
                engine,
                trainer="open_r1_vision.trainers.HintGRPOTrainer",
                hint_gate="processes.level_gate",
                dataset="processes.hinted_rows",
                dataset_options={"texts": [1, 3]},
                prompts_per_step=3,
                max_completions_per_device=6,
                max_steps=2,
                log_completions=True,
            )
            succeed(run_train(recipe))
            folders[engine] = folder / "run"
        return folders[engine]

    return get


def log_of(run):
    return json.loads((run / "checkpoint-2" / "trainer_state.json").read_text())["log_history"][:2]


@pytest.mark.parametrize("engine", ["ddp", "zero3"])
def test_hints_across_processes(hinted, engine):
    """In step 1 process 0 has a share in one group that is sampled again, process 1 in two; in step 2 it is (1, 1)."""
    levels = {1: [0] * 4 + [1] * 4 + [2] * 4, 2: [0] * 4 + [0] * 4 + [1] * 4}
    starts = {0: "", 1: "<think>1.", 2: "<think>1. 2."}
    run = hinted(engine)
    for step, entry in enumerate(log_of(run), start=1):
        table = pyarrow.parquet.read_table(run / "completions" / f"completions_{step:05d}.parquet").to_pydict()
        assert table["hint_level"] == levels[step]
        assert table["hint"] == [starts[level] for level in levels[step]]
        texts = [completion[-1]["content"] for completion in table["completion"]]
        problems = [prompt[-1]["content"][-1]["text"] for prompt in table["prompt"]]
        # rewards see what was generated, not the hint
        rewards = [checksum(text, problem) for text, problem in zip(texts, problems, strict=True)]
        assert table["text_reward"] == pytest.approx(rewards)
        assert not any(text.startswith("<think>1.") for text in texts)
        # the baseline is that of four completions of one level
        for index in range(0, 12, 4):
            group = torch.tensor(rewards[index : index + 4])
            advantages = (group - group.mean()) / (group.std() + 1e-4)
            assert table["advantage"][index : index + 4] == pytest.approx(advantages.tolist(), abs=1e-3)
        assert entry["hints/unsolved"] == pytest.approx([0, 2 / 3][step - 1])
        assert entry["hints/level_0_only"] == pytest.approx([0, 1 / 3][step - 1])
        assert entry["completions/max_length"] <= 6


def test_hints_under_both_engines_agree(hinted):
    names = ("grad_norm", "reward", "kl", "completions/mean_length")
    expected = [[entry[name] for name in names] for entry in log_of(hinted("ddp"))]
    measured = [[entry[name] for name in names] for entry in log_of(hinted("zero3"))]
    for values, wanted in zip(measured, expected, strict=True):
        assert values == pytest.approx(wanted, rel=1e-4, abs=1e-7)
    assert min(grad_norm for grad_norm, *_ in expected) > 0.01


@pytest.mark.slow
def test_what_needs_no_step_ends_cleanly(captions, tiny_model, tmp_path):
    """A finished run, and one that is refused: each says so once, and neither waits for anybody."""
    again = succeed(run_train(captions.parent / "recipe.yaml", timeout=60))
    assert again.log.count("already finished; --overwrite_output true trains it again") == 1
    refused = run_train(write_recipe(tmp_path, tiny_model, max_prompt_tokens=5), timeout=60)
    assert refused.code != 0
    assert refused.log.count("error: 10 of the 10 rows that were checked can't be trained on") == 1
    assert "open_r1_vision/train.py" not in refused.log  # no traceback of ours


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ddp", "zero3"])
def test_an_error_in_one_process_ends_both(tiny_model, tmp_path, engine):
    settings = {"reward_funcs": ["processes.reward_with_an_enemy"], "max_steps": 1}
    outcome = run_train(prepare(tmp_path, tiny_model, engine, **settings), timeout=90)
    assert outcome.code != 0
    assert (
        "The reward 'reward_with_an_enemy' raised RuntimeError for the rows with id 'train-1': not me" in outcome.log
    )


def test_another_wrapping_than_deepspeeds_is_refused():
    model = torch.nn.Linear(1, 1)
    callback = RequireDeepSpeedCallback(SimpleNamespace(model_wrapped=model))
    with pytest.raises(RuntimeError, match="`deepspeed` is set, but the model runs as Linear: nothing would"):
        callback.on_train_begin(None, None, None)
    engine = type("DeepSpeedEngine", (torch.nn.Linear,), {})(1, 1)
    RequireDeepSpeedCallback(SimpleNamespace(model_wrapped=engine)).on_train_begin(None, None, None)
