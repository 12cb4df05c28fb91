# SPDX-License-Identifier: Apache-2.0
"""Sampling by vLLM in the trainer's process, and proof at the start that it samples from the trainer's policy."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl.data_utils import prepare_multimodal_messages
from trl.trainer import grpo_trainer

from open_r1_vision.models import vision_token_ids
from open_r1_vision.vllm_support.distribution import HARMLESS, WHOLE, bending_settings
from open_r1_vision.vllm_support.engine import ColocatedEngine
from open_r1_vision.vllm_support.installation import check_installation, check_port

if TYPE_CHECKING:
    from trl import GRPOTrainer as Base
else:
    Base = object

logger = logging.getLogger(__name__)

#: Mean gap of log-probabilities that is more than rounding, by the precision that both compute in.
LIMITS = {torch.float32: 1e-4, torch.float16: 3e-2, torch.bfloat16: 3e-2}
#: Rows among which the start-up check looks for one with many images and one with few.
_ROWS_LOOKED_AT = 8
_TOKENS_CHECKED = 16


class ColocatedVLLM(Base):
    """Stands before GRPOTrainer among the bases of a trainer whose options have `vllm_max_logprob_gap`.

    With `use_vllm` in colocate mode its backend is :class:`open_r1_vision.vllm_support.engine.ColocatedEngine`. Before
    the first step, and at the first sampling after it, vLLM's log-probabilities of what it samples are compared with
    the trainer's: the run stops where they differ by more than `vllm_max_logprob_gap` in the mean. The first
    comparison takes two rows of the training set; it shows other images, other precision or other weights. The
    second shows weights that didn't arrive.

    Weights are pushed once for each sampling; further passes of a step (captions that the policy reads, hints) go
    without, also with `vllm_enable_sleep_mode`, see ColocatedEngine.

    Overrides `_generate_and_score_completions`, which calls GRPOTrainer's.
    """

    args: Any
    model: Any
    train_dataset: Any
    vllm_generation: Any
    _steps_compared: set[int]

    def __init__(self, model: Any, reward_funcs: Any = None, args: Any = None, *rest: Any, **kwargs: Any) -> None:
        self._steps_compared = set()
        if args.use_vllm:
            check_installation("use_vllm is true", "set use_vllm to false")
        if args.use_vllm and args.vllm_mode == "colocate":
            check_port()
        with _colocated_backend(args):
            super().__init__(model, reward_funcs, args, *rest, **kwargs)
        if self.use_vllm and self.vllm_mode == "colocate":
            self.add_callback(_CheckCallback(self))
        elif self.use_vllm:
            kwargs = dict(self.vllm_generation.generation_kwargs or {})
            banned = dict.fromkeys(self._vision_tokens(), -100.0)
            bias = {**banned, **(kwargs.get("logit_bias") or {})}
            self.vllm_generation.generation_kwargs = {**kwargs, "logit_bias": bias}

    def measure_vllm_gap(self) -> float:
        """Sample from two rows of the training set and compare.

        Under several processes all must call it, after training has begun.

        Returns:
            Mean absolute difference of the log-probabilities of vLLM and of the trainer, over all tokens and
            processes.
        """
        # a data set that is streamed has neither length nor places
        rows = sorted(islice(self.train_dataset, _ROWS_LOOKED_AT), key=lambda row: len(_images_of(row)))
        differences = []
        was_training = self.model.training
        self.model.eval()
        cuda = range(torch.cuda.device_count())
        with torch.random.fork_rng(devices=cuda), torch.no_grad():
            for row in (rows[0], rows[-1]):
                differences.append(self._compare(row))
        self.model.train(was_training)
        gaps = torch.cat(differences)
        return self.accelerator.gather(gaps.abs().mean().reshape(1)).mean().item()

    def _compare(self, row: dict[str, Any]) -> torch.Tensor:
        """Trainer's minus vLLM's log-probabilities of a few tokens sampled for one row."""
        images = _images_of(row)
        chat = prepare_multimodal_messages(row["prompt"], images=images) if images else row["prompt"]
        prompt_ids, of_rows, fields = super()._tokenize_prompts([chat])
        length = min(_TOKENS_CHECKED, self.vllm_generation.max_completion_length)
        with self.sampling_wholly(max_completion_length=length):
            (ids,), (logprobs,) = super()._generate_single_turn(prompt_ids, of_rows, fields, 1)
        device = self.accelerator.device
        tokens = torch.tensor([[*prompt_ids[0], *ids]], device=device)
        fields = {name: _as_tensor(values, len(ids)).to(device) for name, values in fields.items()}
        values, _, _ = self._get_per_token_logps_and_entropies(
            self.model, tokens, torch.ones_like(tokens), len(ids), batch_size=1, num_images=[len(images)], **fields
        )
        return values[0].float() - torch.tensor(logprobs, device=device)

    def check_vllm(self) -> None:
        """Measure the gap and judge it.

        Raises:
            ValueError: see :meth:`judge_vllm_gap`.
        """
        self.judge_vllm_gap(self.measure_vllm_gap())

    def judge_vllm_gap(self, gap: float) -> None:
        """Stop where vLLM and the trainer don't have the same policy.

        Raises:
            ValueError: `gap` is above the limit, or no number.
        """
        precision = self.vllm_generation.llm.model_config.dtype
        limit = self.args.vllm_max_logprob_gap
        limit = LIMITS[precision] if limit is None else limit
        if gap <= limit:
            logger.info("vLLM's log-probabilities differ from the trainer's by %.2g in the mean.", gap)
            return
        raise ValueError(
            f"vLLM's log-probabilities differ from the trainer's by {gap:.3g} in the mean, more than "
            f"vllm_max_logprob_gap allows in {str(precision).removeprefix('torch.')} ({limit:g}): it doesn't sample "
            "from the policy that is trained. Likely causes: the model's weights did not reach vLLM (a model that "
            "was changed after it was loaded, an architecture whose names differ); vLLM computes in another precision "
            f"than the trainer ({self.accelerator.mixed_precision!r} over {self.model.dtype} weights); images that "
            "the two prepare differently (pixel limits, a processor given by hand); a logits processor of vLLM's "
            "that the trainer knows nothing of. Where the rounding of a large model is all there is, raise "
            "vllm_max_logprob_gap."
        )

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        step = self.state.global_step
        compares = self.use_vllm and self.vllm_mode == "colocate" and self.vllm_importance_sampling_correction
        if compares and self.model.training and len(self._steps_compared | {step}) <= 2 and self._samples_wholly():
            self._steps_compared.add(step)
            self.judge_vllm_gap(self._metrics["train"]["sampling/sampling_logp_difference/mean"][-1])
        return output

    @contextmanager
    def sampling_wholly(self, **settings: Any) -> Iterator[None]:
        """Let vLLM sample as the trainer computes: image tokens stay banned, and stop tokens end a completion.

        Args:
            settings: further attributes of the backend for that while, such as `temperature`.
        """
        backend = self.vllm_generation
        given = backend.generation_kwargs or {}
        kwargs = {name: value for name, value in given.items() if name in HARMLESS}
        vision_tokens = self._vision_tokens()
        bias = {token: value for token, value in self._logit_bias().items() if token in vision_tokens}
        if bias:
            kwargs["logit_bias"] = bias
        with swapped(backend, {**WHOLE, "generation_kwargs": kwargs, **settings}):
            yield

    def _samples_wholly(self) -> bool:
        """Whether vLLM samples from the whole distribution, so that its log-probabilities can be the trainer's."""
        backend = self.vllm_generation
        settings = {name: getattr(backend, name) for name in WHOLE}
        # a bias of image tokens alone is the ban, which the backend takes out of its log-probabilities
        bans_only = self._logit_bias().keys() <= self._vision_tokens()
        return set(bending_settings(settings, backend.generation_kwargs)) <= ({"logit_bias"} if bans_only else set())

    def _logit_bias(self) -> dict[int, float]:
        bias = (self.vllm_generation.generation_kwargs or {}).get("logit_bias") or {}
        return {int(token): value for token, value in bias.items()}

    def _vision_tokens(self) -> set[int]:
        return vision_token_ids(self.accelerator.unwrap_model(self.model).config)


class _CheckCallback(TrainerCallback):
    """Compare vLLM with the trainer before the first step."""

    def __init__(self, trainer: ColocatedVLLM) -> None:
        self.trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.trainer.check_vllm()


@contextmanager
def swapped(target: Any, settings: dict[str, Any]) -> Iterator[None]:
    """Give attributes other values for a while."""
    before = {name: getattr(target, name) for name in settings}
    for name, value in settings.items():
        setattr(target, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(target, name, value)


@contextmanager
def _colocated_backend(args: Any) -> Iterator[None]:
    """Let TRL build its backend with ours before it; it takes the class from its module, and has no option for it."""
    if not (args.use_vllm and args.vllm_mode == "colocate"):
        yield
        return
    module: Any = grpo_trainer
    stock = module.VLLMGeneration
    module.VLLMGeneration = type(stock.__name__, (ColocatedEngine, stock), {})
    try:
        yield
    finally:
        module.VLLMGeneration = stock


def _images_of(row: dict[str, Any]) -> list:
    image = row.get("image")
    return list(row.get("images") or ([] if image is None else [image]))


def _as_tensor(values: Any, num_new_tokens: int) -> torch.Tensor:
    """A field of the processor for one row; one value for each token goes on with zeros over what was sampled."""
    if isinstance(values, list):
        return torch.tensor([[*values[0], *[0] * num_new_tokens]])
    return values if isinstance(values, torch.Tensor) else torch.tensor(np.asarray(values))
