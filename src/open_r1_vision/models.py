# SPDX-License-Identifier: Apache-2.0
"""Finding a model, and loading its processor with or without torchvision."""

import functools
import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import AutoConfig, AutoProcessor, ProcessorMixin
from transformers.integrations import deepspeed
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
from transformers.utils import cached_file, is_torchvision_available

from open_r1_vision.importing import import_callable, is_dotted_path

logger = logging.getLogger(__name__)

#: Where a folder keeps video settings: in a file of their own, or as a part of the processor's.
_VIDEO_CONFIG = "video_preprocessor_config.json"
_PROCESSOR_CONFIG = "processor_config.json"
_VIDEO_PART = "video_processor"
#: Configuration entries that hold the id of a token which stands for, or encloses, an image or a video.
_VISION_TOKEN_FIELDS = (
    "image_token_id",
    "image_token_index",
    "video_token_id",
    "video_token_index",
    "vision_start_token_id",
    "vision_end_token_id",
)


def find_model(name: str) -> str:
    """Turn what a recipe calls a model into a folder or hub id.

    Args:
        name: a folder, a hub id, or the dotted path of a callable without arguments that returns a folder, such as
            `open_r1_vision.starter.model.policy`.
    """
    if Path(name).exists() or not is_dotted_path(name):
        return name
    # the callable may write the folder, which is one process's business
    folder = [import_callable(name)() if PartialState().is_main_process else None]
    return broadcast_object_list(folder)[0]


def load_processor(
    model: str, min_pixels: int | None = None, max_pixels: int | None = None, revision: str | None = None
) -> ProcessorMixin:
    """Load the processor of a vision-language model, padding on the left.

    Transformers' video processors need torchvision. Where it is missing, the processor is the model's own without its
    video part; images are then handled by PIL.

    Args:
        model: folder or hub id.
        min_pixels: images with fewer pixels (height x width) are enlarged.
        max_pixels: images with more pixels are reduced.
        revision: branch, tag or commit of a hub model; by default its main branch.

    Raises:
        ValueError: the folder holds no processor, or a processor of text only.
    """
    settings = {"min_pixels": min_pixels, "max_pixels": max_pixels, "revision": revision}
    given: dict[str, Any] = {key: value for key, value in settings.items() if value is not None}
    try:
        processor = _load_processor(model, given)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"No processor of a vision-language model could be loaded from {model!r} ({error}). A model folder must "
            "hold the files that `processor.save_pretrained` writes beside the weights (processor_config.json or "
            "preprocessor_config.json, tokenizer.json): copy them from the base model, or set `model_name_or_path` to "
            "a complete folder."
        ) from error
    if not isinstance(processor, ProcessorMixin):
        raise ValueError(
            f"{model!r} gave a {type(processor).__name__}, which handles text only. Set `model_name_or_path` to a "
            "vision-language model whose folder holds an image processor."
        )
    processor.tokenizer.padding_side = "left"
    return processor


def vision_token_ids(config: Any) -> set[int]:
    """The tokens of a model that stand for, or enclose, images and videos: nothing that is generated may hold them."""
    return {token for name in _VISION_TOKEN_FIELDS if (token := getattr(config, name, None)) is not None}


def collapse_runs(ids: Sequence[int], token: int | None) -> list[int]:
    """Replace each run of `token` by a single one: [7, 5, 5, 5, 8] becomes [7, 5, 8] for token 5."""
    return [
        current for previous, current in zip([None, *ids], ids, strict=False) if current != token or previous != token
    ]


def is_text_only(model: str, revision: str | None = None) -> bool:
    """Whether a model's architecture takes text alone, so that it has a tokenizer and no processor."""
    return AutoConfig.from_pretrained(model, revision=revision or "main").model_type not in PROCESSOR_MAPPING_NAMES


def save_processor(processor: ProcessorMixin, source: str, folder: str) -> None:
    """Save a processor, with the source's video settings where they could not be loaded for lack of torchvision."""
    processor.save_pretrained(folder)
    settings, target = _find_file(source, _VIDEO_CONFIG), Path(folder) / _VIDEO_CONFIG
    if settings and not target.exists():
        shutil.copyfile(settings, target)
    settings, target = _find_file(source, _PROCESSOR_CONFIG), Path(folder) / _PROCESSOR_CONFIG
    if settings and target.is_file():
        before, after = (json.loads(path.read_text(encoding="utf-8")) for path in (settings, target))
        if _VIDEO_PART in before and _VIDEO_PART not in after:
            text = json.dumps({**after, _VIDEO_PART: before[_VIDEO_PART]}, indent=2)
            target.write_text(text + "\n", encoding="utf-8")


def save_final(trainer: Any, source: str, folder: Path) -> None:
    """Save a trained model to a folder that any program can load, its processor included. All processes call it.

    An adapter is saved beside it, in `adapter`, and merged into the model there.

    Args:
        trainer: after its training.
        source: folder or hub id of the model that it was given.
        folder: of the final model.
    """
    from peft import PeftModel
    from trl.trainer.utils import create_model_from_path

    adapter = folder.parent / "adapter"
    is_adapter = isinstance(trainer.accelerator.unwrap_model(trainer.model), PeftModel)
    trainer.save_model(str(adapter if is_adapter else folder))
    if trainer.is_world_process_zero():
        if is_adapter:
            given = trainer.args.model_init_kwargs or {}
            options = {key: value for key, value in given.items() if value is not None}
            with without_zero3():
                base = create_model_from_path(source, **{**options, "device_map": None})
                PeftModel.from_pretrained(base, str(adapter)).merge_and_unload().save_pretrained(str(folder))
        save_processor(trainer.processing_class, source, str(folder))
    trainer.accelerator.wait_for_everyone()


@contextmanager
def without_zero3() -> Iterator[None]:
    """Load a model whole while the policy is sharded: transformers shards whatever it loads after ZeRO-3 was set."""
    before = deepspeed._hf_deepspeed_config_weak_ref
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        deepspeed._hf_deepspeed_config_weak_ref = before


def _find_file(model: str, name: str) -> Path | None:
    """A file of a model folder, or of a hub model that is in the cache."""
    found = cached_file(model, name, local_files_only=True, _raise_exceptions_for_missing_entries=False)
    return Path(found) if found else None


@functools.cache
def without_video(processor_class: Any) -> Any:
    """The same processor class, of the same name, without a video processor among its parts."""
    parts = [part for part in processor_class.get_attributes() if part != _VIDEO_PART]
    return type(processor_class.__name__, (processor_class,), {"get_attributes": classmethod(lambda cls: list(parts))})


def _load_processor(model: str, settings: dict[str, Any]) -> Any:
    if is_torchvision_available():
        try:
            return AutoProcessor.from_pretrained(model, **settings)
        except (OSError, ValueError) as error:
            # the folder may come from a machine without torchvision, and have no video part
            logger.info("Loading the processor of %s without its video part: %s", model, error)
    return without_video(_processor_class(model, settings.get("revision"))).from_pretrained(model, **settings)


def _processor_class(model: str, revision: str | None) -> Any:
    """The processor class that transformers registers for the model's architecture."""
    import transformers

    model_type = AutoConfig.from_pretrained(model, revision=revision or "main").model_type
    name = PROCESSOR_MAPPING_NAMES.get(model_type)
    if name is None:
        raise ValueError(f"transformers registers no processor for the architecture {model_type!r}")
    return getattr(transformers, name)
