# SPDX-License-Identifier: Apache-2.0
"""Giving vLLM the processor that the trainer has: it loads its own from the model's folder."""

import json
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoProcessor, ProcessorMixin
from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING_NAMES

from open_r1_vision.models import load_processor

#: Settings of an image processor that vLLM takes for itself; others it has from the model's folder alone.
_PASSED_ON = {"size"}
_VIDEO_CONFIG = "video_preprocessor_config.json"


def processor_settings(processor: Any, model: str) -> dict[str, Any]:
    """What vLLM's processor must be told for it to see images as the trainer's does.

    Args:
        processor: the trainer's; a tokenizer needs nothing.
        model: folder or hub id that vLLM loads its own from.

    Returns:
        Value for `mm_processor_kwargs`: the pixel limits where they differ, else nothing.

    Raises:
        ValueError: they differ in something else, or there is none in the folder.
    """
    if not isinstance(processor, ProcessorMixin):
        return {}
    ours = processor.image_processor.to_dict()
    theirs = load_processor(model).image_processor.to_dict()
    # the class and where it came from differ where torchvision was there on one side alone
    names = {name for name in ours.keys() & theirs.keys() if not name.startswith("_") and not name.endswith("_type")}
    different = {name for name in names if _plain(ours[name]) != _plain(theirs[name])}
    if unknown := sorted(different - _PASSED_ON):
        table = "; ".join(f"{name} is {ours[name]!r} in the trainer, {theirs[name]!r} in vLLM" for name in unknown)
        raise ValueError(
            f"vLLM loads its processor from {model!r}, and that sees images in another way than the trainer's: "
            f"{table}. Save the trainer's there with `processor.save_pretrained`, or leave `processing_class` out, so "
            "that the trainer takes the one of the folder."
        )
    return {name: dict(ours[name]) for name in different}


def complete_folder(model: str, keep: ExitStack) -> str:
    """A folder from which transformers can load the whole processor, its video part included, as vLLM does.

    A model that was saved on a machine without torchvision has none. Nothing is written to it: its files are linked
    to from a folder that lives as long as `keep`.
    """
    folder = Path(model)
    if not folder.is_dir():
        return model
    try:
        AutoProcessor.from_pretrained(model)
    except (OSError, ValueError):
        name = VIDEO_PROCESSOR_MAPPING_NAMES.get(AutoConfig.from_pretrained(model).model_type)
        if name is None or (folder / _VIDEO_CONFIG).exists():
            return model
        whole = Path(keep.enter_context(tempfile.TemporaryDirectory(prefix="open_r1_vision_vllm_")))
        for path in folder.iterdir():
            (whole / path.name).symlink_to(path.resolve())
        (whole / _VIDEO_CONFIG).write_text(json.dumps({"video_processor_type": name}), encoding="utf-8")
        return str(whole)
    return model


def _plain(value: Any) -> Any:
    """A setting as a file would hold it: a size is a mapping, an enumeration its number."""
    if hasattr(value, "items"):
        return {name: part for name, part in value.items() if part is not None}
    return list(value) if isinstance(value, tuple) else value
