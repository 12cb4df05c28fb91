# SPDX-License-Identifier: Apache-2.0
"""What one evaluation is: benchmark, data, model, prompts, sampling, backend, and where it goes."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from open_r1_vision.evaluate.items import PROMPT_STYLES

BACKENDS = ("transformers", "vllm", "endpoint", "three_step")
#: Items that are worked on together. A model's memory bounds the first; the others queue requests by themselves, and
#: a run that is killed loses what is under way.
_BATCH_SIZES = {"transformers": 8, "vllm": 256, "endpoint": 32, "three_step": 8}
#: Options that only some backends use.
_ONLY: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("calibration", "calibration_span", "plausibility", "attn_implementation"), ("transformers",)),
    **dict.fromkeys(("stop_token", "dtype"), ("transformers", "vllm")),
    **dict.fromkeys(("base_url", "api_key_env", "server"), ("endpoint",)),
    **dict.fromkeys(("vllm_gpu_memory_utilization", "vllm_tensor_parallel_size", "vllm_max_model_length"), ("vllm",)),
    **dict.fromkeys(("reasoner", "steps"), ("three_step",)),
    **dict.fromkeys(("temperature", "top_p", "max_tokens", "seed", "samples"), ("transformers", "vllm", "endpoint")),
}


@dataclass
class RunOptions:
    """One run, as the command line gives it.

    Raises:
        ValueError: options that can't work, or that have no effect on this backend.
    """

    benchmark: str = field(metadata={"help": "name of a benchmark, see `list`"})
    output: str = field(metadata={"help": "folder; the run is in its subfolder of the benchmark's name"})
    data: str | None = field(default=None, metadata={"help": "the benchmark's data file"})
    model: str | None = field(
        default=None, metadata={"help": "folder, hub id or dotted path; with endpoint the name at the server"}
    )
    backend: str = field(
        default="transformers",
        metadata={"help": "transformers, vllm (both in this process), endpoint (a server), or three_step (RACRO's)"},
    )
    revision: str = field(default="main", metadata={"help": "branch, tag or commit of a hub model"})
    dtype: str | None = field(default=None, metadata={"help": "precision; bfloat16 on a GPU, float32 elsewhere"})
    attn_implementation: str | None = field(default=None, metadata={"help": "attention of transformers"})
    prompt_style: str = field(
        default="benchmark",
        metadata={"help": "benchmark: as the benchmark's authors ask; method: as the model was trained"},
    )
    system_prompt: str | None = field(
        default=None, metadata={"help": "method: packaged prompt or text file, as in the recipe"}
    )
    user_prompt: str | None = field(
        default=None, metadata={"help": "method: template with {problem}, as in the recipe"}
    )
    samples: int = field(default=1, metadata={"help": "of each item"})
    temperature: float = field(default=0.0, metadata={"help": "0 decodes greedily"})
    top_p: float = field(default=1.0, metadata={"help": "nucleus of the sampling, in (0, 1]"})
    max_tokens: int = field(
        default=2048, metadata={"help": "of a sample; a longer one counts as truncated, and wrong"}
    )
    stop_token: str | None = field(default=None, metadata={"help": "one more token that ends a sample"})
    seed: int = field(
        default=0, metadata={"help": "with an item's index and a sample's number it decides that sample"}
    )
    min_pixels: int | None = field(default=None, metadata={"help": "smaller images are enlarged"})
    max_pixels: int | None = field(default=None, metadata={"help": "larger images are reduced"})
    limit: int | None = field(default=None, metadata={"help": "the first so many items only"})
    batch_size: int | None = field(
        default=None, metadata={"help": "items at a time: 8, with vllm 256, with endpoint 32"}
    )
    calibration: float = field(default=0.0, metadata={"help": "scale of text-bias calibration; 0 is plain decoding"})
    calibration_span: str | None = field(default=None, metadata={"help": "calibrate inside of this tag only"})
    plausibility: float = field(default=0.0, metadata={"help": "least share of the top token's probability"})
    base_url: str | None = field(default=None, metadata={"help": "endpoint: address, such as http://host:8000/v1"})
    api_key_env: str | None = field(
        default=None, metadata={"help": "endpoint: name of the environment variable with the key"}
    )
    server: str | None = field(
        default=None, metadata={"help": "endpoint: further settings of a reasoner, as JSON or in a file"}
    )
    vllm_gpu_memory_utilization: float = field(default=0.8, metadata={"help": "vllm: share of the GPU's memory"})
    vllm_tensor_parallel_size: int = field(default=1, metadata={"help": "vllm: GPUs that share the model"})
    vllm_max_model_length: int | None = field(default=None, metadata={"help": "vllm: longest prompt and sample"})
    reasoner: str | None = field(
        default=None, metadata={"help": "three_step: who answers from the captions, as JSON or in a file"}
    )
    steps: str | None = field(
        default=None, metadata={"help": "three_step: prompts and limits of the steps, as JSON or in a file"}
    )
    judge: str | None = field(
        default=None, metadata={"help": "a text model that judges what the rule finds wrong, as JSON or in a file"}
    )
    overwrite: bool = field(default=False, metadata={"help": "forget what the folder holds"})

    def __post_init__(self) -> None:
        for name, choices in (("backend", BACKENDS), ("prompt_style", PROMPT_STYLES)):
            if getattr(self, name) not in choices:
                raise ValueError(f"--{name} is {getattr(self, name)!r}: give one of {', '.join(choices)}.")
        for name in ("samples", "max_tokens", "batch_size", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name} is {value}: give at least 1.")
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ValueError(
                f"--temperature is {self.temperature:g} and --top_p {self.top_p:g}: the first is at least 0, the "
                "second above 0 and up to 1."
            )
        self._check_samples()
        self._check_effects()

    @property
    def items_at_once(self) -> int:
        """Items of one batch."""
        return self.batch_size or _BATCH_SIZES[self.backend]

    @property
    def is_sampled(self) -> bool:
        """Whether samples are drawn by chance."""
        return self.backend == "three_step" or self.temperature > 0

    def prompt_texts(self) -> dict[str, str | None]:
        """System prompt and template of the user's message, read.

        Raises:
            ValueError: one of them is not to be found, or the template has no `{problem}`.
        """
        from open_r1_vision.prompts import load_prompt, load_template

        return {
            "system_prompt": load_prompt(self.system_prompt) if self.system_prompt else None,
            "user_prompt": load_template(self.user_prompt, "problem") if self.user_prompt else None,
        }

    def server_block(self) -> dict[str, Any]:
        """The server's settings, as a reasoner's block."""
        from open_r1_vision.reasoners.config import read_block

        block = read_block(self.server, "endpoint") if self.server else {}
        given = {"base_url": self.base_url, "api_key_env": self.api_key_env}
        return {**block, **{name: value for name, value in given.items() if value is not None}}

    def draw_arguments(self, model: str | None) -> Any:
        """The same for a sampler of :mod:`open_r1_vision.sampling`.

        Args:
            model: the model's folder or hub id, the name at the server with endpoint.

        Raises:
            ValueError: settings that can't work.
        """
        from open_r1_vision.sampling.options import DrawArguments

        same = {item.name for item in fields(DrawArguments)} & {item.name for item in fields(RunOptions)}
        return DrawArguments(
            **{name: getattr(self, name) for name in same - {"backend"}},
            backend="transformers" if self.backend == "three_step" else self.backend,
            model_name_or_path=model,
            model_revision=self.revision,
            num_generations=self.samples,
            max_completion_length=self.max_tokens,
            endpoint=self.server_block() if self.backend == "endpoint" else None,
        )

    def _check_samples(self) -> None:
        if self.samples > 1 and not self.is_sampled:
            raise ValueError(
                f"--samples is {self.samples}, but at temperature 0 all samples of an item are the same: give a "
                "--temperature above 0, such as 1.0, or one sample."
            )
        if self.backend == "endpoint" and not (self.base_url or self.server):
            raise ValueError("--backend endpoint needs the server's address: give --base_url http://HOST:PORT/v1.")
        if self.backend == "three_step" and not self.reasoner:
            raise ValueError(
                "--backend three_step needs a text model that answers from the captions: give its block with "
                '--reasoner, such as \'{"kind": "local", "model": "Qwen/Qwen3-8B"}\', or a file that holds it.'
            )
        if not self.model:
            raise ValueError("There is no model to evaluate: give --model.")

    def _check_effects(self) -> None:
        defaults = {item.name: item.default for item in fields(self)}
        idle = [
            name
            for name, kinds in _ONLY.items()
            if getattr(self, name) != defaults[name] and self.backend not in kinds
        ]
        if idle:
            where = "in the block of --reasoner" if self.backend == "three_step" else "elsewhere"
            raise ValueError(
                f"{', '.join(f'--{name}' for name in idle)} has no effect with --backend {self.backend}: leave it "
                f"out{f', or set it {where}' if self.backend == 'three_step' else ''}."
            )
        if self.prompt_style != "method" and (self.system_prompt or self.user_prompt):
            raise ValueError(
                "--system_prompt and --user_prompt change how an item is asked, and --prompt_style benchmark asks as "
                "the benchmark's authors do: give --prompt_style method too, or leave them out."
            )


def read_training_recipe(path: str, backend: str) -> dict[str, Any]:
    """What a training recipe says of the way in which its model is asked, as options of a run.

    What has no effect on the backend is left out: a server ends its replies itself, three steps have limits of their
    own.

    Raises:
        ValueError: it can't be read.
    """
    from open_r1_vision.arguments import read_recipe

    if not Path(path).is_file():
        raise ValueError(f"There is no recipe {path!r}: give the path of a YAML file to --recipe.")
    said = read_recipe(["--config", path]).as_plain()
    names = ("system_prompt", "user_prompt", "min_pixels", "max_pixels", "stop_token")
    options = {name: said[name] for name in names if said.get(name) is not None}
    if said.get("max_completion_length") is not None:
        options["max_tokens"] = said["max_completion_length"]
    options = {name: value for name, value in options.items() if backend in _ONLY.get(name, BACKENDS)}
    return {"prompt_style": "method", **options}


def output_folder(options: RunOptions, benchmark: str) -> Path:
    """Where a run goes."""
    return Path(options.output) / benchmark
