# SPDX-License-Identifier: Apache-2.0
"""How strongly replies are pushed away from what the model would say without the image.

Hint-GRPO (arXiv 2503.23905): at each step the next token is chosen by

    (1 + s) * logits(image) - s * logits(no image)

where both streams have read the same chat, one of them without its images, and the same reply so far. s = 0 is plain
decoding; the authors' code runs s = 0.8. The cut of implausible tokens and the span are not theirs: the first is that
of contrastive decoding (arXiv 2210.15097), the second is for formats that describe the image before they reason, since
reasoning ought to lean on the text.

Shapes: B rows, V tokens of the vocabulary.
"""

import logging
import math
from dataclasses import dataclass
from numbers import Real

import torch

logger = logging.getLogger(__name__)

#: Sections of a reply that calibration can be kept to.
SPANS = ("info", "think", "answer")

#: How far implausible tokens lie below the others: a softmax gives them exactly 0, and a finite number keeps a choice
#: where another logits processor bars every plausible token.
_GAP = 1e4


@dataclass(frozen=True)
class Calibration:
    """Settings of calibrated decoding.

    Args:
        scale: s of the formula, at least 0. With 0 decoding is exactly plain, whatever else is set.
        plausibility: tokens that the image stream gives less than this share of its top probability are left out; in
            [0, 1), 0 leaves none out.
        span: one of :data:`SPANS` calibrates inside of this section alone, None the whole reply. Inside is every token
            chosen while the reply so far holds an opening tag and no closing tag after it: the tokens of the opening
            tag are outside, those of the closing tag, up to the one that completes it, are inside. Tags in the prompt
            don't count, and a section that is opened again counts again.

    Raises:
        ValueError: a scale that is negative or not finite, a plausibility outside of [0, 1), or an unknown span.
    """

    scale: float
    plausibility: float = 0.0
    span: str | None = None

    def __post_init__(self) -> None:
        if not (isinstance(self.scale, Real) and 0 <= self.scale < math.inf):
            raise ValueError(
                f"scale is {self.scale!r}, but the weight of what the image adds must be a finite number of at least "
                "0: set 0 for plain decoding, or a value about 0.8."
            )
        if not (isinstance(self.plausibility, Real) and 0 <= self.plausibility < 1):
            raise ValueError(
                f"plausibility is {self.plausibility!r}, but it is a share of the top probability, and at 1 or more "
                "no token would be left: set a number of at least 0 and below 1, such as 0.1."
            )
        if self.span is not None and self.span not in SPANS:
            raise ValueError(
                f"span is {self.span!r}, which is no section of a reply: set one of {', '.join(SPANS)}, without "
                "brackets, or None to calibrate the whole reply."
            )
        if self.scale == 0 and (self.plausibility or self.span):
            logger.warning("plausibility and span have no effect while scale is 0: decoding is plain.")


def calibrate_logits(
    image_BV: torch.Tensor, text_BV: torch.Tensor, scale: float, plausibility: float = 0.0
) -> torch.Tensor:
    """The logits of the formula above, in float32.

    Args:
        image_BV: raw logits with the image, of any precision.
        text_BV: raw logits without it, of the same shape.
        scale: see :class:`Calibration`.
        plausibility: see :class:`Calibration`.

    Returns:
        Logits of shape (B, V). Implausible tokens lie so far below the others that a softmax gives them 0.
    """
    image_BV, text_BV = image_BV.float(), text_BV.float()
    mixed_BV = image_BV + scale * (image_BV - text_BV)
    if plausibility == 0:
        return mixed_BV
    below_top_BV = image_BV - image_BV.amax(-1, keepdim=True)
    implausible_BV = below_top_BV < math.log(plausibility)
    lowest_B1 = mixed_BV.masked_fill(implausible_BV, math.inf).amin(-1, keepdim=True)
    return torch.where(implausible_BV, lowest_B1 - _GAP + below_top_BV, mixed_BV)
