# SPDX-License-Identifier: Apache-2.0
import pytest

from open_r1_vision.batching import BatchPlan, plan_batch


@pytest.mark.parametrize(
    ("prompts", "generations", "processes", "limit", "per_device", "accumulation"),
    [
        (8, 8, 1, 8, 8, 8),
        (8, 8, 2, 8, 8, 4),
        (8, 8, 4, 64, 16, 1),
        # 36 completions, at most 8 in a device: 6 is the largest divisor that fits
        (6, 6, 1, 8, 6, 6),
        # groups straddle the devices: 4 prompts x 6 completions over 8 processes are 3 each
        (4, 6, 8, 8, 3, 1),
        # a prime share goes one by one
        (7, 2, 2, 4, 1, 7),
        (1, 2, 2, 8, 1, 1),
        (1, 2, 1, 1, 1, 2),
        (2, 4, 1, 100, 8, 1),
    ],
)
def test_plan(prompts, generations, processes, limit, per_device, accumulation):
    plan = plan_batch(prompts, generations, processes, limit)
    assert plan == BatchPlan(prompts, generations, processes, per_device, accumulation)
    assert plan.per_device * plan.accumulation * plan.num_processes == prompts * generations


def test_plan_in_words():
    assert str(plan_batch(6, 4, 2, 8)) == (
        "6 prompts x 4 completions = 24 completions per step = 2 process(es) x 6 per device x 2 micro-batch(es)"
    )


@pytest.mark.parametrize("generations", [1, 0, -3])
def test_fewer_than_two_completions(generations):
    message = f"num_generations is {generations}, but GRPO compares .* set num_generations to at least 2"
    with pytest.raises(ValueError, match=message):
        plan_batch(8, generations, 1, 8)


@pytest.mark.parametrize(("prompts", "limit"), [(0, 8), (-1, 8), (8, 0)])
def test_counts_below_one(prompts, limit):
    message = f"prompts_per_step is {prompts} and max_completions_per_device is {limit}: set both to at least 1"
    with pytest.raises(ValueError, match=message):
        plan_batch(prompts, 2, 1, limit)


@pytest.mark.parametrize(
    ("prompts", "generations", "processes", "step", "example"),
    [(3, 2, 4, 2, 4), (5, 6, 4, 2, 6), (1, 2, 8, 4, 4), (4, 3, 5, 5, 5), (6, 3, 5, 5, 10)],
)
def test_uneven_share(prompts, generations, processes, step, example):
    message = (
        f"{prompts} prompts x {generations} completions = {prompts * generations} completions per step can't be "
        f"shared evenly by {processes} processes: set prompts_per_step to a multiple of {step}, for example {example}"
    )
    with pytest.raises(ValueError, match=message):
        plan_batch(prompts, generations, processes, 8)
    assert plan_batch(example, generations, processes, 8).prompts_per_step == example
