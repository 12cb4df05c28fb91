# SPDX-License-Identifier: Apache-2.0
"""Attention over packed rows, on top of whichever implementation a model has.

Axes: L tokens of the packed row, H heads, D their size; in a group S segments of up to T tokens, and K keys.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from open_r1_vision.shared_prefix.packing import Group, Layout

#: Name among the implementations that transformers knows.
NAME = "shared_prefix"


def prepare(model: Any) -> None:
    """Let a model take packed rows by the keyword `shared_prefix`, a :class:`Layout`. Other passes stay as they are.

    Args:
        model: one that :func:`open_r1_vision.shared_prefix.support.reason_against` has nothing against. One that was
            prepared before, for another trainer, stays as it is.
    """
    if _keep_scored in model.base_model._forward_hooks.values():
        return
    for layer in model.get_decoder().layers:
        layer.self_attn.register_forward_pre_hook(_switch, with_kwargs=True)
        layer.self_attn.register_forward_hook(_switch_back, with_kwargs=True, always_call=True)
    model.base_model.register_forward_hook(_keep_scored, with_kwargs=True)


def attend(
    module: nn.Module,
    query_1HLD: torch.Tensor,
    key_1HLD: torch.Tensor,
    value_1HLD: torch.Tensor,
    attention_mask: Any,
    *,
    shared_prefix: Layout,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Two calls of the model's own attention for each group: prefix to prefix, segments to prefix and themselves.

    Returns:
        What attention gives, (1, L, H, D), and no weights.
    """
    config: Any = module.config
    config._attn_implementation = shared_prefix.implementation  # which flash-attention reads
    attention = _base(module, shared_prefix.implementation)
    # flash-attention would take positions that start again for the borders of sequences
    kwargs.pop("position_ids", None)
    outputs = []
    for group in shared_prefix.groups:
        of_prefix = slice(group.start, group.start + group.prefix)
        of_segments = slice(of_prefix.stop, group.end)
        prefix_key, prefix_value = key_1HLD[:, :, of_prefix], value_1HLD[:, :, of_prefix]
        if group.prefix:
            query = query_1HLD[:, :, of_prefix]
            mask = shared_prefix.causal_mask(group.prefix, group.prefix, query)
            outputs.append(attention(module, query, prefix_key, prefix_value, mask, **kwargs)[0])
        if group.lengths:
            query_SHTD, key_SHTD, value_SHTD = (
                _spread(states[0, :, of_segments], group) for states in (query_1HLD, key_1HLD, value_1HLD)
            )
            key_SHKD = torch.cat([prefix_key.expand(len(key_SHTD), -1, -1, -1), key_SHTD], dim=2)
            value_SHKD = torch.cat([prefix_value.expand(len(value_SHTD), -1, -1, -1), value_SHTD], dim=2)
            # padding lies behind the last token of a segment, where causal attention doesn't look
            mask = shared_prefix.causal_mask(query_SHTD.size(2), key_SHKD.size(2), query_SHTD)
            output_STHD = attention(module, query_SHTD, key_SHKD, value_SHKD, mask, **kwargs)[0]
            output = output_STHD.flatten(0, 1)
            outputs.append((output if group.places is None else output.index_select(0, group.places))[None])
    return torch.cat(outputs, dim=1), None


def _spread(states_HND: torch.Tensor, group: Group) -> torch.Tensor:
    """Segments side by side, (S, H, T, D), with zeros behind the shorter ones."""
    num_segments, longest = len(group.lengths), max(group.lengths)
    states = states_HND.transpose(0, 1)
    if group.places is not None:
        grid = states.new_zeros(num_segments * longest, *states.shape[1:])
        states = grid.index_copy(0, group.places, states)
    return states.unflatten(0, (num_segments, longest)).transpose(1, 2)


def _base(module: nn.Module, implementation: str) -> Callable[..., Any]:
    # eager attention is each architecture's own function, and in no table
    eager: Any = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    return ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager)


# An attention module looks its implementation up in its config when it is called. These hooks run around that call
# alone, also where checkpointing calls a layer again, so that no other pass and no vision tower sees the change.


def _switch(module: nn.Module, args: tuple, kwargs: dict) -> None:
    if kwargs.get(NAME) is not None:
        config: Any = module.config
        config._attn_implementation = NAME


def _switch_back(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
    layout = kwargs.get(NAME)
    if layout is not None:
        config: Any = module.config
        config._attn_implementation = layout.implementation


def _keep_scored(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> Any:
    """Leave the LM head the tokens whose next one is scored."""
    layout = kwargs.get(NAME)
    if layout is not None:
        output.last_hidden_state = output.last_hidden_state[:, layout.scored]
    return output


AttentionInterface.register(NAME, attend)
