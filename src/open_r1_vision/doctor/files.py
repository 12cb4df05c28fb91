# SPDX-License-Identifier: Apache-2.0
"""The model's files, and room on the disk."""

import json
import os
import shutil
import struct
from pathlib import Path

from open_r1_vision.doctor.report import Report

_GIB = 2**30
_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_HEADER_LIMIT = 100_000_000


def check_model(report: Report, name: str) -> str | None:
    """A model by folder, hub id or dotted path; returns its folder, None where there is none to look into.

    Args:
        report: gets what is found.
        name: as the recipe has it.
    """
    from open_r1_vision.models import find_model

    with report.attempt("model"):
        folder = Path(find_model(name)).expanduser()
        if not folder.is_dir():
            return _find_in_cache(report, name)
        return _check_folder(report, folder)
    return None


def _check_folder(report: Report, folder: Path) -> str | None:
    if not (folder / "config.json").is_file():
        report.stop("model", f"{folder} has no config.json: give a folder that save_pretrained has written.")
        return None
    damage = find_damage(folder)
    if damage:
        report.stop("model", f"{folder}: {damage}. Fetch or save it anew.")
        return None
    from open_r1_vision.models import load_processor

    with report.attempt("model"):
        load_processor(str(folder))
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        report.ok("model", f"{folder}: config, processor, {format_size(size)} of whole weights")
        return str(folder)
    return None


def _find_in_cache(report: Report, name: str) -> str | None:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(name, local_files_only=True)
    except HFValidationError:
        report.stop(
            "model",
            f"There is no folder {name!r} (looked at {str(Path(name).absolute())!r}), and it is no hub id: set "
            "model_name_or_path to one of them.",
        )
    except LocalEntryNotFoundError:
        if constants.HF_HUB_OFFLINE:
            report.stop("model", f"{name} was not downloaded, and HF_HUB_OFFLINE is set: hf download {name}")
        else:
            report.note("model", f"{name} will be downloaded when the run starts; before: hf download {name}")
    else:
        return _check_folder(report, Path(folder))
    return None


def find_damage(folder: Path) -> str | None:
    """What is missing of, or wrong with, a folder's safetensors files; None where they are whole.

    Headers are read and sizes compared, which finds what was cut off; numbers are not looked at.
    """
    index = folder / _INDEX
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError) as error:
            return f"{_INDEX} can't be read ({error})"
    else:
        names = [_SINGLE]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        return f"{missing[0]} is missing" + (f", and {len(missing) - 1} more" if len(missing) > 1 else "")
    return next((damage for name in names if (damage := _damage_of(folder / name))), None)


def _damage_of(path: Path) -> str | None:
    """A safetensors file: the length of a header in 8 bytes, the header as JSON, the numbers."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = struct.unpack("<Q", file.read(8))[0] if size >= 8 else None
        if length is None or length > min(size - 8, _HEADER_LIMIT):
            return f"{path.name} is no safetensors file, or was cut off in its header ({size} bytes)"
        try:
            header = json.loads(file.read(length))
            end = max((entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"), default=0)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return f"the header of {path.name} can't be read ({error})"
    if size != 8 + length + end:
        return f"{path.name} has {size} bytes, but its header tells of {8 + length + end}"
    return None


def check_disk(
    report: Report,
    output_dir: Path,
    checkpoint_bytes: int,
    kept: int | None,
    final_bytes: int,
    is_here: bool = True,
) -> int:
    """Room for the checkpoints that a run keeps, the one that is being written, and the final model.

    Args:
        report: gets what is found.
        output_dir: of the run; it need not be there yet.
        checkpoint_bytes: of one.
        kept: how many stay, None for all, 0 where none is saved.
        final_bytes: of the model.
        is_here: the run is to be on this machine; else only what it needs is said.

    Returns:
        Bytes that are needed altogether.
    """
    folder, free = find_room(output_dir)
    sizes = f"{format_size(final_bytes)} for the final model"
    if kept != 0:
        sizes = f"{format_size(checkpoint_bytes)} for each checkpoint, {sizes}"
    count = 0 if kept == 0 else (1 if kept is None else kept) + 1  # the old ones go when the new one is whole
    needed = count * checkpoint_bytes + final_bytes
    if not is_here:
        report.note("disk", f"{format_size(needed)} needed ({sizes}); whether they are free there was not looked at")
        return needed
    if not os.access(folder, os.W_OK):
        report.stop("disk", f"{folder} can't be written: set another output_dir.")
        return needed
    what = f"{count} checkpoints and the model need" if count else "the model needs"
    if free + size_of(output_dir) < needed:  # a run that goes on has written a part already
        report.stop(
            "disk",
            f"{format_size(free)} are free at {folder}, but {what} {format_size(needed)} ({sizes}): set output_dir to "
            f"another disk{', or lower save_total_limit' if count else ''}.",
        )
    elif kept is None:
        report.note(
            "disk", f"{format_size(free)} free at {folder}; all checkpoints are kept ({sizes}): set save_total_limit"
        )
    else:
        report.ok("disk", f"{format_size(free)} free at {folder}, {format_size(needed)} needed ({sizes})")
    return needed


def check_disk_of_all(report: Report, output_dir: Path, needed: int, held: int, is_here: bool) -> None:
    """Room for what all stages of a curriculum leave, on one disk.

    Args:
        report: gets what is found.
        output_dir: of the curriculum.
        needed: bytes of all stages together that are to be run.
        held: bytes that they have written already.
        is_here: it is to be on this machine.
    """
    folder, free = find_room(output_dir)
    together = f"the stages together need {format_size(needed)}"
    if not is_here:
        report.note("disk", f"{together}; whether they are free there was not looked at")
    elif free + held < needed:
        report.stop(
            "disk",
            f"{format_size(free)} are free at {folder}, but {together}: set output_dir to another disk, or lower "
            "save_total_limit.",
        )
    else:
        report.ok("disk", f"{format_size(free)} free at {folder}; {together}")


def find_room(output_dir: Path) -> tuple[Path, int]:
    """The folder that is there of a path, and the bytes that are free in it."""
    folder = output_dir.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder, shutil.disk_usage(folder).free


def size_of(folder: Path) -> int:
    """Bytes of the files in a folder, 0 where there is none."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0


def format_size(size: float) -> str:
    """Bytes as a person reads them."""
    return f"{size / _GIB:.1f} GiB" if size >= 0.1 * _GIB or not size else f"{size / 2**20:.1f} MiB"
