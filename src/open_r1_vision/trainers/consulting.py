# SPDX-License-Identifier: Apache-2.0
"""Text models that are consulted about each completion, and what happens where one gives no verdict.

A trainer starts its consultations as soon as completions exist and takes the findings when rewards are due. Findings
become columns of the rows, which rewards read as they read any column. A reward that names such a column as one of its
parameters depends on the verdict: where that failed, the reward is replaced by the reasoner's failure policy, see
:mod:`open_r1_vision.reasoners.failures`.
"""

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from open_r1_vision.reasoners.config import ReasonerConfig
from open_r1_vision.reasoners.failures import FailureGuard, consecutive_groups, fill_failures
from open_r1_vision.reasoners.interface import Reasoner
from open_r1_vision.trainers.timing import StepTimer

LogMetric = Callable[[str, float], None]
LogExtra = Callable[[str, list], None]

#: In which policies are followed where consultations have different ones.
_ORDER = ("abort", "zero", "group_mean", "drop_group")


@dataclass
class Findings:
    """What a consultation found out about the completions of this process; lists have an entry for each.

    Attributes:
        columns: for the rewards, by name.
        asked: whether there was something to ask about.
        failures: why there is no verdict although it was asked for; None elsewhere.
        metrics: values to be averaged, by name.
        logged: columns of the completions' table, by name.
        seconds: how long the reasoner worked.
    """

    columns: dict[str, list]
    asked: list[bool]
    failures: list[str | None]
    metrics: dict[str, list[float]] = field(default_factory=dict)
    logged: dict[str, list] = field(default_factory=dict)
    seconds: float = 0.0


class Consultation(Protocol):
    """One kind of question to one text model.

    Attributes:
        name: what its metrics begin with, such as `reader`.
        activity: what its seconds are logged as, such as `reading`.
        column: the column that holds its verdicts.
        config: how failures are dealt with.
    """

    name: str
    activity: str
    column: str
    config: ReasonerConfig

    def start(
        self, rows: Sequence[Mapping[str, Any]], starts: Sequence[str], texts: Sequence[str]
    ) -> Callable[[], Findings]:
        """Begin to ask; returns at once, with what waits for the findings.

        Args:
            rows: of the completions.
            starts: what each response was given to start with, see HintGRPOTrainer.
            texts: the completions, which go on from there.
        """
        ...


class Verdicts:
    """The consultations of a trainer, their failures, and the rewards that depend on them.

    Args:
        rewards: the trainer's reward functions, in its order.
    """

    def __init__(self, rewards: Sequence[Any]) -> None:
        self._rewards = list(rewards)
        self._consultations: list[tuple[Consultation, FailureGuard]] = []
        self._pending: list[Callable[[], Findings]] = []

    def add(self, consultation: Consultation, option: str | None = None) -> None:
        """Consult it about each completion from now on.

        Args:
            consultation: whom.
            option: what asked for it, where it has no use without a reward that reads its column.

        Raises:
            ValueError: there is no such reward.
        """
        if option and not any(reads_column(reward, consultation.column) for reward in self._rewards):
            raise ValueError(
                f"{option} is set, but no reward takes its verdicts, the column `{consultation.column}`: add such a "
                f"reward, as visual_facts_reward or caption_reward, or leave {option} out."
            )
        config = consultation.config
        self._consultations.append((consultation, FailureGuard(config.max_failure_rate, config.failure_window)))

    def __iter__(self) -> Any:
        return iter(consultation for consultation, _ in self._consultations)

    def __len__(self) -> int:
        return len(self._consultations)

    def start(self, rows: Sequence[Mapping[str, Any]], starts: Sequence[str], texts: Sequence[str]) -> None:
        """Start all consultations about a batch; see :meth:`Consultation.start`."""
        self._pending = [consultation.start(rows, starts, texts) for consultation in self]

    def finish(
        self, rows: Sequence[dict[str, Any]], timed: StepTimer, log_metric: LogMetric, log_extra: LogExtra
    ) -> list[Findings]:
        """Wait for the findings of the batch under way, give them to its rows, and log them.

        Models in this process, which may generate together with other processes, take their turns first, in one order
        everywhere; servers work on meanwhile.

        Args:
            rows: of the completions; they get the findings' columns.
            timed: times the waiting, as the consultation's `activity`.
            log_metric: takes a metric's name and value.
            log_extra: takes the name and the values of a column of the completions' table.

        Returns:
            The findings of each consultation, in the order in which they were added.
        """
        pending, self._pending = self._pending, []
        pairs = list(enumerate(zip(self, pending, strict=True)))
        pairs.sort(key=lambda pair: pair[1][0].config.kind == "endpoint")
        found: dict[int, Findings] = {}
        for index, (consultation, wait) in pairs:
            start = time.monotonic()
            with timed(consultation.activity):
                findings = found[index] = wait()
            log_metric(f"{consultation.name}/hidden_seconds", max(0.0, findings.seconds - (time.monotonic() - start)))
            for name, values in findings.columns.items():
                for row, value in zip(rows, values, strict=True):
                    row[name] = value
            for name, values in findings.metrics.items():
                for value in values:
                    log_metric(name, value)
            for name, values in findings.logged.items():
                log_extra(name, values)
        return [found[index] for index in range(len(found))]

    def settle_findings(
        self,
        rewards_NK: torch.Tensor,
        findings: Sequence[Findings],
        group_size: int,
        gather: Callable[[torch.Tensor], torch.Tensor],
        log_metric: LogMetric,
    ) -> torch.Tensor:
        """:meth:`settle` with the findings of all processes; logs the share of verdicts that failed.

        Args:
            rewards_NK: as for `settle`.
            findings: of this process.
            group_size: as for `settle`.
            gather: of a tensor over all processes, along its first dimension.
            log_metric: takes a metric's name and value.
        """
        flags = [[of_one.asked, [reason is not None for reason in of_one.failures]] for of_one in findings]
        flags_CSB = torch.tensor(flags, device=rewards_NK.device)  # S: asked, failed
        asked_NC, failed_NC = gather(flags_CSB.permute(2, 1, 0).contiguous()).unbind(1)
        for index, consultation in enumerate(self):
            asked, failed = asked_NC[:, index].sum().item(), failed_NC[:, index].sum().item()
            log_metric(f"{consultation.name}/failure_rate", failed / max(asked, 1))
        reasons = [next((reason for reason in of_one.failures if reason), None) for of_one in findings]
        return self.settle(rewards_NK, asked_NC, failed_NC, reasons, group_size)

    def settle(
        self,
        rewards_NK: torch.Tensor,
        asked_NC: torch.Tensor,
        failed_NC: torch.Tensor,
        reasons: Sequence[str | None],
        group_size: int,
    ) -> torch.Tensor:
        """Replace rewards whose verdicts failed, and stop the run where too many did.

        Args:
            rewards_NK: of all processes: N completions, K rewards, on any device.
            asked_NC: of all processes: whether consultation c was asked about completion n.
            failed_NC: whether its verdict failed.
            reasons: for each consultation a failure in this process, for the message.
            group_size: completions of a prompt, which lie side by side.

        Raises:
            TooManyFailures: in all processes at once.
        """
        lost_by_policy: dict[str, torch.Tensor] = {}
        for index, (consultation, guard) in enumerate(self._consultations):
            failed_N = failed_NC[:, index]
            guard.update(int(failed_N.sum()), int(asked_NC[:, index].sum()), reasons[index])
            depends_K = failed_N.new_tensor([reads_column(reward, consultation.column) for reward in self._rewards])
            policy = consultation.config.on_failure
            none_NK = torch.zeros_like(rewards_NK, dtype=torch.bool)
            lost_by_policy[policy] = lost_by_policy.get(policy, none_NK) | (failed_N[:, None] & depends_K)
        groups = consecutive_groups(len(rewards_NK), group_size)
        table = rewards_NK.tolist()
        # verdicts of one policy together, so that no mean is over rewards that lack another verdict; what is dropped
        # last stays dropped
        for policy in sorted(lost_by_policy, key=_ORDER.index):
            if lost_by_policy[policy].any():
                table = fill_failures(table, lost_by_policy[policy].tolist(), groups, policy)
        return torch.tensor(table, dtype=rewards_NK.dtype, device=rewards_NK.device)


def usage(name: str, reasoner: Reasoner) -> dict[str, list[float]]:
    """What a batch cost a reasoner, as metrics: retries, and the share of replies that came from the cache."""
    stats = reasoner.pop_stats()
    return {f"{name}/retries": [stats["retries"]], f"{name}/cached": [stats["cached"] / max(stats["asked"], 1)]}


def setting(reward: Any, name: str, default: Any) -> Any:
    """What a reward's parameter is bound to, or its default; `default` where it has no such parameter."""
    parameters = {} if isinstance(reward, torch.nn.Module) else inspect.signature(reward).parameters
    return parameters[name].default if name in parameters else default


def reads_column(reward: Any, column: str) -> bool:
    """Whether a reward names a column as a parameter. Reward models don't."""
    return not isinstance(reward, torch.nn.Module) and column in inspect.signature(reward).parameters
