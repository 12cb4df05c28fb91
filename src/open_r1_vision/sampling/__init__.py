# SPDX-License-Identifier: Apache-2.0
"""Difficulty of rows: several samples of each from a frozen model, and splits by how many of them are right.

`python -m open_r1_vision.sample` draws, `python -m open_r1_vision.split` scores and splits; neither trains anything.
"""

from open_r1_vision.sampling.draws import Draw, Prompt
from open_r1_vision.sampling.records import SampleFolder, read_samples

__all__ = ["Draw", "Prompt", "SampleFolder", "read_samples"]
