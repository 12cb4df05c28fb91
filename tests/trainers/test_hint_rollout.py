# SPDX-License-Identifier: Apache-2.0
"""Both modes on stub policies: what they sample, what they choose, and by which law."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from open_r1_vision.trainers.hint_levels import Rung, ladder
from open_r1_vision.trainers.hint_rollout import Sampled, measure, roll_out

G = 4
LADDER = ladder(3, 3)


class Stub:
    """A policy that is right with a probability for each level, drawn anew for each (row, level) or by their names."""

    def __init__(self, right, seed=0, by_name=False):
        self.right, self.rng, self.by_name = right, random.Random(seed), by_name
        self.calls, self.plain = [], []

    def sample(self, requests, is_plain):
        self.calls.append([(request.index, request.rung.level) for request in requests])
        self.plain.append(is_plain)
        return [Sampled([self._is_right(request)] * (request.rung.level + 1)) for request in requests]

    def _is_right(self, request):
        rng = random.Random(f"{request.index}-{request.rung.level}") if self.by_name else self.rng
        return int(rng.random() < self.right[request.rung.level])

    def judge(self, requests, sampled):
        return [float(output.ids[0]) for output in sampled]

    def roll_out(self, mode, num_groups, rungs=LADDER):
        size = num_groups * G
        return roll_out(
            mode,
            [index // G for index in range(size)],
            [rungs] * size,
            num_generations=G,
            threshold=0.0,
            rank=0,
            sample=self.sample,
            judge=self.judge,
        )


def test_escalation_samples_only_what_is_all_wrong():
    # group 0 right at once, group 1 from level 1 on, group 2 never
    first_right = {0: 0, 1: 1, 2: 3}

    class Fixed(Stub):
        def _is_right(self, request):
            return int(request.index % G == 2 and request.rung.level >= first_right[request.index // G])

    stub = Fixed({})
    rollout = stub.roll_out("escalate", 3)
    assert stub.calls == [
        [(index, 0) for index in range(12)],
        [(index, 1) for index in range(4, 12)],
        [(index, 2) for index in range(8, 12)],
    ]
    assert [rung.level for rung in rollout.rungs] == [0] * 4 + [1] * 4 + [0] * 4
    # a completion of level m has m + 1 tokens here
    assert [len(output.ids) for output in rollout.sampled] == [1] * 4 + [2] * 4 + [1] * 4
    assert (rollout.first_tokens, rollout.extra_tokens) == (12, 8 * 2 + 4 * 3)
    assert [group.row_id for group in rollout.groups] == [0, 1, 2]
    assert measure(rollout, 3) == pytest.approx(
        {
            "utilisation_before": 1 / 3,
            "utilisation": 2 / 3,
            "unsolved": 1 / 3,
            "all_correct": 0.0,
            "level_0": 2 / 3,
            "level_1": 1 / 3,
            "level_2": 0.0,
            "extra_tokens": 28 / 12,
        }
    )


def test_parallel_samples_everything_at_once():
    stub = Stub({0: 1.0, 1: 1.0, 2: 1.0})
    rollout = stub.roll_out("parallel", 2)
    assert stub.calls == [[(index, level) for index in range(8) for level in range(3)]]
    assert [rung.level for rung in rollout.rungs] == [0] * 8
    assert rollout.extra_tokens == 8 * (2 + 3)
    assert measure(rollout, 3)["all_correct"] == 1.0


def test_both_modes_choose_alike():
    """Where the policy says the same at the same level, both modes train the same completions."""
    right = {0: 0.1, 1: 0.2, 2: 0.4}
    outcomes = {mode: Stub(right, by_name=True).roll_out(mode, 200) for mode in ("escalate", "parallel")}
    escalated, parallel = outcomes["escalate"], outcomes["parallel"]
    assert {rung.level for rung in escalated.rungs} == {0, 1, 2}
    assert escalated.rungs == parallel.rungs
    assert escalated.sampled == parallel.sampled
    assert escalated.extra_tokens < parallel.extra_tokens


@pytest.mark.parametrize("mode", ["escalate", "parallel"])
def test_the_law_of_the_chosen_level(mode):
    """Independent completions: P(level m) follows from the chance that a group of four is all wrong."""
    right = {0: 0.1, 1: 0.2, 2: 0.4}
    wrong = {level: (1 - chance) ** G for level, chance in right.items()}  # .6561, .4096, .1296
    expected = {
        "level_0": 1 - wrong[0] + wrong[0] * wrong[1] * wrong[2],
        "level_1": wrong[0] * (1 - wrong[1]),
        "level_2": wrong[0] * wrong[1] * (1 - wrong[2]),
        "unsolved": wrong[0] * wrong[1] * wrong[2],
        "utilisation_before": 1 - wrong[0] - right[0] ** G,
    }
    num_groups = 8000
    measured = measure(Stub(right, seed=1).roll_out(mode, num_groups), 3)
    for name, chance in expected.items():
        # four standard errors
        assert measured[name] == pytest.approx(chance, abs=4 * (chance * (1 - chance) / num_groups) ** 0.5), name


class World:
    """Stands for two processes that gather objects: each is a thread, and the two wait for each other."""

    def __init__(self, monkeypatch):
        self.barrier, self.parts, self.rank = threading.Barrier(2, timeout=20), [None, None], threading.local()
        monkeypatch.setattr("open_r1_vision.trainers.hint_rollout.gather_object", self.gather)

    def gather(self, objects):
        self.parts[self.rank.value] = objects
        self.barrier.wait()
        gathered = [item for part in self.parts for item in part]
        self.barrier.wait()
        return gathered

    def run(self, mode, row_ids, ladders, first_right):
        """Rows of two processes; a row is right from its level on. The stub and the rollout of each process."""
        size = len(row_ids) // 2

        class Fixed(Stub):
            def _is_right(self, request):
                return int(request.rung.level >= first_right[self.ids[request.index]])

        def work(rank):
            self.rank.value = rank
            stub, here = Fixed({}), slice(rank * size, (rank + 1) * size)
            stub.ids = row_ids[here]
            settings = {"num_generations": G, "threshold": 0.0, "rank": rank}
            functions = {"sample": stub.sample, "judge": stub.judge}
            return stub, roll_out(mode, row_ids[here], ladders[here], **settings, **functions)

        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(work, (0, 1)))


def test_two_processes_share_a_group(monkeypatch):
    """Three groups of four; the second is half on each process. Only the second process climbs to the end."""
    outcomes = World(monkeypatch).run("escalate", list("aaaabbbbcccc"), [LADDER] * 12, {"a": 0, "b": 1, "c": 2})
    (first, left), (second, right) = outcomes
    assert [len(call) for call in first.calls] == [6, 2, 0]
    assert [len(call) for call in second.calls] == [6, 6, 4]
    assert [rung.level for rung in left.rungs + right.rungs] == [0] * 4 + [1] * 4 + [2] * 4
    assert measure(left, 3) == measure(right, 3)
    assert (left.first_tokens, left.extra_tokens) == (12, 8 * 2 + 4 * 3)


def test_whether_a_round_is_the_plain_batch_is_the_same_in_all_processes(monkeypatch):
    """Process 0 has a row without steps, or one that starts at level 0. It must not go a way of its own: backends that
    gather prompts would wait for calls that the other does not make."""
    without_steps = World(monkeypatch).run(
        "parallel", list("aaaabbbb"), [LADDER[:1]] * 4 + [LADDER] * 4, {"a": 9, "b": 1}
    )
    assert [stub.plain for stub, _ in without_steps] == [[False], [False]]
    remembered = World(monkeypatch).run(
        "escalate", list("aaaabbbb"), [LADDER] * 4 + [LADDER[1:]] * 4, {"a": 0, "b": 1}
    )
    assert [stub.plain for stub, _ in remembered] == [[False], [False]]
    plain = World(monkeypatch).run("escalate", list("aaaabbbb"), [LADDER] * 8, {"a": 0, "b": 1})
    assert [stub.plain for stub, _ in plain] == [[True, False], [True, False]]


@pytest.mark.parametrize("mode", ["escalate", "parallel"])
def test_ladders_of_unequal_length(mode):
    stub = Stub({0: 0.0, 1: 0.0, 2: 1.0})
    ladders = [[Rung(0, 0)]] * G + [[Rung(0, 0), Rung(2, 1)]] * G + [[Rung(2, 4)]] * G
    rollout = roll_out(
        mode,
        list("abc" * G),
        ladders,
        num_generations=G,
        threshold=0.0,
        rank=0,
        sample=stub.sample,
        judge=stub.judge,
    )
    assert [rung.level for rung in rollout.rungs] == [0] * G + [2] * G + [2] * G
    assert [len(group.scores) for group in rollout.groups] == [1, 2, 1]


@pytest.mark.parametrize("mode", ["escalate", "parallel"])
def test_what_cannot_be_judged_is_not_hinted(mode):
    stub = Stub({0: 0.0, 1: 1.0, 2: 1.0})
    stub.judge = lambda requests, sampled: [None] * len(requests)
    rollout = stub.roll_out(mode, 1)
    assert [rung.level for rung in rollout.rungs] == [0] * G
    assert measure(rollout, 3)["unsolved"] == 0.0
