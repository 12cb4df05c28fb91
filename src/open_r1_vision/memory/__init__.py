# SPDX-License-Identifier: Apache-2.0
"""How much memory a recipe needs, from the model's configuration and the recipe's numbers, before a GPU is booked.

    python -m open_r1_vision.doctor --config RECIPE --gpus 4 --gpu_memory 80

`shapes` counts parameters, `estimate` has the formulas and their sources, `plan` reads a recipe.
"""

from open_r1_vision.memory.estimate import Estimate, Part, Setup, estimate
from open_r1_vision.memory.plan import Plan, read_plan
from open_r1_vision.memory.shapes import KNOWN, ModelShape, read_shape

__all__ = ["KNOWN", "Estimate", "ModelShape", "Part", "Plan", "Setup", "estimate", "read_plan", "read_shape"]
