# SPDX-License-Identifier: Apache-2.0
"""Text models that read captions and judge: the live policy, a frozen model in this process, or a server."""

from open_r1_vision.reasoners.build import build_reasoner
from open_r1_vision.reasoners.config import ReasonerConfig
from open_r1_vision.reasoners.failures import FailureGuard, TooManyFailures, consecutive_groups, fill_failures
from open_r1_vision.reasoners.interface import Failure, Outcome, Pending, Reasoner, Reply
from open_r1_vision.reasoners.readers import TextReader

__all__ = [
    "Failure",
    "FailureGuard",
    "Outcome",
    "Pending",
    "Reasoner",
    "ReasonerConfig",
    "Reply",
    "TextReader",
    "TooManyFailures",
    "build_reasoner",
    "consecutive_groups",
    "fill_failures",
]
