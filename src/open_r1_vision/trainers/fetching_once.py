# SPDX-License-Identifier: Apache-2.0
"""Each distinct row of a batch read from the data set once."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import datasets
from torch.utils.data import Dataset

if TYPE_CHECKING:
    from trl import GRPOTrainer as Base
else:
    Base = object


class FetchingOnce(Base):
    """Stands before `trl.GRPOTrainer` among the bases of a trainer.

    TRL's data loader reads a row once for each of its completions, and all of that again for each micro-batch of a
    sampling, though only the first batch is looked at: with 8 completions and 8 micro-batches an image is decoded 64
    times for a step. Here each row is read once for a sampling, in each of the loader's workers. Completions of a row
    share its images; all else are copies.

    Data sets that are streamed, or have a transform of their own, which may draw at random, are read as TRL does.

    Overrides `_get_dataloader`.
    """

    def _get_dataloader(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(dataset, datasets.Dataset) and dataset.format["type"] != "custom":
            dataset = RowsOnce(dataset)
        return super()._get_dataloader(dataset, *args, **kwargs)


class RowsOnce(Dataset):
    """A data set that reads each distinct row of a batch once, and not at all if the batch before had it.

    Args:
        rows: the data set.
    """

    def __init__(self, rows: datasets.Dataset) -> None:
        self._rows = rows
        self._last_batch: dict[int, dict[str, Any]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row: dict[str, Any] = self._rows[index]
        return row

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The rows of a batch."""
        distinct = dict.fromkeys(indices)
        missing = [index for index in distinct if index not in self._last_batch]
        read = dict(zip(missing, self._rows.__getitems__(missing), strict=True)) if missing else {}
        self._last_batch = {index: read[index] if index in read else self._last_batch[index] for index in distinct}
        return [_copy(self._last_batch[index]) for index in indices]


def _copy(value: Any) -> Any:
    """Lists and dictionaries anew, what they hold as it is."""
    if isinstance(value, dict):
        return {name: _copy(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_copy(part) for part in value]
    return value
