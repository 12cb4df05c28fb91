# SPDX-License-Identifier: Apache-2.0
"""Recipes that build on others: the YAML files of a command line, merged key by key.

A recipe may name one that it changes, by a path from its own folder:

    extends: ../qwen2_5_vl_7b/racro_cro.yaml
    model_name_or_path: Qwen/Qwen3-VL-4B-Instruct

and a command line may give several, such as a method and the machine that it runs on:

    --config recipes/qwen3_vl_4b/racro_cro.yaml recipes/hardware/4_gpus_zero3.yaml

A file wins over what it extends, a later file of the command line over an earlier one, and `--key value` over all.
A value replaces the earlier one as a whole, lists and mappings too. Three keys are merged instead: `env` by variable,
and of a curriculum `shared` by key, and `stages`, where a mapping by name, as `{reason: {settings: {beta: 0.0}}}`,
changes stages of the list that it builds on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EXTENDS = "extends"
_ENVIRONMENT = "env"
_STAGES = "stages"
_SHARED = "shared"


@dataclass
class MergedRecipe:
    """What files say together.

    Attributes:
        settings: their keys but `extends` and `env`.
        origins: the file whose value each key has.
        environment: variables of all `env` blocks.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, Path] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)

    def add(self, path: Path, loaded: dict[str, Any]) -> None:
        """Put a file's own keys on top.

        Raises:
            ValueError: an `env` that is no mapping, or changes of stages that are not there.
        """
        for key, value in loaded.items():
            if key == EXTENDS:
                continue
            if key == _ENVIRONMENT:
                if not isinstance(value, dict):
                    raise ValueError(
                        f"`env` in a recipe must be a mapping of environment variables; in {str(path)!r} it is "
                        f"{value!r:.80}."
                    )
                self.environment |= value
                continue
            if key == _STAGES and isinstance(value, dict):
                value = _change_stages(self.settings.get(_STAGES), value, path)
            if key == _SHARED and isinstance(value, dict) and isinstance(self.settings.get(_SHARED), dict):
                value = self.settings[_SHARED] | value
            self.settings[key] = value
            self.origins[key] = path


def read_files(paths: Sequence[str | Path]) -> MergedRecipe:
    """Read recipes and what they extend; a later one wins.

    Args:
        paths: YAML files.

    Raises:
        ValueError: no such file, no YAML, not a mapping, or a recipe that extends itself; the message names the file.
    """
    merged = MergedRecipe()
    for path in paths:
        _read_into(merged, Path(path), ())
    return merged


def _read_into(merged: MergedRecipe, path: Path, chain: tuple[Path, ...]) -> None:
    if path.resolve() in [earlier.resolve() for earlier in chain]:
        names = " -> ".join(map(str, (*chain, path)))
        raise ValueError(f"The recipe {str(path)!r} extends itself ({names}): take one `extends` out.")
    loaded = _load(path, chain)
    bases = loaded.get(EXTENDS) or []
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ValueError(
            f"`{EXTENDS}` in {str(path)!r} is {bases!r:.80}: give the path of a recipe, from this one's folder, or a "
            "list of them."
        )
    for base in bases:
        _read_into(merged, _shorten(path.parent / base), (*chain, path))
    merged.add(path, loaded)


def _load(path: Path, chain: tuple[Path, ...]) -> dict[str, Any]:
    import yaml

    named_by = f", which {str(chain[-1])!r} extends" if chain else ""
    if not path.is_file():
        remedy = "name it from the folder of that recipe" if chain else "give the path of a YAML file to --config"
        raise ValueError(f"There is no recipe {str(path)!r}{named_by}: {remedy}.")
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"The recipe {str(path)!r} is not YAML: {error}.") from error
    if not isinstance(loaded, dict):
        raise ValueError(f"The recipe {str(path)!r} must consist of `key: value` lines.")
    return loaded


def _shorten(path: Path) -> Path:
    """`a/b/../c` as `a/c`, relative where it was: for messages."""
    parts: list[str] = []
    for part in path.parts:
        if part == ".." and parts and parts[-1] not in ("..", path.anchor):
            parts.pop()
        else:
            parts.append(part)
    return Path(*parts)


def _change_stages(before: Any, changes: dict[str, Any], path: Path) -> list[Any]:
    """A curriculum's stages with the changes of a mapping by name."""
    if not isinstance(before, list):
        raise ValueError(
            f"`{_STAGES}` in {str(path)!r} changes stages by name, but nothing before it has a list of stages: give a "
            "list, or name the curriculum with `extends` or before this file."
        )
    names = [stage.get("name") if isinstance(stage, dict) else None for stage in before]
    for name, change in changes.items():
        if name not in names:
            known = ", ".join(str(known) for known in names)
            raise ValueError(f"`{_STAGES}` in {str(path)!r} changes {name!r}, but there is no such stage: {known}.")
        if not isinstance(change, dict) or not isinstance(change.get("settings") or {}, dict):
            raise ValueError(
                f"`{_STAGES}` in {str(path)!r} changes {name!r} by {change!r:.80}: give a mapping such as "
                "{settings: {beta: 0.0}}."
            )
    return [
        {**stage, **change, "settings": {**(stage.get("settings") or {}), **(change.get("settings") or {})}}
        if isinstance(stage, dict) and (change := changes.get(str(stage.get("name"))))
        else stage
        for stage in before
    ]
