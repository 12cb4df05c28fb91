# SPDX-License-Identifier: Apache-2.0
"""The order of the prompts, right after a resume too."""

from collections.abc import Callable, Iterator

import torch
from trl.trainer.utils import RepeatSampler


class EpochSampler(RepeatSampler):
    """RepeatSampler that draws an epoch's order from the seed and the epoch alone.

    The orders are those of RepeatSampler. That one, however, draws the first again in whichever epoch a run resumes,
    so that some rows would come twice in an epoch and others never.

    Args:
        stock: gives the settings.
        epoch: called at the start of an iteration; gives the epoch, from 0. Trainer and accelerate reach a sampler's
            `set_epoch` only in some of the ways in which they wrap it.
    """

    def __init__(self, stock: RepeatSampler, epoch: Callable[[], int]) -> None:
        super().__init__(
            stock.data_source,
            stock.mini_repeat_count,
            stock.batch_size,
            stock.repeat_count,
            stock.shuffle,
            stock.seed,
        )
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        if self.shuffle:
            self.generator.manual_seed(self.seed or 0)
            for _ in range(self.epoch()):
                torch.randperm(self.num_samples, generator=self.generator)
        yield from super().__iter__()
