# SPDX-License-Identifier: Apache-2.0
"""A reader, a judge of facts and a judge of descriptions at once; several readings; captions that begin in a hint."""

import functools
import threading

import pytest
from consulted import DESCRIPTION, FACTS, building, judge_block, number_reward, response, scripted
from fact_chats import REQUEST, entries
from hinting import PROMPT_END
from scripted_server import ScriptedServer, asked, fault, reply
from tiny_models import END, build_tokenizer, rows, step_logs

from open_r1_vision.rewards import caption_reward, visual_facts_reward
from open_r1_vision.trainers import (
    CaptionGRPOConfig,
    CaptionGRPOTrainer,
    HintCaptionGRPOConfig,
    HintCaptionGRPOTrainer,
    VisionGRPOTrainer,
)


@pytest.fixture
def build(tiny_model, tmp_path):
    with building(tiny_model, tmp_path) as make:
        yield make


# ---- several consultations


def three_way(lost):
    """One server that reads, judges facts and judges descriptions; `lost` has (who, response) that fail."""

    def script(body, number):
        text = asked(body)
        if REQUEST.search(text):
            who, said = "facts", response(body)
        elif DESCRIPTION.search(text):
            who, said = "description", DESCRIPTION.search(text)[1]
        else:
            who, said = "reader", text.partition("<info> ")[2].removesuffix("</info>")
        if (who, said) in lost:
            return fault(404)
        # readers are right about even completions; only the first of a group describes
        number = int(said[-1])
        answers = {"facts": entries(*[number % 2] * 2), "description": "Yes" if number == 0 else "No"}
        return reply(answers.get(who, "7" if number % 2 == 0 else "8"))

    return script


def consult_all(build, server, facts_policy="group_mean", **settings):
    dataset = rows(0, 0).add_column("visual_facts", [FACTS[0], FACTS[0]])
    rewards = [number_reward, functools.partial(caption_reward, no_description_penalty=0.25), visual_facts_reward]
    return build(
        scripted(CaptionGRPOTrainer),
        CaptionGRPOConfig,
        rewards,
        dataset,
        caption_section=None,
        reasoner=judge_block(server),
        description_judge=judge_block(server),
        fact_judge=judge_block(server, on_failure=facts_policy),
        **settings,
    )


def test_failures_of_three_consultations_stay_apart(build):
    """Rewards of a caption are 1, 0, 0.75, 0 by hand; completion 2 does not describe."""
    lost = {("reader", "row-0 says 0"), ("description", "row-0 says 1"), ("facts", "row-1 says 3")}
    with ScriptedServer(three_way(lost)) as server:
        trainer = consult_all(build, server)
        trainer.train()
    table = trainer.tables[0]
    captions = {row_id: [values[1] for values in of_row] for row_id, of_row in table.items()}
    facts = {row_id: [values[2] for values in of_row] for row_id, of_row in table.items()}
    # both that failed get the mean of the two that have all their verdicts: (0.75 + 0) / 2
    assert captions == {"row-0": [0.375, 0.375, 0.75, 0], "row-1": [1, 0, 0.75, 0]}
    assert facts == {"row-0": [0, 1, 0, 1], "row-1": [0, 1, 0, pytest.approx(1 / 3)]}
    assert [values[0] for values in table["row-0"]] == [0, 1, 2, 3]
    names = [f"{name}/failure_rate" for name in ("reader", "description_judge", "judge")]
    assert step_logs(trainer, *names)[0] == (0.125, 0.125, 0.125)
    # of the seven that were judged two describe, less the one that failed: both zeros, of 7
    assert step_logs(trainer, "captions/with_description")[0] == (pytest.approx(2 / 7),)


def test_a_group_that_one_consultation_drops_stays_dropped(build):
    """The facts are judged before captions are read; the reader's policy must not put a reward back."""
    lost = {("facts", "row-0 says 0"), ("reader", "row-0 says 1")}
    with ScriptedServer(three_way(lost)) as server:
        trainer = consult_all(build, server, facts_policy="drop_group")
        trainer.train()
    assert trainer.tables[0]["row-0"] == [[None] * 3] * 4
    assert [values[1] for values in trainer.tables[0]["row-1"]] == [1, 0, 0.75, 0]


def test_a_failure_in_a_row_without_gold_is_not_scored(build):
    """Its group has no caption rewards: a mean of other groups would be an advantage."""
    rewards = [number_reward, caption_reward]
    dataset = rows(0, 0)
    golds = [None, "7"]
    dataset = dataset.map(lambda row, index: {"solution": golds[index]}, with_indices=True, features=dataset.features)
    settings = {"caption_section": None}
    with ScriptedServer(three_way({("reader", "row-0 says 0")})) as server:
        reasoner = judge_block(server)
        trainer = build(
            scripted(CaptionGRPOTrainer), CaptionGRPOConfig, rewards, dataset, reasoner=reasoner, **settings
        )
        trainer.train()
    assert trainer.tables[0] == {
        "row-0": [[0, None], [1, None], [2, None], [3, None]],
        "row-1": [[0, 1], [1, 0], [2, 1], [3, 0]],
    }


# ---- several readings of a caption


def test_two_answers_to_a_caption(build):
    """The reward is the mean of those that came; a caption fails when none came."""
    replies = {"row-0 says 0": ["7", "7"], "row-0 says 1": ["7", "8"], "row-0 says 2": [404, "8"]}
    counts, lock = {}, threading.Lock()

    def script(body, number):
        said = asked(body).partition("<info> ")[2].removesuffix("</info>")
        with lock:
            counts[said] = counts.get(said, -1) + 1
        answer = replies.get(said, [404, 404])[counts[said]]
        return fault(answer) if isinstance(answer, int) else reply(answer)

    seen = []

    def spy(completions, caption_answer, **columns):
        seen.extend(caption_answer)
        return [0.0] * len(completions)

    with ScriptedServer(script) as server:
        reasoner = judge_block(server, n=2, temperature=1.0)
        trainer = build(
            scripted(CaptionGRPOTrainer),
            CaptionGRPOConfig,
            [caption_reward, spy],
            rows(0),
            caption_section=None,
            reasoner=reasoner,
        )
        trainer.train()
    assert [sorted(answer) if isinstance(answer, list) else answer for answer in seen] == [
        ["7", "7"],
        ["7", "8"],
        "8",
        None,
    ]
    assert [value for value, _ in trainer.tables[0]["row-0"]] == [1, 0.5, 0, 0.5]
    assert step_logs(trainer, "reader/failure_rate", "reader/accuracy")[0] == (0.25, 0.5)


# ---- hints


def test_captions_begin_in_hints_and_facts_do_not(monkeypatch, build):
    """A hint states a fact and begins the caption: the reader sees it, the judge of facts does not."""
    tokenizer = build_tokenizer()

    def sampled(self, prompt_ids, *args, **kwargs):
        starts = [tokenizer.decode(ids).split(PROMPT_END)[1] for ids in prompt_ids]
        texts = [" and b is blue</info><answer>7</answer>" if start else "nothing" for start in starts]
        return [[*tokenizer(text)["input_ids"], END] for text in texts], None

    monkeypatch.setattr(VisionGRPOTrainer, "_generate_single_turn", sampled)
    judged, read = [], []

    def script(body, number):
        if REQUEST.search(asked(body)):
            judged.append(response(body))
            return reply(entries(0, 1))
        read.append(asked(body).partition("\n")[2])
        return reply("7")

    dataset = rows(0).add_column("reasoning_steps", [["a is red", "x", "y"]]).add_column("visual_facts", FACTS[:1])
    with ScriptedServer(script) as server:
        trainer = build(
            HintCaptionGRPOTrainer,
            HintCaptionGRPOConfig,
            [caption_reward, visual_facts_reward],
            dataset,
            per_device_train_batch_size=2,
            num_generations=2,
            hint_template="<info>{hint}",
            reasoner=judge_block(server),
            fact_judge=judge_block(server),
        )
        trainer.train()
    # equal questions are asked once
    assert judged == [" and b is blue</info><answer>7</answer>"]
    assert read == ["<info> a is red and b is blue</info>"]
    log = trainer.state.log_history[0]
    assert (log["rewards/caption_reward/mean"], log["rewards/visual_facts_reward/mean"]) == (1, 0.5)
    assert log["hints/level_1"] == 1
