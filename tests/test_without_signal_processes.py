# SPDX-License-Identifier: Apache-2.0
"""Two processes, one of them without any signal, under DDP and ZeRO-3, against processes that leave nothing out."""

import json

import pytest
from processes import checksum, run_train, write_deepspeed, write_recipe

from open_r1_vision.rewards.answers import completion_text
from open_r1_vision.trainers import VisionGRPOTrainer

NAMES = ("grad_norm", "reward", "completions/mean_length")


# ---- what the processes import


def reward(completions, problem, id, **columns):
    """Process 0 has a signal in step 1 alone, process 1 in steps 1 and 2, and step 3 has none."""
    texts = [completion_text(completion) for completion in completions]
    silent = ("train-2", "train-4", "train-5")
    return [
        0.25 if row in silent else checksum(text, question)
        for text, question, row in zip(texts, problem, id, strict=True)
    ]


class CountingTrainer(VisionGRPOTrainer):
    """Notes how many tokens the decoder of this process sees in each update."""

    def _compute_loss(self, model, inputs):
        seen = []

        def note(module, args, kwargs):
            given = kwargs["input_ids"] if kwargs.get("inputs_embeds") is None else kwargs["inputs_embeds"]
            seen.append(given.shape[0] * given.shape[1])

        hook = self.model.get_decoder().register_forward_pre_hook(note, with_kwargs=True)
        try:
            loss = super()._compute_loss(model, inputs)
        finally:
            hook.remove()
        with open(f"{self.args.output_dir}/seen-{self.args.process_index}.jsonl", "a") as file:
            file.write(json.dumps(seen) + "\n")
        return loss


# ---- runs


def steps(folder, model, engine, **settings):
    """Logs of three steps with one group of 4 for each process, and the tokens that each process' decoder saw.

    Of process 0's rows 0, 2 and 4 the last has no image, of process 1's the first.
    """
    if engine == "zero3":
        folder.mkdir(parents=True, exist_ok=True)
        settings["deepspeed"] = write_deepspeed(folder, 3)
    recipe = write_recipe(
        folder,
        model,
        trainer="test_without_signal_processes.CountingTrainer",
        reward_funcs=["test_without_signal_processes.reward"],
        dataset_options={"count": 6, "texts": [1, 4]},
        beta=0.0,
        max_steps=3,
        save_steps=3,
        weight_decay=0.1,
        adam_epsilon=1.0e-3,
        **settings,
    )
    outcome = run_train(recipe, timeout=400)
    assert outcome.code == 0, outcome.log[-5000:]
    state = json.loads((folder / "run" / "checkpoint-3" / "trainer_state.json").read_text())
    seen = [
        [json.loads(line) for line in (folder / "run" / f"seen-{rank}.jsonl").read_text().splitlines()]
        for rank in range(2)
    ]
    return [entry for entry in state["log_history"] if "grad_norm" in entry], seen, folder / "run" / "final"


def load(folder):
    import transformers

    return transformers.AutoModelForImageTextToText.from_pretrained(folder).state_dict()


@pytest.mark.parametrize("engine", ["ddp", "zero3"])
def test_both_ways_agree(tiny_model, tmp_path, engine):
    import torch

    skipped, seen, final = steps(tmp_path / "skipped", tiny_model, engine, skip_without_signal=True)
    whole, everything, expected_final = steps(tmp_path / "whole", tiny_model, engine, skip_without_signal=False)
    assert len(skipped) == len(whole) == 3
    for measured, wanted in zip(skipped, whole, strict=True):
        assert [measured[name] for name in NAMES] == pytest.approx(
            [wanted[name] for name in NAMES], rel=2e-4, abs=1e-7
        )
    assert [entry["update/rows_skipped"] for entry in skipped] == [0, 0.5, 1]
    assert [entry["grad_norm"] > 0.01 for entry in skipped] == [True, True, False]
    # each process makes one pass a step, with two tokens where it has no signal
    assert [[len(passes) for passes in of_one] for of_one in seen] == [[1, 1, 1]] * 2
    assert [[passes[0] == 2 for passes in of_one] for of_one in seen] == [[False, True, True], [False, False, True]]
    assert min(passes[0] for of_one in everything for passes in of_one) > 20
    weights, expected = load(final), load(expected_final)
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-4, atol=2e-6)
