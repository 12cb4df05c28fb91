# SPDX-License-Identifier: Apache-2.0
"""Trainers: subclasses of TRL's GRPOTrainer that hold what differs from it and nothing else."""

from open_r1_vision.trainers.base import VisionGRPOTrainer
from open_r1_vision.trainers.caption import CaptionGRPOTrainer
from open_r1_vision.trainers.caption_config import CaptionGRPOConfig
from open_r1_vision.trainers.config import VisionGRPOConfig
from open_r1_vision.trainers.curriculum import CurriculumGRPOTrainer, TrainStage
from open_r1_vision.trainers.filtered import FilteredGRPOConfig, FilteredGRPOTrainer
from open_r1_vision.trainers.hint import HintCaptionGRPOTrainer, HintGRPOTrainer
from open_r1_vision.trainers.hint_config import HintCaptionGRPOConfig, HintGRPOConfig

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
