# SPDX-License-Identifier: Apache-2.0
"""Two processes whose reader and judges are the live policy: both generate equally often, whatever there is to ask."""

import json
import re
from collections import Counter

import processes
import pyarrow.parquet
import pytest
from fact_chats import REQUEST, entries
from processes import run_train, write_deepspeed, write_recipe
from tiny_models import END

from open_r1_vision.trainers import CaptionGRPOTrainer

FACTS = ["a is red", "b is blue"]
#: Of rows 0 to 3 process 0 has 0 and 2, process 1 the others. In step 1 process 1 has neither captions nor facts, so
#: that it would have nothing to ask about; in step 2 process 0 has no captions, and process 1 no facts.
WITH_FACTS = (0, 2)
SILENT = ("train-1", "train-2")
LOGS = ("reasoner", "description_judge", "fact_judge")


# ---- what the processes import


def rows(split="train"):
    """Four rows, of which two have facts."""
    return [
        {**row, "visual_facts": FACTS if index in WITH_FACTS else []}
        for index, row in enumerate(processes.rows(split, 4))
    ]


class ScriptedTrainer(CaptionGRPOTrainer):
    """Generates as ever, and then puts `train-0 says 0`, … and these replies in the place of what came of it."""

    def _generate_single_turn(self, prompt_ids, *args, **kwargs):
        ids, *others = super()._generate_single_turn(prompt_ids, *args, **kwargs)
        if not self._replies:
            used = Counter()
            for place, row in enumerate(self._batch_rows):
                text = "" if row["id"] in SILENT else f"{row['id']} says {used[row['id']]}"
                used[row["id"]] += 1
                ids[place] = [*self._tokenizer(text)["input_ids"], END]
        return (ids, *others)

    _replies = False

    def generate_greedy(self, prompts, max_new_tokens):
        self._replies = True
        try:
            super().generate_greedy(prompts, max_new_tokens)
        finally:
            self._replies = False
        return [scripted_reply(chat[-1]["content"][0]["text"]) for chat in prompts]


def scripted_reply(asked):
    """Facts by the bits of the completion's number, descriptions where it is even, and always the right answer."""
    said = re.search(r"says (\d)", asked)
    number = int(said[1]) if said else 0
    if request := REQUEST.search(asked):
        count = len(request["facts"].splitlines())
        return entries(*((number >> 1, number & 1) if count == 2 else [0] * count))
    if "Does the text describe" in asked:
        return "Yes" if said and number % 2 == 0 else "No"
    return re.search(r"How many of (\d)", asked)[1]


# ---- two engines


def train(engine, model, folder):
    """The folder of a finished run of two steps, a row of four completions a step for each process."""
    (folder / "prompt.txt").write_text("Reply.")
    prompts = ("reader_prompt", "description_prompt", "fact_judge_prompt")
    rewards = "open_r1_vision.rewards"
    recipe = write_recipe(
        folder,
        model,
        trainer="test_consulting_in_step.ScriptedTrainer",
        dataset="test_consulting_in_step.rows",
        caption_section=None,
        reward_funcs=[f"{rewards}.caption_reward", f"{rewards}.visual_facts_reward"],
        reward_kwargs={f"{rewards}.caption_reward": {"no_description_penalty": 0.1}},
        **{name: {"kind": "policy", "max_tokens": 2, "log": str(folder / name)} for name in LOGS},
        **dict.fromkeys(prompts, str(folder / "prompt.txt")),
        **({"deepspeed": write_deepspeed(folder, 3)} if engine == "zero3" else {}),
        beta=0.0,
        max_steps=2,
        save_steps=2,
        log_completions=True,
    )
    outcome = run_train(recipe)
    assert outcome.code == 0, outcome.log[-5000:]
    return folder


@pytest.fixture(scope="module")
def ddp(tiny_model, tmp_path_factory):
    return train("ddp", tiny_model, tmp_path_factory.mktemp("in_step_ddp"))


@pytest.fixture(scope="module")
def zero3(tiny_model, tmp_path_factory):
    return train("zero3", tiny_model, tmp_path_factory.mktemp("in_step_zero3"))


@pytest.fixture(params=["ddp", "zero3"])
def folder(request):
    """Of each engine, which is started once even where it fails."""
    return request.getfixturevalue(request.param)


def steps(folder):
    """The log of both steps."""
    state = json.loads((folder / "run" / "checkpoint-2" / "trainer_state.json").read_text())
    return [entry for entry in state["log_history"] if "grad_norm" in entry]


def test_verdicts_of_the_live_policy(folder):
    spoken = [f"train-{row} says {number}" for row in (0, 3) for number in range(4)]
    for step, silent_first in ((1, False), (2, True)):
        path = folder / "run" / "completions" / f"completions_{step:05d}.parquet"
        table = pyarrow.parquet.read_table(path).to_pydict()
        captions = [None] * 4 + spoken[4:] if silent_first else spoken[:4] + [None] * 4
        assert table["caption"] == captions
        assert table["has_description"] == [text is not None and int(text[-1]) % 2 == 0 for text in captions]
        # a right answer, less the penalty where nothing is described
        rewards = [0.0 if text is None else (1.0, 0.9)[int(text[-1]) % 2] for text in captions]
        assert table["caption_reward"] == pytest.approx(rewards)
        stated = ["00"] * 4 if silent_first else ["00", "01", "10", "11"]
        assert table["fact_verdicts"] == stated + [""] * 4
        assert table["visual_facts_reward"][:4] == [verdicts.count("1") / 2 for verdicts in stated]
        assert all(value is None or value != value for value in table["visual_facts_reward"][4:])


def test_both_processes_ask_for_each_completion(folder):
    """Also where there is no caption, or no fact: of such a reply nothing is taken."""
    for name in LOGS:
        records = [json.loads(line) for line in (folder / name).read_text().splitlines()]
        assert Counter(record["tag"]["id"] for record in records) == {f"train-{index}": 4 for index in range(4)}, name


def test_metrics_are_of_both_processes(folder):
    first, second = steps(folder)
    for entry in (first, second):
        assert entry["captions/missing"] == 0.5
        assert entry["captions/with_description"] == 0.25
        assert entry["reader/accuracy"] == 0.5
        assert entry["judge/failure_rate"] == entry["description_judge/failure_rate"] == 0
    assert (first["judge/facts_stated"], second["judge/facts_stated"]) == (0.5, 0)


def test_both_engines_learn_the_same(ddp, zero3):
    expected, measured = ([entry["grad_norm"] for entry in steps(folder)] for folder in (ddp, zero3))
    assert measured == pytest.approx(expected, rel=1e-4)
    assert min(expected) > 0.01
