# SPDX-License-Identifier: Apache-2.0
"""A cache of keys and values with room to grow, which rows can leave.

Shapes: B rows, H heads, L places, D features of a head.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

#: Places that a full buffer gets at once; transformers' own layer copies all keys and values for each token.
_ROOM = 128


class RoomyLayer(DynamicLayer):
    """A layer's keys and values: views of buffers that hold more places than are in use.

    Args:
        keys_BHLD: keys of the prompts.
        values_BHLD: their values; the size of a head may differ from that of the keys.
    """

    def __init__(self, keys_BHLD: torch.Tensor, values_BHLD: torch.Tensor) -> None:
        super().__init__()
        self._buffers: list[torch.Tensor] = []
        self.lazy_initialization(keys_BHLD, values_BHLD)
        self._store(keys_BHLD, values_BHLD)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append the keys and values of new tokens, and return all."""
        length = self.get_seq_length()
        end = length + key_states.shape[-2]
        if end > self._buffers[0].shape[-2]:
            self._buffers = [_with_room(buffer[:, :, :length], end - length) for buffer in self._buffers]
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, length:end] = states
        self.keys, self.values = (buffer[:, :, :end] for buffer in self._buffers)
        return self.keys, self.values

    def keep(self, rows: torch.Tensor, start: int) -> None:
        """Drop all rows but these, and the places before `start`."""
        assert self.keys is not None and self.values is not None
        self._store(self.keys[:, :, start:].index_select(0, rows), self.values[:, :, start:].index_select(0, rows))

    def _store(self, keys_BHLD: torch.Tensor, values_BHLD: torch.Tensor) -> None:
        length = keys_BHLD.shape[-2]
        self._buffers = [_with_room(keys_BHLD), _with_room(values_BHLD)]
        self.keys, self.values = (buffer[:, :, :length] for buffer in self._buffers)


def _with_room(states_BHLD: torch.Tensor, at_least: int = 0) -> torch.Tensor:
    rows, heads, length, size = states_BHLD.shape
    buffer = states_BHLD.new_empty((rows, heads, length + max(_ROOM, at_least), size))
    buffer[:, :, :length] = states_BHLD
    return buffer


class RoomyCache(DynamicCache):
    """What a model has read, row by row."""

    def keep(self, rows: torch.Tensor, start: int = 0) -> None:
        """Drop all rows but these, and the first `start` places, which must be padding in all of them."""
        for layer in self.layers:
            assert isinstance(layer, RoomyLayer)
            layer.keep(rows, start)


def expand(parts: Sequence[tuple[DynamicCache, torch.Tensor]], num_rows: int, length: int) -> RoomyCache:
    """One cache for all rows, of caches of different prompts.

    Args:
        parts: caches of left-padded prompts, each with the rows that start with its prompts: a tensor of shape
            (2, rows), the prompt's index in the cache above the row's index in the result.
        num_rows: rows of the result; each is in one part.
        length: places of the result, at least those of each part. Shorter parts are padded on the left with zeros.
    """
    cache = RoomyCache()
    cache.layers = []
    for index in range(len(parts[0][0].layers)):
        layers: list[tuple[Any, torch.Tensor]] = [(part.layers[index], rows) for part, rows in parts]
        cache.layers.append(
            RoomyLayer(
                _gather([(layer.keys, rows) for layer, rows in layers], num_rows, length),
                _gather([(layer.values, rows) for layer, rows in layers], num_rows, length),
            )
        )
        for layer, _ in layers:
            # the prompts' own keys and values aren't needed any more: at no time there are two caches of all layers
            layer.keys = layer.values = None
    return cache


def _gather(parts: Sequence[tuple], num_rows: int, length: int) -> torch.Tensor:
    first = parts[0][0]
    gathered = first.new_zeros((num_rows, first.shape[1], length, first.shape[3]))
    for states_BHLD, (sources, targets) in parts:
        gathered[targets, :, length - states_BHLD.shape[2] :] = states_BHLD[sources]
    return gathered
