# SPDX-License-Identifier: Apache-2.0
"""Options of the hint trainers."""

from dataclasses import dataclass, field

from open_r1_vision.importing import import_callable
from open_r1_vision.rewards.loading import required_columns
from open_r1_vision.trainers.caption_config import CaptionGRPOConfig
from open_r1_vision.trainers.config import VisionGRPOConfig


@dataclass
class HintGRPOConfig(VisionGRPOConfig):
    """Options of HintGRPOTrainer."""

    hint_mode: str = field(
        default="escalate",
        metadata={
            "help": "escalate: sample without hint, and sample the groups that are all wrong again, level by level. "
            "parallel: sample every level at once, as the authors do, M times the batch in one call. Both train the "
            "same group."
        },
    )
    hint_levels: int = field(
        default=3, metadata={"help": "M: level m in 0..M-1 gives the first floor(L * m / M) of a row's L steps."}
    )
    hint_max_share: float | None = field(
        default=None,
        metadata={"help": "Share of the steps that the last level gives, in (0, 1]; (M - 1) / M if unset."},
    )
    hint_column: str = field(
        default="reasoning_steps", metadata={"help": "Column with the steps of the reference, a list of strings."}
    )
    hint_template: str = field(
        default="<think>{hint}",
        metadata={
            "help": "Start of the response at levels above 0. {hint} is replaced by the steps, joined by a space. "
            "Nothing is put between it and what the model writes."
        },
    )
    hint_gate: str = field(
        default="open_r1_vision.rewards.accuracy_reward",
        metadata={
            "help": "Dotted path of the function that says which completions are right, called as a reward is, with "
            "its own defaults."
        },
    )
    hint_gate_threshold: float = field(
        default=0.0,
        metadata={
            "help": "A completion is right if the gate gives it more than this. Raise it for graded scores: of free "
            "texts hardly one has nothing in common with the gold."
        },
    )
    hint_counts_as_completion: bool = field(
        default=False,
        metadata={
            "help": "Whether the tokens of the hint count against max_completion_length. Levels whose hint alone "
            "reaches it are then left out."
        },
    )
    hint_memory: bool = field(
        default=False,
        metadata={
            "help": "Start a row one level below the one that it needed last time; kept in checkpoints. By default "
            "every row starts without hint."
        },
    )

    def __post_init__(self) -> None:
        if self.hint_mode not in ("escalate", "parallel"):
            raise ValueError(f"hint_mode is {self.hint_mode!r}: set it to escalate or parallel.")
        if self.hint_levels < 1:
            raise ValueError(
                f"hint_levels is {self.hint_levels}, but level 0, without hint, is one already: set at least 1."
            )
        if self.hint_max_share is not None and not 0 < self.hint_max_share <= 1:
            raise ValueError(
                f"hint_max_share is {self.hint_max_share}, but it is a share of the reference steps: set it above 0 "
                "and up to 1, or leave it out."
            )
        if self.hint_template.count("{hint}") != 1:
            raise ValueError(
                f"hint_template is {self.hint_template!r}: it must hold {{hint}} once, where the steps go."
            )
        super().__post_init__()

    @property
    def named_columns(self) -> tuple[str, ...]:
        """See :class:`VisionGRPOConfig`."""
        steps = (self.hint_column,) if self.hint_levels > 1 else ()
        return (*super().named_columns, *steps, *required_columns(import_callable(self.hint_gate)))


@dataclass
class HintCaptionGRPOConfig(HintGRPOConfig, CaptionGRPOConfig):
    """Options of HintCaptionGRPOTrainer: those of both trainers."""

    _VALID_DICT_FIELDS = CaptionGRPOConfig._VALID_DICT_FIELDS
    _REASONERS = CaptionGRPOConfig._REASONERS
