# SPDX-License-Identifier: Apache-2.0
"""Where the seconds of a step go."""

import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

if TYPE_CHECKING:
    from trl import GRPOTrainer as Base
else:
    Base = object


class StepTimer:
    """Wall-clock seconds by name; a timing inside another is taken off the outer one, so that all add up.

    Args:
        synchronize: called at each border, where the work that is timed may still be under way on a device.
    """

    def __init__(self, synchronize: Callable[[], None] | None = None) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._synchronize = synchronize or (lambda: None)
        # name, start, and the seconds of timings inside
        self._open: list[tuple[str, float, list[float]]] = []

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Add the time spent in the block, less that of timings inside it, to `name`."""
        self.start(name)
        depth = len(self._open)
        try:
            yield
        finally:
            # what was started inside and never stopped ends here
            while len(self._open) >= depth:
                self.stop()

    def start(self, name: str) -> None:
        """Begin a timing that `stop` ends, for what no block can hold."""
        self._synchronize()
        self._open.append((name, time.perf_counter(), []))

    def stop(self) -> float:
        """End the timing that began last; gives its seconds, those of timings inside included."""
        self._synchronize()
        name, start, inner = self._open.pop()
        elapsed = time.perf_counter() - start
        self.seconds[name] += elapsed - sum(inner)
        if self._open:
            self._open[-1][2].append(elapsed)
        return elapsed

    @property
    def is_running(self) -> bool:
        """Whether a timing is under way."""
        return bool(self._open)

    def clear(self) -> None:
        """Forget all timings, those under way included."""
        self._open.clear()
        self.seconds.clear()

    def flush(self) -> dict[str, float]:
        """The seconds since the last flush."""
        seconds = dict(self.seconds)
        self.seconds.clear()
        return seconds


class TimedSteps(Base):
    """Stands before all other mixins among the bases of a trainer, which calls `time_steps`.

    Logged for each optimizer step, as seconds of process 0: `seconds/step`, and the parts that it is the sum of:

    - `seconds/loading`: the batch's rows, images decoded;
    - `seconds/preparing`: chat template, tokenizer and image processor;
    - `seconds/generation`, and under vLLM `seconds/weight_sync`;
    - `seconds/reading`, `seconds/judging`, `seconds/judging_descriptions`: waiting for text models that are consulted;
    - `seconds/logprobs`: log-probabilities of the reference, and of the policy before the update;
    - `seconds/rewards`: reward functions, and waiting for other processes' ones;
    - `seconds/scoring`: what is left of making a batch, such as padding and advantages;
    - `seconds/update`: forward and backward passes; under DeepSpeed the optimizer too, which steps within backward;
    - `seconds/optimizer`: clipping, the optimizer's step, clearing gradients;
    - `seconds/other`: all else, such as callbacks.

    Where a step takes no new sample, the parts of sampling are 0, so that means over several steps still add up.
    Logging, checkpoints and evaluation lie between steps. An evaluation logs the parts it has as `eval_seconds/`; one
    that a callback starts within a step counts as parts of that step.

    On a GPU the clock waits at each border until the device has done its work: without that, a part would be charged
    for the one before it. There are few borders, and TRL waits between them more often, whenever it reads a metric.

    Overrides `get_batch_samples`, `training_step`, `log`, `_clip_grad_norm`, `_generate_and_score_completions`,
    `_generate`, `_tokenize_prompts`, `_get_per_token_logps_and_entropies` and `_calculate_rewards`; each calls
    GRPOTrainer's.
    """

    model: Any
    timed: StepTimer
    _parts: set[str]

    def time_steps(self) -> None:
        """Begin to keep time."""
        self._parts = set()
        on_gpu = self.accelerator.device.type == "cuda"
        self.timed = StepTimer(torch.cuda.synchronize if on_gpu else None)
        self.add_callback(StepEnds(self))
        if self.use_vllm:
            backend: Any = self.vllm_generation
            backend.sync_weights = self._timing("weight_sync", backend.sync_weights)

    def _timing(self, name: str, function: Callable) -> Callable:
        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.timed(name):
                return function(*args, **kwargs)

        return timed

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple:
        """See transformers.Trainer; here a step begins."""
        self.timed.clear()
        self.timed.start("other")
        with self.timed("loading"):
            return super().get_batch_samples(*args, **kwargs)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        with self.timed("update"):
            return super().training_step(*args, **kwargs)

    def _clip_grad_norm(self, model: Any) -> Any:
        with self.timed("optimizer"):
            return super()._clip_grad_norm(model)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        with self.timed("scoring"):
            return super()._generate_and_score_completions(inputs)

    def _generate(self, prompts: list) -> tuple:
        with self.timed("generation"):
            return super()._generate(prompts)

    def _tokenize_prompts(self, prompts: list) -> tuple:
        with self.timed("preparing"):
            return super()._tokenize_prompts(prompts)

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> tuple:
        if torch.is_grad_enabled():
            return super()._get_per_token_logps_and_entropies(*args, **kwargs)
        with self.timed("logprobs"):
            return super()._get_per_token_logps_and_entropies(*args, **kwargs)

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        with self.timed("rewards"):
            return super()._calculate_rewards(*args, **kwargs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the seconds of an evaluation."""
        if not self.model.training and not self.timed.is_running:
            self._log_seconds("eval", self.timed.flush())
        super().log(logs, start_time)

    def end_step(self) -> None:
        """Log the seconds of the step that ends here."""
        whole = self.timed.stop()
        seconds = self.timed.flush()
        # a mean is over steps that have an entry
        self._parts |= seconds.keys()
        self._log_seconds("train", {name: seconds.get(name, 0.0) for name in sorted(self._parts)} | {"step": whole})

    def _log_seconds(self, mode: str, seconds: dict[str, float]) -> None:
        for name, value in seconds.items():
            self._metrics[mode][f"seconds/{name}"].append(value)


class StepEnds(TrainerCallback):
    """Tells a trainer where its optimizer works, and where a step ends."""

    def __init__(self, trainer: TimedSteps) -> None:
        self.trainer = trainer

    def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        self.trainer.timed.start("optimizer")

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.trainer.timed.stop()
        self.trainer.end_step()
