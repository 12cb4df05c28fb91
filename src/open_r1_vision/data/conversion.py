# SPDX-License-Identifier: Apache-2.0
"""What every published layout needs on its way into rows: a count of what became of it, images and their markers."""

import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from open_r1_vision.data.images import ImageLimits, encode_images, open_images
from open_r1_vision.data.rows import IMAGE_MARKER

_MARKER = re.compile(rf"[ \t]*{re.escape(IMAGE_MARKER)}[ \t]*")


class Unusable(Exception):
    """Something that becomes no row, with the reason."""


@dataclass
class Conversion:
    """What became of a file.

    Attributes:
        rows: in the row schema, with the paths of the images.
        kept: how many rows there are of a kind.
        dropped: by reason, the ids of the questions that became no row.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    kept: Counter[str] = field(default_factory=Counter)
    dropped: dict[str, list[str]] = field(default_factory=dict)

    def drop(self, reason: str, row_id: str) -> None:
        """Count a question that becomes no row."""
        self.dropped.setdefault(reason, []).append(row_id)

    def add(self, candidates: Sequence[tuple[dict[str, Any], str]], limits: ImageLimits | None) -> None:
        """Keep rows, each as a kind; with limits their images are opened, and those that they refuse drop their row.

        Images are decoded on all processors: decoding leaves Python's lock free.
        """
        faults: list[str | None] = [None] * len(candidates)
        if limits is not None:
            with ThreadPoolExecutor() as pool:
                faults = list(pool.map(lambda candidate: image_fault(candidate[0]["images"], limits), candidates))
        for (row, kind), fault in zip(candidates, faults, strict=True):
            if fault:
                self.drop(fault, row["id"])
            else:
                self.kept[kind] += 1
                self.rows.append(row)

    def report(self) -> str:
        """How many rows were kept as what, and dropped for which reason: a line each."""
        dropped = sorted(self.dropped.items(), key=lambda item: -len(item[1]))
        total = len(self.rows) + sum(len(ids) for _, ids in dropped)
        lines = [f"{len(self.rows)} of {total} questions became rows."]
        lines += [f"  kept     {count:7d}  {name}" for name, count in self.kept.most_common()]
        lines += [f"  dropped  {len(ids):7d}  {reason} ({', '.join(ids[:3])})" for reason, ids in dropped]
        return "\n".join(lines)


def find_image(image: str, folder: Path, limits: ImageLimits | None) -> str:
    """The path of an image that a row names.

    Args:
        image: where it is in the folder.
        folder: where published paths start.
        limits: with it the image is opened, and must be within; else it must only be there.

    Raises:
        Unusable: it can't be used.
    """
    path = str(folder / image)
    if not Path(path).is_file():
        raise Unusable("image missing")
    fault = image_fault([path], limits) if limits is not None else None
    if fault:
        raise Unusable(fault)
    return path


def repair_markers(problem: str, num_images: int) -> tuple[str, str]:
    """A problem whose `<image>` markers the row schema takes, and what was done to them.

    Markers that are as many as the images stay. All others go, which puts the images before the text: where they
    belong can't be known.
    """
    num_markers = problem.count(IMAGE_MARKER)
    plain = _MARKER.sub(" ", problem).strip()
    if not num_images:
        return plain, "no image, markers removed" if num_markers else "no image"
    if num_markers == num_images:
        return problem.strip(), "as many image markers as images"
    if not num_markers:
        return plain, "no image markers, images put first"
    return plain, "not as many image markers as images: removed, images put first"


def read_parquet(path: str, required: Sequence[str], optional: Sequence[str] = (), layout: str = "") -> list[dict]:
    """The rows of a published parquet file, with these columns.

    Args:
        path: the file.
        required: columns that it must have.
        optional: columns that are read if they are there.
        layout: what the file is, for messages.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not parquet, or lacks a column.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(
            f"There is no file {path!r} (looked at {str(file.absolute())!r}): set `path` to {layout}."
        )
    try:
        names = pq.read_schema(file).names
        missing = [name for name in required if name not in names]
        if not missing:
            return pq.read_table(file, columns=[name for name in (*required, *optional) if name in names]).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path!r} can't be read as parquet ({error}): fetch {layout} anew.") from error
    raise ValueError(
        f"{path!r} has the columns {', '.join(names)}, but no {' and no '.join(missing)}: set `path` to {layout}."
    )


def image_fault(images: Any, limits: ImageLimits) -> str | None:
    """The first thing that is wrong with a row's images, named as `checks` does; None where nothing is.

    Args:
        images: in any form that a row may have.
        limits: which images are refused.

    Raises:
        ValueError: something among them can't be an image at all.
    """
    _, findings = open_images(encode_images(images, "."), limits)
    return findings[0][0] if findings else None
