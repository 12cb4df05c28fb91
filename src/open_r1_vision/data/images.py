# SPDX-License-Identifier: Apache-2.0
"""Images of a row: from any form they are given in to `{"bytes", "path"}`, and from there to pixels or a finding."""

import base64
import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from datasets import Image

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm")
# What PIL's decoders raise on broken files.
_IMAGE_ERRORS = (OSError, SyntaxError, ValueError, TypeError, IndexError, EOFError, struct.error, zlib.error)

#: Name of a check, and what was found.
Finding = tuple[str, str]


@dataclass(frozen=True)
class ImageLimits:
    """Which images are refused.

    Attributes:
        min_side: shortest side in pixels.
        max_pixels: width times height; the default is where PIL warns of a decompression bomb.
        max_aspect_ratio: longer side over shorter; Qwen's processors refuse more than 200.
    """

    min_side: int = 28
    max_pixels: int = 89_478_485
    max_aspect_ratio: float = 200.0


def encode_images(value: Any, folder: str | Path) -> list[dict[str, Any]]:
    """What a row gives as its images, as a list of `{"bytes", "path"}`; None means no image."""
    items = value if isinstance(value, (list, tuple)) else [value]
    return [image for item in items if (image := _encode_image(item, folder)) is not None]


def _encode_image(value: Any, folder: str | Path) -> dict[str, Any] | None:
    if isinstance(value, Mapping) and {"bytes", "path"} & set(value):
        # beside bytes the path is a mere name, which may happen to be that of another file here
        value = value.get("bytes") if value.get("bytes") is not None else value.get("path")
    if value is None:
        return None
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": bytes(value), "path": None}
    if isinstance(value, (PIL.Image.Image, np.ndarray)):
        return Image().encode_example(value)
    if not isinstance(value, (str, Path)):
        raise ValueError(
            f"An image is given as {str(value)[:80]!r}, a {type(value).__name__}. It must be a PIL image, an array, "
            "bytes, a path, a `data:` URL, or a dictionary with `bytes` or `path`."
        )
    return _locate_image(str(value), folder)


def _locate_image(address: str, folder: str | Path) -> dict[str, Any]:
    if address.startswith("data:"):
        header, _, payload = address.partition(",")
        try:
            if not header.endswith(";base64"):
                raise ValueError("it is not base64")
            return {"bytes": base64.b64decode(payload, validate=True), "path": None}
        except ValueError as error:
            raise ValueError(f"The image {address[:60]!r} can't be read as a `data:` URL: {error}.") from error
    if address.lower().endswith(VIDEO_SUFFIXES):
        raise ValueError(f"{address!r} is a video, but only images are supported. Give frames of it instead.")
    if re.match(r"[a-z0-9]+://", address):
        return {"bytes": None, "path": address}
    return {"bytes": None, "path": str(Path(folder).expanduser().absolute() / Path(address).expanduser())}


def open_images(values: list[dict[str, Any]], limits: ImageLimits) -> tuple[list[PIL.Image.Image], list[Finding]]:
    """The images of a row that can be used, and a finding for each that can't."""
    images, findings = [], []
    for number, value in enumerate(values, start=1):
        name = f"image {number} of {len(values)}" + (f" ({value['path']})" if value and value["path"] else "")
        opened = _open_image(value, limits)
        if isinstance(opened, PIL.Image.Image):
            images.append(opened)
        else:
            check, message = opened
            findings.append((check, f"{name}: {message}"))
    return images, findings


def find_narrow(width: int, height: int, limits: ImageLimits) -> Finding | None:
    """What is wrong with the shape of an image; None where nothing is."""
    if max(width, height) <= limits.max_aspect_ratio * min(width, height):
        return None
    return "image too narrow", f"the sides of {width} x {height} differ over {limits.max_aspect_ratio:g} times"


def _open_image(value: dict[str, Any] | None, limits: ImageLimits) -> PIL.Image.Image | Finding:
    """Decode an image as training will, or say why that can't be; its size is looked at before any pixel."""
    if value is None or (value["bytes"] is None and "://" in (value["path"] or "://")):
        return "image unreadable", "there is no local file: download it and give its path"
    try:
        with PIL.Image.open(value["path"] if value["bytes"] is None else BytesIO(value["bytes"])) as header:
            width, height = header.size
        if width * height > limits.max_pixels:
            return "image too large", f"{width} x {height} is more than {limits.max_pixels} pixels"
        if narrow := find_narrow(width, height, limits):
            return narrow
        if min(width, height) < limits.min_side:
            return "image too small", f"{width} x {height} has a side under {limits.min_side} pixels"
        return Image().decode_example(value)
    except PIL.Image.DecompressionBombError as error:
        return "image too large", str(error)
    except _IMAGE_ERRORS as error:
        return "image unreadable", f"{type(error).__name__}: {error}"
