# SPDX-License-Identifier: Apache-2.0
"""One block of a recipe that says who reads or judges: its kind, its model, its sampling and its budget.

reasoner:
  kind: endpoint
  model: Qwen/Qwen2.5-32B-Instruct-AWQ
  base_url: http://127.0.0.1:8000/v1
  max_tokens: 64
  cache: runs/judge.sqlite
"""

import difflib
import json
import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

logger = logging.getLogger(__name__)

KINDS = ("policy", "local", "endpoint")
BACKENDS = ("transformers", "vllm")
DTYPES = (None, "float32", "bfloat16", "float16")
POLICIES = ("group_mean", "drop_group", "zero", "abort")
#: Settings that decide what is replied. All others say where and within which limits, and may change in between.
DECIDING = (
    *("kind", "model", "temperature", "top_p", "max_tokens", "n", "seed", "dtype"),
    *("response_schema", "chat_template_kwargs", "extra_body"),
)

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_SECRET = re.compile(r"(^|[_-])(key|token|secret|password|authorization)$", re.IGNORECASE)
#: Settings that only one kind uses.
_ONLY = {
    "endpoint": ("base_url", "api_key_env", "extra_body"),
    "local": ("device", "dtype", "context_tokens"),
}
#: Bounds of the numbers: least, most, whether they are whole. None is no bound.
_BOUNDS: dict[str, tuple[float, float | None, bool]] = {
    "temperature": (0, 2, False),
    "top_p": (1e-6, 1, False),
    "max_tokens": (1, None, True),
    "n": (1, None, True),
    "max_failure_rate": (0, 1, False),
    "failure_window": (1, None, True),
    "concurrency": (1, 1000, True),
    "request_seconds": (0.01, None, False),
    "batch_seconds": (0.01, None, False),
    "start_seconds": (0.01, None, False),
    "retries": (0, 100, True),
    "backoff_seconds": (0, None, False),
    "breaker_failures": (1, None, True),
    "outage_seconds": (0, None, False),
    "batch_size": (1, None, True),
    "gpu_memory": (0.01, 1, False),
}


@dataclass
class ReasonerConfig:
    """Who reads or judges, and within which limits. Holds the name of the key's environment variable, never a key.

    Raises:
        ValueError: settings that can't work; the message says what to set.
    """

    kind: str = field(
        default="policy",
        metadata={
            "help": "policy: the live model, greedily. local: a frozen model in this process. endpoint: a server that "
            "speaks the OpenAI protocol, such as `vllm serve`, `transformers serve`, or a hosted one."
        },
    )
    model: str | None = field(
        default=None, metadata={"help": "Folder or hub id (local), or the model's name at the server (endpoint)."}
    )
    temperature: float = field(default=0.0, metadata={"help": "0 decodes greedily; at most 2."})
    top_p: float = field(default=1.0, metadata={"help": "Nucleus of the sampling, in (0, 1]."})
    max_tokens: int = field(default=512, metadata={"help": "Most tokens of a reply, thinking included."})
    n: int = field(default=1, metadata={"help": "Replies to each chat; more than 1 needs a temperature above 0."})
    seed: int | None = field(default=None, metadata={"help": "Seed of the sampling, where the server has one."})
    response_schema: dict | None = field(
        default=None,
        metadata={
            "help": "JSON schema of a reply. Servers and vLLM are held to it where they can be; a reply that does not "
            "fit is a failure everywhere. Say in the prompt too what is wanted."
        },
    )
    chat_template_kwargs: dict | None = field(
        default=None, metadata={"help": "Passed to the chat template, such as {enable_thinking: false}."}
    )
    on_failure: str = field(
        default="group_mean",
        metadata={
            "help": "What a completion without verdict gets. group_mean: the mean of its judged siblings; drop_group: "
            "its group teaches nothing; zero: 0; abort: the run stops."
        },
    )
    max_failure_rate: float = field(
        default=0.2, metadata={"help": "Training stops when more than this share of failure_window verdicts failed."}
    )
    failure_window: int = field(default=1000, metadata={"help": "Verdicts, over all processes, that the rate covers."})
    cache: str | None = field(
        default=None,
        metadata={
            "help": "SQLite file, on a local disk, of replies by model, messages and sampling. Several processes may "
            "share it. Delete it when a model changes behind its name."
        },
    )
    cache_sampled: bool = field(default=False, metadata={"help": "Cache replies of a temperature above 0 too."})
    log: str | None = field(default=None, metadata={"help": "JSONL file that every request and verdict is added to."})
    base_url: str | None = field(
        default=None, metadata={"help": "endpoint: address up to the version, such as http://127.0.0.1:8000/v1."}
    )
    api_key_env: str | None = field(
        default=None, metadata={"help": "endpoint: name of the environment variable that holds the key, if any."}
    )
    extra_body: dict | None = field(
        default=None,
        metadata={
            "help": "endpoint: further fields of a request, such as {repetition_penalty: 1.0}: servers take what is "
            "not said from the model's own generation settings."
        },
    )
    concurrency: int = field(default=64, metadata={"help": "endpoint: most requests under way in one process."})
    request_seconds: float = field(default=120.0, metadata={"help": "endpoint: limit of one attempt."})
    batch_seconds: float = field(
        default=600.0, metadata={"help": "Limit of one batch with all retries; must be below ddp_timeout."}
    )
    start_seconds: float = field(
        default=10.0, metadata={"help": "endpoint: how long a server may take to answer before the run starts."}
    )
    retries: int = field(default=4, metadata={"help": "endpoint: further attempts after a failure that may pass."})
    backoff_seconds: float = field(
        default=0.5, metadata={"help": "endpoint: first pause, doubled up to 30 s, less up to a half of it by chance."}
    )
    breaker_failures: int = field(
        default=5, metadata={"help": "endpoint: failed attempts in a row after which one request at a time probes."}
    )
    outage_seconds: float = field(
        default=120.0,
        metadata={"help": "endpoint: how long requests wait for a server that is down before they fail at once."},
    )
    backend: str = field(default="transformers", metadata={"help": "local: transformers, or vllm beside the policy."})
    device: str | None = field(default=None, metadata={"help": "local: by default this process's GPU, or the CPU."})
    dtype: str | None = field(default=None, metadata={"help": "local: by default bfloat16 on a GPU, else float32."})
    batch_size: int = field(default=16, metadata={"help": "local, transformers: chats that are decoded together."})
    context_tokens: int | None = field(
        default=None, metadata={"help": "local: longest prompt and reply together; by default the model's limit."}
    )
    gpu_memory: float = field(default=0.3, metadata={"help": "local, vllm: share of the GPU's memory."})

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> "ReasonerConfig":
        """Build it from a recipe's block.

        Raises:
            ValueError: a key that it does not have, with the nearest right one, or settings that can't work.
        """
        names = [item.name for item in fields(cls)]
        for key in mapping:
            if key not in names:
                near = difflib.get_close_matches(str(key), names, n=1)
                if str(key).lower() in ("api_key", "key", "token"):
                    raise ValueError(
                        f"A reasoner has no `{key}`: recipes are saved and shared, keys are not. Put the key into an "
                        "environment variable, set `api_key_env` to its name, and change the key if the file was "
                        "shared."
                    )
                hint = f"Did you mean `{near[0]}`?" if near else f"It has: {', '.join(names)}."
                raise ValueError(f"A reasoner has no `{key}`. {hint}")
        return cls(**mapping)

    @property
    def caches(self) -> bool:
        """Whether replies go to the cache and come from it."""
        return self.cache is not None and (self.temperature == 0 or self.cache_sampled)

    def __post_init__(self) -> None:
        self._check_choices()
        for name, (low, high, whole) in _BOUNDS.items():
            setattr(self, name, _number(name, getattr(self, name), low, high, whole))
        for name in ("seed", "context_tokens"):
            if getattr(self, name) is not None:
                setattr(self, name, _number(name, getattr(self, name), 0, None, True))
        for name in ("response_schema", "chat_template_kwargs", "extra_body"):
            if getattr(self, name) is not None and not isinstance(getattr(self, name), Mapping):
                raise ValueError(f"{name} is a {type(getattr(self, name)).__name__}: give a mapping, or leave it out.")
        self._check_sampling()
        if self.kind == "endpoint":
            self._check_endpoint()
        elif self.kind == "local" and not self.model:
            raise ValueError("kind is local, but there is no model: set `model` to the folder or hub id of a model.")
        elif self.kind == "policy":
            self._check_policy()
        for kind, names in _ONLY.items():
            unused = [name for name in names if kind != self.kind and getattr(self, name) is not None]
            if unused:
                logger.warning("%s has no effect on a reasoner of kind %s.", ", ".join(unused), self.kind)

    def _check_choices(self) -> None:
        choices: dict[str, tuple] = {"kind": KINDS, "backend": BACKENDS, "on_failure": POLICIES, "dtype": DTYPES}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                names = ", ".join(choice for choice in allowed if choice)
                raise ValueError(f"{name} is {getattr(self, name)!r}: set one of {names}.")

    def _check_sampling(self) -> None:
        if self.temperature == 0 and self.n > 1:
            raise ValueError(
                f"n is {self.n}, but at temperature 0 all {self.n} replies are the same: set n to 1 or temperature "
                "above 0."
            )
        if self.cache and not self.caches:
            logger.warning(
                "The cache %s has no effect at temperature %s, where each reply is a new draw. Set cache_sampled to "
                "keep the first draw.",
                self.cache,
                self.temperature,
            )

    def _check_policy(self) -> None:
        if self.temperature > 0 or self.n > 1:
            raise ValueError(
                f"temperature is {self.temperature} and n is {self.n}, but the live policy reads greedily and once: "
                "set temperature 0 and n 1, or another kind."
            )
        if self.cache:
            raise ValueError(
                f"cache is {self.cache!r}, but the live policy replies differently after each step: leave the cache "
                "out, or set another kind."
            )

    def _check_endpoint(self) -> None:
        if not self.base_url or not self.model:
            missing = "base_url" if not self.base_url else "model"
            raise ValueError(
                f"kind is endpoint, but {missing} is missing: set `base_url` to the server's address, such as "
                "http://127.0.0.1:8000/v1, and `model` to a name that the server lists under /models."
            )
        self.base_url = _base_url(self.base_url)
        if self.api_key_env is not None and not _VARIABLE.fullmatch(str(self.api_key_env)):
            raise ValueError(
                "api_key_env is not the name of an environment variable (it is not shown, it may be the key itself): "
                "export the key under a name such as REASONER_API_KEY, and set api_key_env to that name."
            )
        for key in self.extra_body or {}:
            if _SECRET.search(str(key)):
                raise ValueError(
                    f"extra_body has {key!r}, which looks like a key, and is saved and cached: set api_key_env to the "
                    "name of an environment variable instead."
                )
        if self.request_seconds > self.batch_seconds:
            raise ValueError(
                f"request_seconds is {self.request_seconds:g}, but a whole batch has only batch_seconds "
                f"{self.batch_seconds:g}: lower the first or raise the second."
            )


def read_block(text: str, key: str = "reasoner") -> dict[str, Any]:
    """The block that an option of a command line gives: as JSON, or in a YAML or JSON file.

    Args:
        text: a JSON object, or the path of a file that holds the block alone or, as a recipe does, under `key`.
        key: the block's name in a recipe; `reasoner`, `fact_judge`, `description_judge`.

    Raises:
        ValueError: there is no block. The message repeats nothing of the text, in which a key may stand.
    """
    advice = f"give a JSON object, or the path of a YAML or JSON file with such settings, alone or under `{key}:`."
    is_inline = text.lstrip().startswith("{")
    if not is_inline:
        try:
            text = Path(text).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            reason = (isinstance(error, OSError) and error.strerror) or "it is no text"
            raise ValueError(f"{key} is no JSON object, and no file that can be read ({reason}): {advice}") from None
    where = "the text" if is_inline else "the file"
    try:
        value = _parse(text)
        block = value.get(key, value) if isinstance(value, dict) else None
        # in a recipe a block may be JSON, too
        block = _parse(block) if isinstance(block, str) else block
    except ValueError as error:
        raise ValueError(f"{key}: {where} is neither JSON nor YAML{error}: {advice}") from None
    if not isinstance(block, dict):
        raise ValueError(f"{key}: {where} holds no mapping: {advice}")
    return block


def _parse(text: str) -> Any:
    """A value in JSON, or else in YAML, which reads some numbers of JSON as strings."""
    import yaml

    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # YAML's own message quotes the text
        mark = getattr(error, "problem_mark", None)
        raise ValueError(f" (line {mark.line + 1}, column {mark.column + 1})" if mark else "") from None


def _number(name: str, value: Any, low: float, high: float | None, whole: bool) -> int | float:
    bounds = f"at least {low:g}" + ("" if high is None else f" and at most {high:g}")
    try:
        # YAML reads 1e-1 as a string
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
        number = math.nan
    if not low <= number < math.inf or (high is not None and number > high) or (whole and number != int(number)):
        raise ValueError(f"{name} is {value!r}: set {'a whole number' if whole else 'a number'} of {bounds}.")
    return int(number) if whole else number


def _base_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query:
        raise ValueError(
            f"base_url of {parts.hostname} has a user, a password or a query in it, which would be saved: leave them "
            "out, and set api_key_env to the name of an environment variable that holds the key."
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"base_url is {url!r}: give an address such as http://127.0.0.1:8000/v1.")
    return url.rstrip("/")
