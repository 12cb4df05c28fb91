# SPDX-License-Identifier: Apache-2.0
"""The stream without images, and the hook that brings it together with the one that `model.generate` runs.

The two have a cache each. One forward pass over a doubled batch would do as well: on the starter it was faster on
single rows, no faster on 16 and slower on 128. But it pads the rows without images to the length of those with, needs
a processor that takes both in one batch, and can't rest outside of a span, where here only one stream runs
(eval/calibration.py measures what a token costs).

Shapes: B rows of the batch, R of them with images, L tokens, V tokens of the vocabulary.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from open_r1_vision.decoding.calibration import Calibration, calibrate_logits
from open_r1_vision.decoding.spans import SpanTracker


class TextStream:
    """The chats without their images, each with the reply so far, in a cache of their own.

    Positions are passed explicitly: left to itself a Qwen-VL model would read, or overwrite, the `rope_deltas` that it
    keeps on the model object for the stream with images.

    Args:
        model: runs the stream.
        ids_RL: prompts, padded on the left.
        mask_RL: 1 for tokens, 0 for padding.
    """

    def __init__(self, model: Any, ids_RL: torch.Tensor, mask_RL: torch.Tensor) -> None:
        self.model = model
        self.ids_RL = ids_RL
        self.mask_RL = mask_RL
        self.cache: Any = None
        self.num_read = 0
        keeps_last = "logits_to_keep" in inspect.signature(model.forward).parameters
        self.options: dict[str, Any] = {"logits_to_keep": 1} if keeps_last else {}

    def append(self, tokens_R: torch.Tensor) -> None:
        """Add the next token of each row, to be read when logits are asked for."""
        self.ids_RL = torch.cat([self.ids_RL, tokens_R[:, None]], dim=1)
        self.mask_RL = torch.nn.functional.pad(self.mask_RL, (0, 1), value=1)

    def next_logits(self) -> torch.Tensor:
        """Read what has not been read, and return the logits of the next token, of shape (R, V)."""
        positions_RL = (self.mask_RL.cumsum(-1) - 1).clamp(min=0)
        output = self.model(
            input_ids=self.ids_RL[:, self.num_read :],
            attention_mask=self.mask_RL,
            position_ids=positions_RL[:, self.num_read :],
            past_key_values=self.cache,
            use_cache=True,
            return_dict=True,
            **self.options,
        )
        self.cache = output.past_key_values
        self.num_read = self.ids_RL.shape[1]
        return output.logits[:, -1]


class CalibrationHook:
    """A forward hook that replaces the logits of the next token, before `model.generate` sees them.

    Logits processors passed to `model.generate` come after its own, such as the repetition penalty; a hook comes
    before them all.

    Args:
        calibration: what to do.
        stream: the rows with images, without their images.
        rows_R: their places in the batch.
        tracker: follows their replies; None calibrates all of each reply.
    """

    def __init__(
        self, calibration: Calibration, stream: TextStream, rows_R: torch.Tensor, tracker: SpanTracker | None
    ) -> None:
        self.calibration = calibration
        self.stream = stream
        self.rows_R = rows_R
        self.tracker = tracker
        self._prompt_is_read = False
        self._in_text_stream = False

    def __call__(self, module: Any, args: tuple, kwargs: dict[str, Any], output: Any) -> Any:
        """See `torch.nn.Module.register_forward_hook`."""
        if self._in_text_stream:
            return output
        if self._prompt_is_read:
            tokens_R = kwargs["input_ids"][self.rows_R, -1]
            self.stream.append(tokens_R)
            if self.tracker:
                self.tracker.append(tokens_R.tolist())
        self._prompt_is_read = True
        if self.tracker and not any(self.tracker.inside):
            return output
        self._in_text_stream = True
        rows_R = self.rows_R
        # a model on several devices leaves its logits on the last one
        text_RV = self.stream.next_logits().to(rows_R.device)
        self._in_text_stream = False
        if self.tracker:
            inside_R = torch.tensor(self.tracker.inside, device=rows_R.device)
            rows_R, text_RV = rows_R[inside_R], text_RV[inside_R]
        logits_BV = output.logits[:, -1].to(rows_R.device, torch.float32, copy=True)
        logits_BV[rows_R] = calibrate_logits(
            logits_BV[rows_R], text_RV, self.calibration.scale, self.calibration.plausibility
        )
        output.logits = logits_BV[:, None]
        return output


@contextmanager
def hooked(model: Any, hook: CalibrationHook | None) -> Iterator[None]:
    """Keep the hook, if any, on the model inside of the `with` block."""
    handle = model.register_forward_hook(hook, with_kwargs=True) if hook else None
    try:
        yield
    finally:
        if handle:
            handle.remove()
