# SPDX-License-Identifier: Apache-2.0
"""RACRO's inference in three steps: answer tentatively, caption the image, let a text-only reasoner answer."""

from open_r1_vision.three_step.options import StepOptions
from open_r1_vision.three_step.pipeline import ThreeStep
from open_r1_vision.three_step.results import Result, Summary, read_results

__all__ = ["Result", "StepOptions", "Summary", "ThreeStep", "read_results"]
