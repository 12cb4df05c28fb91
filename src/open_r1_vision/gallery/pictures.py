# SPDX-License-Identifier: Apache-2.0
"""The images of the rollouts, from the thumbnails that training kept, as data URLs."""

import base64
from collections.abc import Collection
from io import BytesIO
from pathlib import Path

import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq

from open_r1_vision.run_log import IMAGES_FOLDER


def read_images(run: Path, keys: Collection[str], pixels: int) -> dict[str, str]:
    """A data URL for each key that the run has an image of.

    Args:
        run: output folder of a run.
        keys: of the images that are wanted.
        pixels: longest side; larger ones are made smaller.
    """
    wanted, urls = set(keys), {}
    for path in sorted((run / IMAGES_FOLDER).glob("images_*.parquet")):
        if not wanted:
            break
        try:
            found = pq.read_table(path, filters=[("key", "in", wanted)])
        except (pa.ArrowInvalid, OSError):
            continue
        for row in found.to_pylist():
            url = as_url(row["image"], pixels)
            if url is not None:
                urls[row["key"]] = url
                wanted.discard(row["key"])
    return urls


def as_url(content: bytes, pixels: int) -> str | None:
    """An image file as a data URL, no side longer than `pixels`; None where it can't be opened."""
    try:
        with PIL.Image.open(BytesIO(content)) as image:
            kind = image.format
            if max(image.size) > pixels:
                small = image.convert("RGB")
                small.thumbnail((pixels, pixels))
                out = BytesIO()
                small.save(out, "WEBP", quality=80, method=2)
                content, kind = out.getvalue(), "WEBP"
    except (OSError, ValueError):
        return None
    return f"data:image/{str(kind).lower()};base64,{base64.b64encode(content).decode()}"
