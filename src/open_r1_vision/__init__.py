# SPDX-License-Identifier: Apache-2.0
"""Reinforcement learning of vision-language models on TRL, on one machine.

The trainers can be imported from here; they are loaded at first use, since torch and TRL take seconds.
"""

from typing import TYPE_CHECKING, Any

from open_r1_vision.torchvision_ops import declare_missing_ops

if TYPE_CHECKING:
    from open_r1_vision.trainers import (
        CaptionGRPOConfig,
        CaptionGRPOTrainer,
        CurriculumGRPOTrainer,
        FilteredGRPOConfig,
        FilteredGRPOTrainer,
        HintCaptionGRPOConfig,
        HintCaptionGRPOTrainer,
        HintGRPOConfig,
        HintGRPOTrainer,
        TrainStage,
        VisionGRPOConfig,
        VisionGRPOTrainer,
    )

__version__ = "0.1.0"
__all__ = [
    "CaptionGRPOConfig",
    "CaptionGRPOTrainer",
    "CurriculumGRPOTrainer",
    "FilteredGRPOConfig",
    "FilteredGRPOTrainer",
    "HintCaptionGRPOConfig",
    "HintCaptionGRPOTrainer",
    "HintGRPOConfig",
    "HintGRPOTrainer",
    "TrainStage",
    "VisionGRPOConfig",
    "VisionGRPOTrainer",
]

# before anything can import torchvision
declare_missing_ops()


def __getattr__(name: str) -> Any:
    if name in __all__:
        from open_r1_vision import trainers

        return getattr(trainers, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
