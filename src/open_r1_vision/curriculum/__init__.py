# SPDX-License-Identifier: Apache-2.0
"""Several runs in a row: warm-up, sampling, split, perception, reasoning (PeBR-R1, arXiv 2509.13031), or other ones.

A curriculum is a list of stages in a recipe. Each is an ordinary run of an ordinary entry point with a recipe of its
own; what an earlier stage left is named by a reference such as `{warm_up.final}`.
"""

from open_r1_vision.curriculum.recipe import Curriculum, Stage, read_curriculum

__all__ = ["Curriculum", "Stage", "read_curriculum"]
