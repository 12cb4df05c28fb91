# SPDX-License-Identifier: Apache-2.0
"""Which weights of a vision-language model are its image encoder's, and which its projector's.

Both are found by the names that transformers gives them. The projector of Qwen's models lies within the encoder's
module, and is not counted to it.
"""

from collections.abc import Iterable

from torch import nn

#: Names of modules, in transformers' models.
VISION_TOWERS = frozenset(("visual", "vision_tower", "vision_model", "vision_encoder"))
PROJECTORS = frozenset(
    ("merger", "merger_list", "deepstack_merger_list", "connector", "multi_modal_projector", "mm_projector", "aligner")
)


def freeze(model: nn.Module, *, vision_tower: bool = False, projector: bool = False) -> dict[str, int]:
    """Take parts of a model out of its training, adapters in them included.

    Args:
        model: before its optimizer is made.
        vision_tower: whether the image encoder stays as it is.
        projector: whether the layers behind it stay as they are.

    Returns:
        Number of weights that were frozen, by part.

    Raises:
        ValueError: such a part is not found, or nothing is left to train.
    """
    counts = {name: 0 for name, wanted in (("vision tower", vision_tower), ("projector", projector)) if wanted}
    for name, parameter in model.named_parameters():
        part = find_part(name)
        if part in counts:
            parameter.requires_grad_(False)
            # DeepSpeed leaves an empty tensor in place of what other processes hold
            counts[part] += getattr(parameter, "ds_numel", parameter.numel())
    for part, count in counts.items():
        if not count:
            names = VISION_TOWERS if part == "vision tower" else PROJECTORS
            raise ValueError(
                f"The {type(model).__name__} has no {part} to freeze: no module of it is called "
                f"{_listed(names)}. Set freeze_{part.replace(' ', '_')}: false; for an adapter, name the modules to "
                "train in lora_target_modules."
            )
    if counts and not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("Nothing is left to train: set freeze_vision_tower or freeze_projector to false.")
    return counts


def find_part(name: str) -> str | None:
    """`vision tower`, `projector`, or None for another part, from the dotted name of a parameter."""
    names = set(name.split("."))
    if names & PROJECTORS:
        return "projector"
    return "vision tower" if names & VISION_TOWERS else None


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
