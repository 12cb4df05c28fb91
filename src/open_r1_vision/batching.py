# SPDX-License-Identifier: Apache-2.0
"""From prompts per step to what each process does: the arithmetic that a user should not have to do."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BatchPlan:
    """How the completions of one optimizer step spread over processes and micro-batches."""

    prompts_per_step: int
    num_generations: int
    num_processes: int
    per_device: int
    accumulation: int

    def __str__(self) -> str:
        completions = self.prompts_per_step * self.num_generations
        return (
            f"{self.prompts_per_step} prompts x {self.num_generations} completions = {completions} completions per "
            f"step = {self.num_processes} process(es) x {self.per_device} per device x "
            f"{self.accumulation} micro-batch(es)"
        )


def plan_batch(prompts_per_step: int, num_generations: int, num_processes: int, max_per_device: int) -> BatchPlan:
    """Derive device batch and accumulation: the largest micro-batch that fits and divides the step evenly.

    Args:
        prompts_per_step: prompts of one optimizer step, over all processes.
        num_generations: completions per prompt, at least 2.
        num_processes: processes of the run.
        max_per_device: most completions that one device may hold in a micro-batch.

    Raises:
        ValueError: fewer than 2 completions per prompt, a count below 1, or completions that the processes can't
            share evenly.
    """
    if num_generations < 2:
        raise ValueError(
            f"num_generations is {num_generations}, but GRPO compares the completions of one prompt with each other: "
            "set num_generations to at least 2."
        )
    if min(prompts_per_step, max_per_device) < 1:
        raise ValueError(
            f"prompts_per_step is {prompts_per_step} and max_completions_per_device is {max_per_device}: "
            "set both to at least 1."
        )
    completions = prompts_per_step * num_generations
    share, rest = divmod(completions, num_processes)
    if rest:
        step = next(n for n in range(1, num_processes + 1) if n * num_generations % num_processes == 0)
        raise ValueError(
            f"{prompts_per_step} prompts x {num_generations} completions = {completions} completions per step can't "
            f"be shared evenly by {num_processes} processes: set prompts_per_step to a multiple of {step}, for "
            f"example {(prompts_per_step // step + 1) * step}."
        )
    per_device = max(size for size in range(1, min(share, max_per_device) + 1) if share % size == 0)
    return BatchPlan(prompts_per_step, num_generations, num_processes, per_device, share // per_device)
