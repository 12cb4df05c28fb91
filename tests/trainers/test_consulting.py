# SPDX-License-Identifier: Apache-2.0
"""A judge of facts behind a scripted server: verdicts, failures, and when questions are asked."""

import functools
import json
import time

import pandas as pd
import pytest
import torch
from consulted import FACTS, ROW_0, ROW_1, building, facts_trainer, judge_block, response, scripted, verdicts_by
from fact_chats import REQUEST, entries
from scripted_server import ScriptedServer, asked, reply, wait_until
from tiny_models import rows, step_logs

from open_r1_vision.reasoners import ReasonerConfig, TooManyFailures
from open_r1_vision.rewards import visual_facts_reward
from open_r1_vision.trainers import VisionGRPOConfig, VisionGRPOTrainer
from open_r1_vision.trainers.consulting import Verdicts, reads_column


@pytest.fixture
def build(tiny_model, tmp_path):
    with building(tiny_model, tmp_path) as make:
        yield make


# ---- verdicts and their failures


def test_verdicts_become_rewards(build, tmp_path):
    with ScriptedServer(verdicts_by(ROW_0 | ROW_1)) as server:
        trainer = facts_trainer(build, server, log_completions=True)
        trainer.train()
    (table,) = trainer.tables
    assert [value for _, value in table["row-0"]] == [1, 0.5, 0, 0.5]
    assert [value for _, value in table["row-1"]] == pytest.approx([1 / 3, 1, 0, 2 / 3])
    assert [value for value, _ in table["row-0"]] == [0, 1, 2, 3]
    names = ("judge/facts_stated", "judge/failure_rate", "rewards/visual_facts_reward/mean", "seconds/judging")
    stated, rate, mean, seconds = step_logs(trainer, *names)[0]
    assert (stated, rate, mean) == (pytest.approx(0.5), 0, pytest.approx(0.5))
    assert seconds > 0
    log = pd.read_parquet(tmp_path / "completions" / "completions_00001.parquet")
    assert log["fact_verdicts"].tolist() == ["11", "10", "00", "01", "100", "111", "000", "011"]
    assert [json.loads(text)["verdicts"][0]["stated"] for text in log["judge_reply"]] == [1, 1, 0, 0, 1, 1, 0, 0]
    # the judge sees each completion as it is, with its row's facts
    facts = {response(body): REQUEST.search(asked(body))["facts"] for body in server.requests}
    assert facts["row-1 says 2"] == "1. c is big\n2. d is small\n3. e is flat"
    assert len(server.requests) == len(facts) == 8


LOST = {"row-0 says 1": 404, "row-1 says 1": 404, "row-1 says 2": 404}


@pytest.mark.parametrize(
    ("policy", "first", "second"),
    [
        ("group_mean", [[0, 1], [1, 0.5], [2, 0], [3, 0.5]], [[0, 1 / 3], [1, 0.5], [2, 0.5], [3, 2 / 3]]),
        ("zero", [[0, 1], [1, 0], [2, 0], [3, 0.5]], [[0, 1 / 3], [1, 0], [2, 0], [3, 2 / 3]]),
        ("drop_group", [[None, None]] * 4, [[None, None]] * 4),
    ],
)
def test_failures_follow_the_policy_of_the_judge(build, policy, first, second):
    with ScriptedServer(verdicts_by(ROW_0 | ROW_1 | LOST)) as server:
        trainer = facts_trainer(build, server, on_failure=policy)
        trainer.train()
    (table,) = trainer.tables
    for row_id, expected in (("row-0", first), ("row-1", second)):
        for values, wanted in zip(table[row_id], expected, strict=True):
            assert values == (pytest.approx(wanted) if None not in wanted else wanted)
    assert step_logs(trainer, "judge/failure_rate")[0] == (pytest.approx(3 / 8),)
    if policy == "drop_group":
        assert trainer.outputs[0]["advantages"].tolist() == [0.0] * 8


def test_abort(build):
    with ScriptedServer(verdicts_by(ROW_0 | ROW_1 | LOST)) as server:
        trainer = facts_trainer(build, server, on_failure="abort")
        with pytest.raises(TooManyFailures, match="3 of 8 completions have no verdict"):
            trainer.train()


def test_only_rewards_that_name_the_column_depend_on_it(build):
    def with_columns(completions, **columns):
        return [float(sum(verdicts or [9])) for verdicts in columns["fact_verdicts"]]

    async def asynchronous(completions, fact_verdicts, **columns):
        return [float(sum(verdicts or [9])) for verdicts in fact_verdicts]

    class Named:
        def __call__(self, completions, fact_verdicts, **columns):
            return [float(sum(verdicts or [9])) for verdicts in fact_verdicts]

    bound = functools.partial(visual_facts_reward, leave_out_question=False)
    with ScriptedServer(verdicts_by(ROW_0 | {"row-0 says 3": 404})) as server:
        trainer = facts_trainer(build, server, [with_columns, asynchronous, Named(), bound], FACTS[:1])
        trainer.train()
    third = (2 + 1 + 0) / 3
    assert trainer.tables[0]["row-0"][3] == pytest.approx([9, third, third, 0.5])
    assert not reads_column(torch.nn.Linear(1, 1), "input")


def test_rows_without_facts_and_facts_of_the_question_are_not_judged(build):
    """Their reward is None. What fails elsewhere does not change that, nor is it counted among them."""
    facts = [["How many"], [], ["many", "c is big"]]
    judge = {"row-2 says 0": (1,), "row-2 says 1": (1,), "row-2 says 2": (0,), "row-2 says 3": 404}
    with ScriptedServer(verdicts_by(judge)) as server:
        trainer = facts_trainer(build, server, facts=facts)
        trainer.train()
    (table,) = trainer.tables
    assert [value for _, value in table["row-0"]] == [None] * 4
    assert [value for _, value in table["row-1"]] == [None] * 4
    # `many` stands in the question and is not asked about: 1, 1, 0, and their mean
    assert [value for _, value in table["row-2"]] == pytest.approx([1, 1, 0, 2 / 3])
    assert len(server.requests) == 4
    assert step_logs(trainer, "judge/failure_rate")[0] == (0.25,)


def test_rows_without_the_column_of_the_question(build):
    dataset = rows(0).add_column("visual_facts", FACTS[:1]).remove_columns("problem")
    with ScriptedServer(verdicts_by(ROW_0)) as server:
        block = {"fact_judge": judge_block(server)}
        trainer = build(scripted(VisionGRPOTrainer), VisionGRPOConfig, [visual_facts_reward], dataset, **block)
        trainer.train()
    assert trainer.tables[0]["row-0"] == [[1], [0.5], [0], [0.5]]


def test_groups_of_an_evaluation_have_their_own_size(build):
    """In groups of 4 the mean of row 0 would be that of both rows."""
    judge = {"row-0 says 0": (1, 1), "row-0 says 1": 404, "row-1 says 0": (0, 0, 0), "row-1 says 1": 404}
    with ScriptedServer(verdicts_by(judge, otherwise=404)) as server:
        dataset = rows(0, 0).add_column("visual_facts", FACTS)
        trainer = facts_trainer(
            build, server, eval_dataset=dataset, num_generations_eval=2, per_device_eval_batch_size=4
        )
        metrics = trainer.evaluate()
    (table,) = trainer.tables
    assert table == {"row-0": [[0, 1], [1, 1]], "row-1": [[0, 0], [1, 0]]}
    assert metrics["eval_judge/failure_rate"] == 0.5
    assert metrics["eval_seconds/judging"] > 0


# ---- several policies


class Stub:
    """A consultation of which only name, column and config matter."""

    def __init__(self, column, **settings):
        self.name = self.activity = self.column = column
        self.config = ReasonerConfig(**settings)


def test_policies_in_one_table():
    """Two completions of two groups; the first reward reads `a`, the second `a` and `b`."""
    verdicts = Verdicts([lambda a, **_: a, lambda a, b, **_: a])
    verdicts.add(Stub("a", on_failure="drop_group", max_failure_rate=1))
    verdicts.add(Stub("b", on_failure="zero", max_failure_rate=1))
    rewards = torch.tensor([[1.0, 1.0], [0.5, 0.5], [1.0, 1.0], [0.25, 0.75]])
    asked = torch.ones(4, 2, dtype=torch.bool)
    failed = torch.tensor([[True, False], [False, True], [False, False], [False, True]])
    settled = verdicts.settle(rewards, asked, failed, [None, None], 2)
    assert settled[:2].isnan().all()
    assert settled[2:].tolist() == [[1, 1], [0.25, 0]]
    assert rewards[3, 1] == 0.75
    untouched = verdicts.settle(rewards, asked, torch.zeros_like(asked), [None, None], 2)
    assert torch.equal(untouched, rewards)


# ---- when it is asked


def test_questions_are_on_their_way_while_the_step_goes_on(build):
    """The server has got all of them before the reference model's pass, and works on them during it."""
    with ScriptedServer(lambda body, number: reply(entries(1, 1), seconds=0.3)) as server:
        trainer = facts_trainer(build, server, facts=FACTS[:1], beta=0.1)
        arrived = []
        score = trainer._get_per_token_logps_and_entropies

        def slow_pass(model, *args, **kwargs):
            if not arrived:
                wait_until(lambda: len(server.requests) == 4)
                arrived.append(len(server.requests))
                time.sleep(0.5)
            return score(model, *args, **kwargs)

        trainer._get_per_token_logps_and_entropies = slow_pass
        rewarded = []
        calculate = trainer._calculate_rewards
        trainer._calculate_rewards = lambda *args: rewarded.append(len(arrived)) or calculate(*args)
        trainer.train()
    assert (arrived, rewarded) == ([4], [1])
    hidden, waited = step_logs(trainer, "judge/hidden_seconds", "seconds/judging")[0]
    assert 0.28 < hidden < 1.5
    assert waited < 0.2


def test_what_is_waited_for_is_not_hidden(build):
    with ScriptedServer(lambda body, number: reply(entries(1, 1), seconds=0.4)) as server:
        trainer = facts_trainer(build, server, facts=FACTS[:1])
        trainer.train()
    hidden, waited = step_logs(trainer, "judge/hidden_seconds", "seconds/judging")[0]
    assert hidden + waited == pytest.approx(0.4, abs=0.3)
    assert waited > 0.1
