# SPDX-License-Identifier: Apache-2.0
"""Text-bias calibrated decoding (Hint-GRPO, arXiv 2503.23905), for evaluation and notebooks.

    generate = CalibratedGenerator(model, processor, Calibration(scale=0.8, span="info"))
    replies = generate(prompts, max_new_tokens=512)

`open_r1_vision.held_out.evaluate` takes such a generator in place of a greedy one.
"""

from open_r1_vision.decoding.calibration import SPANS, Calibration, calibrate_logits
from open_r1_vision.decoding.generator import CalibratedGenerator

__all__ = ["SPANS", "CalibratedGenerator", "Calibration", "calibrate_logits"]
