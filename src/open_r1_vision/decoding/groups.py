# SPDX-License-Identifier: Apache-2.0
"""Several completions of each prompt, with each prompt read once.

    decoding = GroupDecoding(rows=[0, 0, 0, 0, 1, 1, 1, 1])
    model.generate(**two_prompts, custom_generate=decoding, do_sample=True, max_new_tokens=64)

gives eight rows: those that `model.generate` gives for four copies of each prompt, at the same seed, but for rounding.
`generate` prepares inputs, settings and logits processors; what is here takes the place of its loop:

- each prompt passes through the vision tower and the decoder once, with prompts of about the same length;
- a row's keys and values are dropped soon after its end, so that tokens get cheaper as rows finish;
- random numbers are drawn for all rows to the last token, as `generate` does, so that a row's tokens don't depend on
  which others have finished.

Shapes: N rows, P padded prompt, V tokens of the vocabulary.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed
from transformers import DynamicCache, GenerationConfig, GenerationMixin
from transformers.cache_utils import DynamicLayer
from transformers.generation import GenerationMode
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.integrations.fsdp import is_fsdp_managed_module

from open_r1_vision.decoding.roomy_cache import RoomyCache, expand

#: What the model takes for each image, and not for each token.
_OF_IMAGES = ("pixel_values", "image_grid_thw")
#: Settings that the loop here doesn't know, with the values that mean nothing.
_FOREIGN: dict[str, tuple] = {
    "cache_implementation": (None, "dynamic"),
    "use_cache": (None, True),
    "prefill_chunk_size": (None,),
    "guidance_scale": (None, 1, 1.0),
    "encoder_repetition_penalty": (None, 1, 1.0),
    "encoder_no_repeat_ngram_size": (None, 0),
    "watermarking_config": (None,),
    "stop_strings": (None,),
    "token_healing": (None, False),
    "prompt_lookup_num_tokens": (None,),
    "num_return_sequences": (None, 1),
    "return_dict_in_generate": (None, False),
    "output_attentions": (None, False),
    "output_hidden_states": (None, False),
}
#: A batch of prompts is read in parts when the longest is longer than the shortest by more than this share.
_SPREAD = 0.25
#: Rows and places are dropped when they are at least this share, so that copying what is left pays.
_DROP = 0.125


def find_obstacle(model: Any, config: GenerationConfig) -> str | None:
    """Why a model can't be decoded here with these settings; None if it can.

    Args:
        model: a model of transformers, without wrappers.
        config: settings as `model.generate` gets them; what they leave open is the model's own.
    """
    if getattr(type(model), "generate", None) is not GenerationMixin.generate:
        return f"{type(model).__name__} has a `generate` of its own, or none"
    if model.config.is_encoder_decoder:
        return f"{type(model).__name__} has an encoder, which reads prompts in its own way"
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return f"{type(model).__name__} takes no position_ids"
    layers = DynamicCache(config=model.config.get_text_config(decoder=True)).layers
    if not model._supports_default_dynamic_cache():
        return f"{type(model).__name__} keeps a cache of its own kind"
    if odd := sorted({type(layer).__name__ for layer in layers if type(layer) is not DynamicLayer}):
        return f"{type(model).__name__} has layers that don't keep all keys and values ({', '.join(odd)})"
    settings, _ = model._prepare_generation_config(config)
    mode = settings.get_generation_mode()
    if mode not in (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE):
        return f"the settings mean {mode.value.replace('_', ' ')}"
    for name, neutral in _FOREIGN.items():
        if (value := getattr(settings, name, None)) not in neutral:
            return f"{name} is {value!r}"
    return None


class GroupDecoding:
    """A loop for `model.generate(custom_generate=...)`, for one call. Check first with :func:`find_obstacle`.

    Args:
        rows: for each row of the result, the prompt that it starts with: its index in what `generate` gets.
        image_counts: images of each prompt; all 0 by default.
    """

    def __init__(self, rows: Sequence[int], image_counts: Sequence[int] | None = None) -> None:
        self._rows = rows
        self._image_counts = image_counts

    def __call__(
        self,
        model: Any,
        input_ids: torch.LongTensor,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: GenerationConfig,
        **model_kwargs: Any,
    ) -> torch.Tensor:
        """See `GenerationMixin._sample`.

        Returns:
            Prompts and completions of shape (N, P + tokens), padded behind the end of each.
        """
        device = input_ids.device
        # all processes must call forward equally often; `generate` doesn't say so to a loop that isn't its own
        is_synced = torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1
        is_synced = is_synced and (is_deepspeed_zero3_enabled() or is_fsdp_managed_module(model))
        rows_N = torch.tensor(self._rows, device=device)
        logits, state = self._read_prompts(model, input_ids, rows_N, model_kwargs, in_one_pass=is_synced)

        ids_NT = input_ids[rows_N]
        pad: Any = generation_config._pad_token_tensor
        has_ends = any(hasattr(criterion, "eos_token_id") for criterion in stopping_criteria)
        finished_N = torch.zeros(len(rows_N), dtype=torch.bool, device=device)
        kept = torch.arange(len(rows_N), device=device)
        with model._optimize_model_for_decode():
            while True:
                if not (is_done := bool(finished_N.all())):
                    # a row that was dropped gets any numbers, and its share of the random ones
                    scores_NV = logits if len(kept) == len(rows_N) else _spread(logits, kept, len(rows_N))
                    scores_NV = logits_processor(ids_NT, scores_NV)
                    if generation_config.do_sample:
                        tokens_N = torch.multinomial(torch.softmax(scores_NV, dim=-1), num_samples=1).squeeze(1)
                    else:
                        tokens_N = scores_NV.argmax(dim=-1)
                    if has_ends:
                        tokens_N = torch.where(finished_N, pad.to(device), tokens_N)
                    ids_NT = torch.cat([ids_NT, tokens_N[:, None]], dim=-1)
                    finished_N = finished_N | stopping_criteria(ids_NT, None)
                    is_done = bool(finished_N.all())
                if not model._has_unfinished_sequences(is_done, is_synced, device=device):
                    return ids_NT
                if not is_done:
                    left = (~finished_N[kept]).nonzero().squeeze(1)
                    if len(kept) - len(left) >= max(1, _DROP * len(kept)):
                        kept = kept[left]
                        state = _keep(state, left)
                inputs = model.prepare_inputs_for_generation(ids_NT[kept], next_sequence_length=1, **state)
                outputs = model(**inputs, return_dict=True)
                state = _advance(model, outputs, state)
                logits = _last_logits(outputs, device)

    def _read_prompts(
        self, model: Any, input_ids: torch.Tensor, rows_N: torch.Tensor, model_kwargs: dict, in_one_pass: bool
    ) -> tuple[torch.Tensor, dict]:
        """Next-token logits (N, V), and what the model takes for the next token of each row."""
        num_prompts, width = input_ids.shape
        counts = list(self._image_counts or [0] * num_prompts)
        lengths = [width] * num_prompts
        if (mask := model_kwargs.get("attention_mask")) is not None:
            lengths = mask.sum(dim=-1).tolist()
        images = {name: model_kwargs.pop(name) for name in _OF_IMAGES if model_kwargs.get(name) is not None}
        images = _split_images(images, counts)
        # `generate` has put an empty cache in
        model_kwargs.pop("past_key_values", None)
        parts, logits_NV = [], None
        for part in [list(range(num_prompts))] if in_one_pass else _split_by_length(lengths):
            places = torch.tensor(part, device=input_ids.device)
            longest = width if in_one_pass else max(lengths[index] for index in part)
            kwargs = {
                name: _of_prompts(value, places, num_prompts, width, longest) for name, value in model_kwargs.items()
            }
            if any(counts[index] for index in part):
                kwargs.update({name: torch.cat([values[index] for index in part]) for name, values in images.items()})
            inputs = model.prepare_inputs_for_generation(
                input_ids[places, width - longest :],
                past_key_values=DynamicCache(config=model.config.get_text_config(decoder=True)),
                is_first_iteration=True,
                **kwargs,
            )
            outputs = model(**inputs, return_dict=True)
            logits_DV = _last_logits(outputs, input_ids.device)
            sources, targets = (rows_N[None] == places[:, None]).nonzero(as_tuple=True)
            parts.append((outputs.past_key_values, torch.stack([sources, targets])))
            if logits_NV is None:
                logits_NV = logits_DV.new_empty((len(rows_N), logits_DV.shape[-1]))
            logits_NV[targets] = logits_DV[sources]
        assert logits_NV is not None
        cache = expand(parts, len(rows_N), width)
        state = {name: _of_prompts(value, rows_N, num_prompts, width, width) for name, value in model_kwargs.items()}
        return logits_NV, _advance(model, {}, {**state, "past_key_values": cache})


def _advance(model: Any, outputs: Any, state: dict) -> dict:
    """The state after one more token; positions are those of the last token alone."""
    state = model._update_model_kwargs_for_generation(outputs, state)
    if (positions := state.get("position_ids")) is not None:
        state["position_ids"] = positions[..., -1:]
    return state


def _last_logits(outputs: Any, device: torch.device) -> torch.Tensor:
    # a copy, as in `generate`: processors may write into it
    logits: torch.Tensor = outputs.logits[:, -1].to(copy=True, dtype=torch.float32, device=device)
    return logits


def _spread(logits: torch.Tensor, kept: torch.Tensor, num_rows: int) -> torch.Tensor:
    full = logits.new_zeros((num_rows, logits.shape[-1]))
    full[kept] = logits
    return full


def _keep(state: dict, rows: torch.Tensor) -> dict:
    """Drop all rows but these, and padding that none of them needs."""
    cache: RoomyCache = state["past_key_values"]
    length = cache.get_seq_length()
    start = 0
    if (mask := state.get("attention_mask")) is not None:
        first = int(mask[rows].any(dim=0).int().argmax())
        start = first if first >= _DROP * length else 0
    cache.keep(rows, start)
    kept = dict(state)
    for name, value in state.items():
        if _is_per_row(value):
            # position_ids are those of one token alone
            kept[name] = value.index_select(-2, rows)[..., start if value.shape[-1] > 1 else 0 :]
    return kept


def _is_per_row(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dim() >= 2


def _of_prompts(value: Any, places: torch.Tensor, num_prompts: int, width: int, longest: int) -> Any:
    """The last `longest` columns of some prompts' rows; what isn't (…, prompts, P) stays as it is."""
    if _is_per_row(value) and value.shape[-2:] == (num_prompts, width):
        return value.index_select(-2, places)[..., width - longest :]
    return value


def _split_images(images: dict[str, torch.Tensor], counts: Sequence[int]) -> dict[str, Sequence[torch.Tensor]]:
    """For each input that belongs to images, what each prompt has of it."""
    grids = images.get("image_grid_thw")
    parts: dict[str, Sequence[torch.Tensor]] = {
        name: torch.split(value, list(counts)) for name, value in images.items() if name != "pixel_values"
    }
    if (pixels := images.get("pixel_values")) is not None:
        sizes = list(counts) if grids is None else [int(of_row.prod(-1).sum()) for of_row in parts["image_grid_thw"]]
        parts["pixel_values"] = torch.split(pixels, sizes)
    return parts


def _split_by_length(lengths: Sequence[int]) -> list[list[int]]:
    """Indices of prompts that are read together, so that little padding is read."""
    parts: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        if parts and lengths[index] <= (1 + _SPREAD) * lengths[parts[-1][0]]:
            parts[-1].append(index)
        else:
            parts.append([index])
    return parts
