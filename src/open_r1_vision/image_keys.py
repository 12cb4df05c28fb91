# SPDX-License-Identifier: Apache-2.0
"""Telling equal images apart from different ones."""

import hashlib
from collections.abc import Hashable
from typing import Any

import numpy as np
from PIL import Image

#: What can change how an image of the same pixels is read: how it is turned, and what its colours are.
_MEANINGFUL = ("exif", "transparency")


def image_key(image: Any) -> Hashable:
    """Equal for images that any processor treats alike: of the same size, kind and pixels.

    Args:
        image: a PIL image, an array, or the path or address of an image. Other objects equal only themselves, while
            they live.
    """
    if isinstance(image, str):
        return image
    if isinstance(image, Image.Image):
        palette = image.getpalette() if image.mode in ("P", "PA") else None
        about = [image.mode, image.size, palette, *(image.info.get(name) for name in _MEANINGFUL)]
        return repr(about), _digest(image.tobytes())
    if isinstance(image, np.ndarray):
        return str(image.dtype), image.shape, _digest(np.ascontiguousarray(image).tobytes())
    return "object", id(image)


class ImageKeys:
    """:func:`image_key`, worked out once for each object while this lives."""

    def __init__(self) -> None:
        # which keeps the objects alive, and so their ids their own
        self._keys_by_id: dict[int, tuple[Any, Hashable]] = {}

    def __call__(self, image: Any) -> Hashable:
        if id(image) not in self._keys_by_id:
            self._keys_by_id[id(image)] = (image, image_key(image))
        return self._keys_by_id[id(image)][1]


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()
