# SPDX-License-Identifier: Apache-2.0
"""Images of items: kept as bytes or as a path, looked at once when they are read, decoded when they are needed."""

import base64
import binascii
import hashlib
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import PIL.Image


@dataclass(frozen=True)
class StoredImage:
    """An image that is decoded by a call.

    Attributes:
        content: the file's bytes; None where there is a path.
        path: the file; None where there are bytes.
        place: where the image comes from, for messages.
    """

    content: bytes | None = field(default=None, repr=False)
    path: Path | None = None
    place: str = ""

    def __call__(self) -> PIL.Image.Image:
        """The decoded image.

        Raises:
            ValueError: it can't be decoded.
        """
        with self._open() as image:
            try:
                image.load()
            except (OSError, SyntaxError, ValueError) as error:
                raise ValueError(
                    f"{self.place}: the image is broken ({error}). Fetch the file anew, or repair this row."
                ) from error
            return image.copy()

    def check(self) -> "StoredImage":
        """Refuse what is no image, by its header alone.

        Raises:
            ValueError: it is none.
        """
        self._open().close()
        return self

    def digest(self) -> str:
        """Equal for equal files."""
        content = self.content if self.path is None else self.path.read_bytes()
        return hashlib.sha256(content or b"").hexdigest()

    def _open(self) -> PIL.Image.Image:
        try:
            return PIL.Image.open(BytesIO(self.content or b"") if self.path is None else self.path)
        except FileNotFoundError as error:
            raise ValueError(
                f"{self.place}: there is no image {str(self.path)!r}. Put it there, or correct the path."
            ) from error
        except (OSError, PIL.Image.DecompressionBombError) as error:
            start = f", it starts with {self.content[:12]!r}" if self.content is not None else f" {str(self.path)!r}"
            raise ValueError(
                f"{self.place}: this is no image that can be opened{start}. Fetch the file anew, or repair this row."
            ) from error


def from_base64(text: str, place: str) -> StoredImage:
    """An image from base64.

    Raises:
        ValueError: it is not base64, or no image.
    """
    _, _, payload = text.rpartition("base64,")  # a `data:` URL has that in front
    try:
        content = base64.b64decode("".join(payload.split()), validate=True)
    except binascii.Error as error:
        raise ValueError(
            f"{place}: the image {text[:40]!r} is not base64 ({error}). Fetch the file anew, or repair this row."
        ) from error
    return StoredImage(content=content, place=place).check()


def from_value(value: Any, folder: Path, place: str) -> Any:
    """An image from any form that a data set has it in.

    Args:
        value: a PIL image, bytes, a path, or a dictionary with `bytes` or `path`.
        folder: where relative paths start.
        place: for messages.

    Raises:
        ValueError: it is none of these, or no image.
    """
    if isinstance(value, dict):
        value = value.get("bytes") if value.get("bytes") is not None else value.get("path")
    if isinstance(value, PIL.Image.Image):
        return value
    if isinstance(value, (bytes, bytearray)):
        return StoredImage(content=bytes(value), place=place).check()
    if isinstance(value, str) and value.startswith("data:"):
        return from_base64(value, place)
    if isinstance(value, (str, Path)):
        return StoredImage(path=folder / Path(value).expanduser(), place=place).check()
    raise ValueError(
        f"{place}: the image is given as {value!r:.60}, a {type(value).__name__}. It must be an image, bytes, a path, "
        "or a dictionary with `bytes` or `path`."
    )
