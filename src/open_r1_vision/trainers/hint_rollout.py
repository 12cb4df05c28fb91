# SPDX-License-Identifier: Apache-2.0
"""Sampling groups at growing hint levels until each holds a correct completion, over all processes.

Both modes end with the same choice (:func:`open_r1_vision.trainers.hint_levels.choose`) and differ in what they
sample: `escalate` climbs a ladder only as far as needed, `parallel` samples all of it at once.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from accelerate.utils import gather_object

from open_r1_vision.trainers.hint_levels import Rung, choose, has_signal, is_solved


@dataclass(frozen=True)
class Request:
    """One completion to sample: of the local row `index`, at `rung`."""

    index: int
    rung: Rung


@dataclass(frozen=True)
class Sampled:
    """What was sampled: token ids without the hint's, and their log-probabilities where the backend has them."""

    ids: list[int]
    logprobs: list[float] | None = None


@dataclass
class Group:
    """What is known of a group in every process.

    Attributes:
        row_id: id of its row.
        rungs: the ladder of its row.
        scores: for each rung that was sampled, the gate's score of each completion.
        threshold: a completion is right if it scores more.
    """

    row_id: Any
    rungs: list[Rung]
    threshold: float
    scores: list[list[float | None]] = field(default_factory=list)

    @property
    def solved(self) -> list[bool]:
        """For each sampled rung, whether it needs no further one."""
        return [is_solved(scores, self.threshold) for scores in self.scores]

    @property
    def chosen(self) -> int:
        """Index of the rung that is trained."""
        return choose(self.solved)

    def next_rungs(self, mode: str) -> list[Rung]:
        """What to sample next: one rung (`escalate`) or all that are left (`parallel`), none once it is solved."""
        left = [] if any(self.solved) else self.rungs[len(self.scores) :]
        return left[:1] if mode == "escalate" else left


@dataclass
class Rollout:
    """The outcome for the rows of this process, and the groups of all.

    Attributes:
        rungs: chosen rung of each local row.
        sampled: chosen completion of each local row.
        groups: all groups of all processes, in order.
        first_tokens: tokens sampled for first rungs, over all processes.
        extra_tokens: tokens sampled for further rungs, over all processes.
    """

    rungs: list[Rung]
    sampled: list[Sampled]
    groups: list[Group]
    first_tokens: int
    extra_tokens: int


#: Gets the requests of this process, and whether the round is the plain batch: in every process each row once,
#: without hint. That is for all processes to know, since a backend may treat it otherwise.
Sample = Callable[[list[Request], bool], list[Sampled]]
Judge = Callable[[list[Request], list[Sampled]], list[float | None]]


def roll_out(
    mode: str,
    row_ids: Sequence[Any],
    ladders: Sequence[list[Rung]],
    *,
    num_generations: int,
    threshold: float,
    rank: int,
    sample: Sample,
    judge: Judge,
) -> Rollout:
    """Sample every group until it is solved or its ladder ends. Every process must call it, with as many rows.

    Args:
        mode: `escalate` or `parallel`.
        row_ids: ids of the local rows, which are parts of groups of `num_generations` over all processes.
        ladders: see :func:`open_r1_vision.trainers.hint_levels.ladder`; equal within a group.
        num_generations: size of a group.
        threshold: a completion is right if `judge` gives it more.
        rank: index of this process.
        sample: called equally often in every process, also with an empty list, where there is nothing to do.
        judge: scores what was sampled; None where it can't.
    """
    local = list(zip(row_ids, ladders, strict=True))
    rows = gather_object(local)
    groups = [Group(row_id, rungs, threshold) for row_id, rungs in rows[::num_generations]]
    group_indices = [(rank * len(local) + index) // num_generations for index in range(len(local))]
    sampled: list[list[Sampled]] = [[] for _ in local]

    while any(rungs_by_group := [group.next_rungs(mode) for group in groups]):
        wanted = [
            [Request(index, rung) for rung in rungs_by_group[group]] for index, group in enumerate(group_indices)
        ]
        requests = list(itertools.chain.from_iterable(wanted))
        is_plain = all([rung.num_steps for rung in rungs] == [0] for rungs in rungs_by_group)
        outputs = sample(requests, is_plain)
        scores = iter(judge(requests, outputs) if requests else [])
        for request, output in zip(requests, outputs, strict=True):
            sampled[request.index].append(output)
        scores_by_row = gather_object([[next(scores) for _ in row] for row in wanted])
        for start, group in zip(range(0, len(rows), num_generations), groups, strict=True):
            of_group = scores_by_row[start : start + num_generations]
            group.scores += [list(of_rung) for of_rung in zip(*of_group, strict=True)]

    group_of = [groups[index] for index in group_indices]
    first = sum(len(row[0].ids) for row in sampled)
    extra = sum(len(output.ids) for row in sampled for output in row[1:])
    counts = gather_object([(first, extra)])
    return Rollout(
        rungs=[group.rungs[group.chosen] for group in group_of],
        sampled=[row[group.chosen] for row, group in zip(sampled, group_of, strict=True)],
        groups=groups,
        first_tokens=sum(count for count, _ in counts),
        extra_tokens=sum(count for _, count in counts),
    )


def measure(rollout: Rollout, num_levels: int) -> dict[str, float]:
    """Metrics of a rollout, equal in every process; all but `extra_tokens` are shares of groups.

    "Before" is the first rung that was sampled, which with a memory of levels may be a hinted one.
    """
    groups = rollout.groups
    trained = [group.scores[group.chosen] for group in groups]
    levels = [group.rungs[group.chosen].level for group in groups]
    measures = {
        "utilisation_before": [has_signal(group.scores[0]) for group in groups],
        "utilisation": [has_signal(scores) for scores in trained],
        "unsolved": [not any(group.solved) for group in groups],
        "all_correct": [
            all(score is not None and score > group.threshold for score in scores)
            for group, scores in zip(groups, trained, strict=True)
        ],
        **{f"level_{level}": [chosen == level for chosen in levels] for level in range(num_levels)},
    }
    shares = {name: sum(values) / len(groups) for name, values in measures.items()}
    return {**shares, "extra_tokens": rollout.extra_tokens / max(1, rollout.first_tokens)}
