# SPDX-License-Identifier: Apache-2.0
"""What a missing verdict does to a reward, and when too many are missing.

A completion whose reader or judge failed is neither good nor bad. GRPO sums rewards with `nansum`, where a missing one
counts as 0: of four perfect completions the unjudged one would be punished and the others paid for it. So each missing
verdict is replaced before the sum, where the rewards of all processes stand in one table: a group may be spread over
processes. N is completions over all processes, K rewards.
"""

import math
from collections import deque
from collections.abc import Hashable, Sequence

#: One table of rewards; NaN or None is no reward.
RewardTable = Sequence[Sequence[float | None]]


class TooManyFailures(RuntimeError):
    """The run must stop: too many verdicts are missing, or the first one is and `on_failure` is `abort`."""


def fill_failures(
    rewards_NK: RewardTable,
    failed_NK: Sequence[Sequence[bool]],
    groups_N: Sequence[Hashable],
    policy: str = "group_mean",
) -> list[list[float]]:
    """Replace the rewards whose verdicts failed.

    | policy | a reward whose verdict failed becomes |
    |---|---|
    | `group_mean` | the mean of that reward over the group's other completions: it neither helps nor harms |
    | `drop_group` | NaN, as all rewards of its whole group: TRL 1.16 gives such completions the advantage 0 |
    | `zero` | 0 |
    | `abort` | TooManyFailures is raised |

    Where a whole group failed, `group_mean` takes the mean over all groups, or 0 without any: the same for each of the
    group, so that it teaches nothing, and that the logged mean stays what was judged. Where the group has nothing to
    score, since none of its completions whose verdicts came has a reward, a failure is not scored either.

    Args:
        rewards_NK: rewards of all completions; NaN or None where there is none.
        failed_NK: whether a verdict is missing because its reasoner failed. Elsewhere a missing reward means that the
            row has nothing to score, and stays NaN.
        groups_N: the group of each completion.
        policy: one of the table's.

    Returns:
        A new table.

    Raises:
        TooManyFailures: the policy is `abort` and a verdict is missing.
        ValueError: an unknown policy, or tables that don't fit.
    """
    if policy not in ("group_mean", "drop_group", "zero", "abort"):
        raise ValueError(f"on_failure is {policy!r}: set group_mean, drop_group, zero or abort.")
    rewards = [[math.nan if value is None else float(value) for value in row] for row in rewards_NK]
    rows = list(zip(rewards, failed_NK, groups_N, strict=True))
    failed_groups = {group for _, failed, group in rows if any(failed)}
    if policy == "abort" and failed_groups:
        count = sum(any(failed) for failed in failed_NK)
        raise TooManyFailures(
            f"{count} of {len(rows)} completions have no verdict, and on_failure is abort. Mend the reasoner and "
            "start the same command again, or set on_failure to group_mean."
        )
    if policy == "drop_group":
        return [[math.nan] * len(row) if group in failed_groups else row for row, _, group in rows]
    for column in range(len(rewards[0]) if rewards else 0):
        judged: dict[Hashable, list[float]] = {}
        for row, failed, group in rows:
            if not failed[column]:
                judged.setdefault(group, []).extend([] if math.isnan(row[column]) else [row[column]])
        overall = _mean([value for values in judged.values() for value in values])
        for row, failed, group in rows:
            if failed[column] and judged.get(group) == []:
                row[column] = math.nan
            elif failed[column]:
                row[column] = 0.0 if policy == "zero" else _mean(judged[group]) if group in judged else overall
    return rewards


def consecutive_groups(count: int, size: int) -> list[int]:
    """The groups of completions that lie side by side, as in TRL's gathered table: [0, 0, 1, 1] for 4 of size 2.

    Raises:
        ValueError: the count is no multiple of the size.
    """
    if size < 1 or count % size:
        raise ValueError(f"{count} completions can't be divided into groups of {size}.")
    return [index // size for index in range(count)]


class FailureGuard:
    """Stops a run whose reasoner fails too often, before it trains on its own guesses.

    Feed it the counts of all processes, and it raises in all of them at once.

    Args:
        max_rate: largest share of failures that is borne, in [0, 1].
        window: verdicts that the share is of. The run also stops before so many were asked for, once that many
            failures are reached.
    """

    def __init__(self, max_rate: float = 0.2, window: int = 1000) -> None:
        self.max_rate = max_rate
        self.window = window
        self._steps: deque[tuple[int, int]] = deque()

    @property
    def rate(self) -> float:
        """Failures as a share of the verdicts in the window; 0 before the first."""
        return sum(failed for failed, _ in self._steps) / max(sum(total for _, total in self._steps), 1)

    def update(self, num_failed: int, num_verdicts: int, reason: str | None = None) -> float:
        """Add a batch, and return the window's rate.

        Args:
            num_failed: verdicts that failed, over all processes.
            num_verdicts: verdicts that were asked for, over all processes.
            reason: the last failure, for the message.

        Raises:
            TooManyFailures: there are too many.
        """
        self._steps.append((num_failed, num_verdicts))
        # whole batches: the oldest goes when the others fill the window
        while sum(total for _, total in self._steps) - self._steps[0][1] >= self.window:
            self._steps.popleft()
        failed = sum(failed for failed, _ in self._steps)
        total = sum(total for _, total in self._steps)
        if failed > self.max_rate * max(total, self.window):
            last = f" The last one: {reason}." if reason else ""
            raise TooManyFailures(
                f"{failed} of the last {total} verdicts of the reasoner failed, more than max_failure_rate "
                f"{self.max_rate:g} of failure_window {self.window}.{last} Training stops rather than go on with "
                "guessed rewards: mend the reasoner, and start the same command again to resume."
            )
        return self.rate


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0
