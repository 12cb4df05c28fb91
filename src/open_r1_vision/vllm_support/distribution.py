# SPDX-License-Identifier: Apache-2.0
"""Whether vLLM samples from the policy's whole distribution, as the trainer computes it."""

from collections.abc import Mapping
from typing import Any

#: Settings of TRL's backend, and where they leave the distribution whole.
WHOLE = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "structured_outputs_regex": None}
#: What a request may ask for beside them without bending it; anything else may.
HARMLESS = {
    "detokenize",
    "ignore_eos",
    "include_stop_str_in_output",
    "logprob_token_ids",
    "logprobs",
    "seed",
    "skip_special_tokens",
    "spaces_between_special_tokens",
    "stop",
    "stop_token_ids",
}


def bending_settings(settings: Mapping[str, Any], request: Mapping[str, Any] | None) -> list[str]:
    """Names of those settings that bend the distribution which is sampled from.

    vLLM's log-probabilities are then those of another distribution than the policy's: among the tokens of a nucleus
    they are larger by -log(its mass), at every token.

    Args:
        settings: the names of `WHOLE` with their values; those that are missing or None are left at what they are.
        request: TRL's `generation_kwargs`, which win over them.
    """
    request = {name: value for name, value in (request or {}).items() if value is not None}
    given = {name: request.get(name, settings.get(name)) for name in WHOLE}
    # vLLM takes 0 and -1 for no limit
    bent = [
        name
        for name, value in given.items()
        if value is not None and value != WHOLE[name] and (name, value) != ("top_k", -1)
    ]
    return [*bent, *sorted(request.keys() - WHOLE.keys() - HARMLESS)]
