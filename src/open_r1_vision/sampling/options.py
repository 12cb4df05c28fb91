# SPDX-License-Identifier: Apache-2.0
"""Options of sampling: the keys of a training recipe, with the same meaning, and a few of its own."""

import difflib
import json
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, TypeVar

from open_r1_vision.arguments import DataArguments, Recipe, ScriptArguments, parse_recipe
from open_r1_vision.importing import import_callable
from open_r1_vision.reasoners.config import ReasonerConfig

BACKENDS = ("transformers", "vllm", "endpoint")
#: Options of the trainers that change what is sampled, and that sampling leaves at these values.
_NEUTRAL: dict[str, tuple] = {
    "top_k": (None, 0),
    "min_p": (None, 0),
    "repetition_penalty": (None, 1),
    "generation_kwargs": (None, {}),
    "chat_template_kwargs": (None, {}),
}

T = TypeVar("T")


@dataclass
class DrawArguments:
    """Which model is sampled, and how: what samplers need to know."""

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "Model: a folder, a hub id, or the dotted path of a callable that gives one."}
    )
    model_revision: str = field(default="main", metadata={"help": "Branch, tag or commit of a hub model."})
    dtype: str | None = field(
        default=None, metadata={"help": "Precision; by default bfloat16 on a GPU and float32 elsewhere."}
    )
    attn_implementation: str | None = field(default=None, metadata={"help": "As in training."})
    num_generations: int = field(default=8, metadata={"help": "Samples of each row."})
    temperature: float = field(default=1.2, metadata={"help": "Of the sampling, above 0."})
    top_p: float = field(default=0.99, metadata={"help": "Nucleus of the sampling, in (0, 1]."})
    max_completion_length: int = field(default=2048, metadata={"help": "Most tokens of a sample."})
    stop_token: str | None = field(
        default=None, metadata={"help": "A token that ends a sample as the end of text does, as in training."}
    )
    seed: int = field(default=42, metadata={"help": "With a row's id and a sample's number, it decides that sample."})
    min_pixels: int | None = field(
        default=None, metadata={"help": "Images with fewer pixels are enlarged by the processor."}
    )
    max_pixels: int | None = field(
        default=None, metadata={"help": "Images with more pixels are reduced by the processor."}
    )
    backend: str = field(
        default="transformers", metadata={"help": "transformers, vllm (both in this process), or endpoint: a server."}
    )
    endpoint: dict | str | None = field(
        default=None,
        metadata={
            "help": "A server that speaks the OpenAI protocol: {base_url, model, api_key_env, concurrency, …}, see "
            "open_r1_vision.reasoners.config. Servers take what is not said from the model's own settings: "
            "extra_body: {repetition_penalty: 1.0, top_k: 0} tells vLLM's otherwise."
        },
    )
    vllm_gpu_memory_utilization: float = field(default=0.8, metadata={"help": "vllm: share of the GPU's memory."})
    vllm_tensor_parallel_size: int = field(
        default=1, metadata={"help": "vllm, one process: GPUs that share the model."}
    )
    vllm_max_model_length: int | None = field(
        default=None, metadata={"help": "vllm: longest prompt and sample together; by default the model's limit."}
    )

    def __post_init__(self) -> None:
        self.temperature, self.top_p = float(self.temperature), float(self.top_p)
        if self.backend not in BACKENDS:
            raise ValueError(f"backend is {self.backend!r}: set one of {', '.join(BACKENDS)}.")
        if self.temperature < 0 or (self.temperature == 0 and self.num_generations > 1):
            raise ValueError(
                f"temperature is {self.temperature:g}, at which all samples of a row are the same: raise it."
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p:g}: set it above 0 and up to 1.")
        for name in ("num_generations", "max_completion_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: set at least 1.")
        if self.dtype not in (None, "float32", "bfloat16", "float16"):
            raise ValueError(f"dtype is {self.dtype!r}: set float32, bfloat16 or float16, or leave it out.")
        if isinstance(self.endpoint, str):
            try:
                self.endpoint = json.loads(self.endpoint)
            except ValueError as error:
                raise ValueError(f"endpoint is {self.endpoint!r}, which is not JSON ({error}).") from error
        if self.backend == "endpoint":
            self.endpoint_config()
            if self.stop_token is not None:
                raise ValueError("stop_token is for models in this process: give a server `stop` in extra_body.")
        elif not self.model_name_or_path:
            raise ValueError("There is no model to sample: set model_name_or_path.")

    def endpoint_config(self) -> ReasonerConfig:
        """The server, as reasoners describe theirs.

        Raises:
            ValueError: settings that can't work.
        """
        block = self.endpoint
        if not isinstance(block, dict):
            raise ValueError("backend is endpoint: set `endpoint` to a block such as {base_url: http://host:8000/v1}.")
        own = [name for name in ("kind", "temperature", "top_p", "max_tokens", "n", "seed") if name in block]
        if own:
            raise ValueError(f"`endpoint` has {', '.join(own)}: set the recipe's own keys for the sampling instead.")
        sampling = {"temperature": self.temperature, "top_p": self.top_p, "max_tokens": self.max_completion_length}
        limits = {"model": self.model_name_or_path, "batch_seconds": 3600.0, "request_seconds": 1200.0}
        return ReasonerConfig.from_mapping({"kind": "endpoint", **limits, **sampling, "seed": 0, **block})

    def stop_ids(self, tokenizer: Any) -> list[int]:
        """The id of `stop_token`, if any.

        Raises:
            ValueError: the tokenizer splits it.
        """
        ids = tokenizer.encode(self.stop_token, add_special_tokens=False) if self.stop_token is not None else []
        if len(ids) > 1:
            raise ValueError(
                f"stop_token is {self.stop_token!r}, which this model's tokenizer splits into {len(ids)} tokens: set "
                "it to one token, or leave it out."
            )
        return ids


@dataclass
class SampleArguments(DrawArguments, DataArguments):
    """What is sampled from what, and how."""

    max_prompt_tokens: int | None = field(
        default=None,
        metadata={"help": "Rows with a longer prompt, image tokens included, are left out and reported."},
    )
    rows_per_batch: int = field(
        default=8, metadata={"help": "Rows that are sampled together, num_generations times each: the memory knob."}
    )
    output_dir: str = field(default="runs/samples", metadata={"help": "Folder of the samples."})
    overwrite_output: bool = field(default=False, metadata={"help": "Forget the samples that the folder holds."})

    def __post_init__(self) -> None:
        DataArguments.__post_init__(self)
        super().__post_init__()
        if self.temperature == 0:
            raise ValueError("temperature is 0, at which all samples of a row are the same: raise it.")
        if self.rows_per_batch < 1:
            raise ValueError(f"rows_per_batch is {self.rows_per_batch}: set at least 1.")
        without_model = self.backend == "endpoint" and self.model_name_or_path is None
        if without_model and self.max_prompt_tokens is not None:
            raise ValueError(
                "max_prompt_tokens is set, but prompts can't be counted without the model's processor: set "
                "model_name_or_path to the folder or hub id of what the server serves, or leave max_prompt_tokens "
                "out."
            )

    def deciding(self) -> dict[str, Any]:
        """The options that decide samples; the others may change between a start and the next one."""
        names = [
            *("model_name_or_path", "model_revision", "dtype", "attn_implementation", "num_generations"),
            *("temperature", "top_p", "max_completion_length", "max_prompt_tokens", "stop_token", "seed"),
            *("backend", "min_pixels", "max_pixels", "dataset", "dataset_split", "dataset_options"),
        ]
        decided = {name: getattr(self, name) for name in names}
        if self.backend == "endpoint":
            config = self.endpoint_config()
            decided |= {f"endpoint.{name}": getattr(config, name) for name in ("model", "extra_body")}
        return {**decided, **self.prompt_texts}


def read_part(recipe: Recipe, kind: type[T]) -> T:
    """The keys of a recipe that `kind` has; the others must be a trainer's.

    So that samples are drawn, and scored, by the recipe that is trained.

    Raises:
        ValueError: a key that neither has, with the nearest right one, or a value that can't work.
    """
    own = {item.name for item in fields(kind) if item.init}  # type: ignore[arg-type]
    others = [key for key in recipe.settings if key not in own]
    if others:
        _check_names(recipe, others, own)
    required = [item.name for item in fields(kind) if item.default is MISSING and item.default_factory is MISSING]  # type: ignore[arg-type]
    missing = [name for name in required if name not in recipe.settings]
    if missing:
        raise ValueError(f"{', '.join(missing)} is not set: give it in the recipe or as --{missing[0]}.")
    (parsed,) = parse_recipe(recipe.only(own), [kind])
    return parsed


def check_sampling_keys(recipe: Recipe) -> None:
    """Refuse options of the trainer's that would change what training samples, and that sampling does not know.

    Raises:
        ValueError: there is one.
    """
    plain = recipe.as_plain()
    for key, neutral in _NEUTRAL.items():
        if key in plain and plain[key] not in neutral:
            raise ValueError(
                f"{key} is {plain[key]!r}, which training would use and sampling does not know, so that samples would "
                f"not be those that training sees: leave {key} out."
            )


def _check_names(recipe: Recipe, others: Sequence[str], own: set[str]) -> None:
    from trl import ModelConfig

    trainer: Any = import_callable(recipe.as_plain().get("trainer") or ScriptArguments.trainer)
    kinds: list[Any] = [ScriptArguments, trainer.config_class, ModelConfig]
    known = {item.name for kind in kinds for item in fields(kind) if item.init}
    messages = []
    for key in others:
        if key not in known:
            near = difflib.get_close_matches(key, own | known, n=1)
            messages.append(recipe.describe_unknown(key, near[0] if near else None))
    if messages:
        raise ValueError("\n".join(messages))
