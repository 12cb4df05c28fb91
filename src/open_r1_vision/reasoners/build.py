# SPDX-License-Identifier: Apache-2.0
"""From a recipe's block to a reasoner that has been found to answer."""

from collections.abc import Callable
from importlib.util import find_spec

from open_r1_vision.reasoners.config import ReasonerConfig
from open_r1_vision.reasoners.interface import Reasoner


def build_reasoner(
    config: ReasonerConfig,
    *,
    generate: Callable[[list[list[dict]], int], list[str]] | None = None,
    ddp_timeout: float | None = None,
    check: bool = True,
) -> Reasoner:
    """Make the reasoner of a config.

    Args:
        config: what kind, which model, within which limits.
        generate: how the live policy replies, such as `VisionGRPOTrainer.generate_greedy`; for kind `policy`.
        ddp_timeout: seconds after which the other processes give up on one that waits for its reasoner.
        check: find out within seconds whether it can reply.

    Raises:
        ValueError: it can't be built, does not answer, or may wait longer than the other processes would.
    """
    if ddp_timeout is not None and config.kind != "policy" and config.batch_seconds >= ddp_timeout:
        raise ValueError(
            f"batch_seconds is {config.batch_seconds:g}, but ddp_timeout is {ddp_timeout:g}: a process that waits for "
            "its reasoner would be given up by the others. Lower batch_seconds or raise ddp_timeout."
        )
    reasoner = _build(config, generate)
    if check:
        reasoner.check()
    return reasoner


def _build(config: ReasonerConfig, generate: Callable[[list[list[dict]], int], list[str]] | None) -> Reasoner:
    if config.kind == "policy":
        if generate is None:
            raise ValueError(
                "kind is policy, but there is no live policy here to ask: set kind to local or endpoint, or pass "
                "`generate`."
            )
        from open_r1_vision.reasoners.policy import PolicyReasoner

        return PolicyReasoner(config, generate)
    if config.kind == "local":
        from open_r1_vision.reasoners.local import LocalReasoner

        return LocalReasoner(config)
    if find_spec("openai") is None:
        raise ValueError(
            "kind is endpoint, which needs the package openai: `pip install open_r1_vision[reasoners]`, or set kind "
            "to local."
        )
    from open_r1_vision.reasoners.endpoint import EndpointReasoner

    return EndpointReasoner(config)
