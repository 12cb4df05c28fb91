# SPDX-License-Identifier: Apache-2.0
"""Schedules as pure functions of the step, so that they are right for any number of epochs and after a resume."""

import math

KL_SCHEDULES = ("constant", "linear", "cosine")


def kl_weight(step: int, max_steps: int, start: float, floor: float = 0.0, schedule: str = "constant") -> float:
    """Weight of the KL term at one optimizer step.

    With f = step / max_steps, `linear` is floor + (start - floor) (1 - f) and `cosine` is
    floor + (start - floor) (1 + cos(pi f)) / 2, which is Visionary-R1's equation 5 (arXiv 2505.14677) for floor 0. The
    authors' code puts the epoch in place of f, so that its weight rises again in a second epoch.

    Args:
        step: optimizer steps done so far, from 0.
        max_steps: optimizer steps of the whole run, at least 1; steps beyond it count as the last.
        start: weight at step 0, at least 0.
        floor: weight at the end, between 0 and `start`.
        schedule: `constant`, `linear` or `cosine`.

    Raises:
        ValueError: unknown schedule, or a floor outside 0 to start.
    """
    if schedule not in KL_SCHEDULES:
        raise ValueError(f"Unknown beta_schedule {schedule!r}: set one of {', '.join(KL_SCHEDULES)}.")
    if not 0 <= floor <= start:
        raise ValueError(
            f"beta_floor is {floor}, but the weight falls from beta = {start}: set 0 <= beta_floor <= beta."
        )
    fraction = min(step / max_steps, 1.0)
    if schedule == "constant":
        return start
    remaining = 1 - fraction if schedule == "linear" else (1 + math.cos(math.pi * fraction)) / 2
    return floor + (start - floor) * remaining
