# SPDX-License-Identifier: Apache-2.0
"""What a recipe may say: dataclasses for the entry points, and a parser that knows near misses.

A recipe is a YAML file of flat `key: value` lines, or several of them, see :mod:`open_r1_vision.recipe_files`;
`--key value` on the command line wins over it. Nothing heavy is imported before the arguments are known, so that
`--help` and typing errors answer at once.
"""

import argparse
import dataclasses
import difflib
import json
import math
import os
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from open_r1_vision.recipe_files import read_files


@dataclass
class DataArguments:
    """Where rows come from and what the model is told."""

    dataset: str = field(
        metadata={
            "help": "Training rows: a parquet, JSON or JSONL file, a save_to_disk folder, a hub id, or the dotted "
            "path of a function that returns a data set."
        }
    )
    dataset_split: str = field(default="train", metadata={"help": "Split of the training rows."})
    dataset_options: dict | str | None = field(
        default=None, metadata={"help": "Further arguments for a data set named by a dotted path, as a mapping."}
    )
    eval_dataset: str | None = field(default=None, metadata={"help": "Held-out rows, named like `dataset`."})
    eval_dataset_split: str = field(default="test", metadata={"help": "Split of the held-out rows."})
    eval_dataset_options: dict | str | None = field(
        default=None, metadata={"help": "As dataset_options, for the held-out rows."}
    )
    system_prompt: str | None = field(
        default=None,
        metadata={"help": "System prompt: a packaged prompt's name (visionary_r1, r1, …) or a text file."},
    )
    user_prompt: str | None = field(
        default=None,
        metadata={
            "help": "Template of the user's message: a packaged prompt's name or a text file with {problem} in it; by "
            "default the problem alone."
        },
    )
    min_pixels: int | None = field(
        default=None, metadata={"help": "Images with fewer pixels are enlarged by the processor."}
    )
    max_pixels: int | None = field(
        default=None, metadata={"help": "Images with more pixels are reduced by the processor."}
    )

    def __post_init__(self) -> None:
        self.dataset_options = read_mapping("dataset_options", self.dataset_options)
        self.eval_dataset_options = read_mapping("eval_dataset_options", self.eval_dataset_options)

    @property
    def prompt_texts(self) -> dict[str, Any]:
        """`system_prompt` and `user_prompt`, read, as :func:`open_r1_vision.data.rows.to_messages` takes them.

        Raises:
            ValueError: one of them is not to be found, or the template has no `{problem}`.
        """
        from open_r1_vision.prompts import load_prompt, load_template

        return {
            "system_prompt": load_prompt(self.system_prompt) if self.system_prompt else None,
            "user_prompt": load_template(self.user_prompt, "problem") if self.user_prompt else None,
        }


@dataclass
class WarmUpArguments(DataArguments):
    """Arguments of `open_r1_vision.sft` beside TRL's own options."""

    freeze_vision_tower: bool = field(
        default=False, metadata={"help": "Leave the image encoder as it is, but for its projector."}
    )
    freeze_projector: bool = field(
        default=False,
        metadata={"help": "Leave the layers between the image encoder and the language model as they are."},
    )
    overwrite_output: bool = field(
        default=False, metadata={"help": "Delete what another run left in output_dir, instead of refusing."}
    )


@dataclass
class ScriptArguments(DataArguments):
    """Arguments of `open_r1_vision.train` beside the trainer's own options."""

    trainer: str = field(
        default="open_r1_vision.trainers.VisionGRPOTrainer",
        metadata={
            "help": "Dotted path of the trainer class; its `config_class` decides which further keys there are."
        },
    )
    reward_funcs: list[str] = field(
        default_factory=lambda: ["open_r1_vision.rewards.accuracy_reward", "open_r1_vision.rewards.format_reward"],
        metadata={"help": "Dotted paths of reward functions; reward_weights gives their weights in the same order."},
    )
    reward_kwargs: dict | str | None = field(
        default=None,
        metadata={
            "help": "Fixed arguments by a reward's dotted path, such as "
            "{open_r1_vision.rewards.format_reward: {sections: [think, answer]}}."
        },
    )
    answer_form: str | None = field(
        default="tags",
        metadata={
            "help": "Where completions give their answer, for the held-out evaluation and for rewards that take "
            "answer_form: tags (<answer>…</answer>), boxed (\\boxed{…}), sections (### The final answer is: …), or "
            "null where they are captions only."
        },
    )
    eval_every: int | None = field(
        default=None, metadata={"help": "Evaluate the held-out rows every so many steps, not only before and after."}
    )
    check_rows: int = field(
        default=2000,
        metadata={
            "help": "Rows that are checked before training as check_data checks all of them; training refuses to "
            "start on a bad one. 0 checks none."
        },
    )
    overwrite_output: bool = field(
        default=False, metadata={"help": "Delete what another run left in output_dir, instead of refusing."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.reward_kwargs = read_mapping("reward_kwargs", self.reward_kwargs)
        if isinstance(self.reward_funcs, str):
            self.reward_funcs = [self.reward_funcs]
        if self.answer_form is not None:
            from open_r1_vision.rewards.answers import ANSWER_FORMS  # not needed for --help

            if self.answer_form not in ANSWER_FORMS:
                raise ValueError(f"answer_form is {self.answer_form!r}: set it to {', '.join(ANSWER_FORMS)} or null.")
        if self.eval_every is not None and self.eval_every < 1:
            raise ValueError(f"eval_every is {self.eval_every}: set at least 1 step, or leave it out.")


@dataclass(frozen=True)
class Recipe:
    """What was asked for: the recipe's keys with the command line's on top, and the files they came from.

    Attributes:
        settings: values by key.
        path: the first file of the command line; None without one.
        origins: the file that each key's value came from; a key of the command line has none.
    """

    settings: dict[str, Any]
    path: Path | None
    origins: dict[str, Path] = field(default_factory=dict)

    def as_plain(self) -> dict[str, Any]:
        """The settings as plain values: a number or a truth value is one, whether YAML or the command line gave it."""
        return {key: _as_plain(value) for key, value in self.settings.items()}

    def without(self, *keys: str) -> "Recipe":
        """The same recipe without some of its keys."""
        return self.only(self.settings.keys() - set(keys))

    def only(self, keys: Collection[str]) -> "Recipe":
        """The part of the recipe that has some keys."""
        settings = {key: value for key, value in self.settings.items() if key in keys}
        return Recipe(settings, self.path, self.origins)

    def describe_unknown(self, key: str, near: str | None, otherwise: str = "") -> str:
        """The message about a key that is none: where it stands, and which one may have been meant.

        Args:
            key: of the recipe.
            near: the nearest right one.
            otherwise: what to say where none is near.
        """
        where = f" in {self.origins[key]}" if key in self.origins else ""
        return f"Unknown key `{key}`{where}.{f' Did you mean `{near}`?' if near else otherwise}"


def read_recipe(argv: Sequence[str]) -> Recipe:
    """Merge `--config FILE ...` and the `--key value` pairs of a command line, and set the recipe's `env`.

    The environment is set here because torch reads some of it, such as OMP_NUM_THREADS, when it is imported.

    Raises:
        ValueError: no such file, no YAML, not a mapping, or an argument that is no `--key value` pair.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", nargs="*", action="extend")
    known, rest = parser.parse_known_args(list(argv))
    if known.config == []:
        raise ValueError("--config stands without a file: give the path of a recipe, or of several.")
    files = read_files(known.config or [])
    os.environ.update({name: str(value) for name, value in files.environment.items()})
    pairs = _read_pairs(rest)
    origins = {key: file for key, file in files.origins.items() if key not in pairs}
    return Recipe({**files.settings, **pairs}, Path(known.config[0]) if known.config else None, origins)


def parse_recipe(recipe: Recipe, dataclass_types: Sequence[type]) -> tuple[Any, ...]:
    """Build the dataclasses from a recipe with TRL's parser.

    Raises:
        ValueError: a key that none of them has, with the nearest right name; or a value that they refuse.
    """
    unknown = find_unknown_keys(recipe, dataclass_types)
    if unknown:
        raise ValueError("\n".join(unknown.values()))
    parser = _make_parser(dataclass_types, recipe.path)
    return _parse_settings(parser, recipe.settings)


def find_unknown_keys(recipe: Recipe, dataclass_types: Sequence[type]) -> dict[str, str]:
    """The keys that none of the dataclasses has, each with a message that gives the nearest right name."""
    known = {name for kind in dataclass_types for name in _field_names(kind)}
    messages = {}
    for key in recipe.settings:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            messages[key] = recipe.describe_unknown(key, near[0] if near else None, " `--help_all` lists the keys.")
    return messages


def print_help(
    module: str,
    dataclass_types: Sequence[type],
    about: str | None,
    further: str,
    given: str = "--config RECIPE [OVERLAY ...]",
) -> None:
    """Write the keys of the library's own dataclasses, without importing what takes seconds.

    Args:
        module: the entry point.
        dataclass_types: whose keys it takes.
        about: what the entry point is for; its module's docstring.
        further: what else may be given.
        given: what a command line begins with.
    """
    lines = [f"usage: python -m {module} {given} [--key value ...]", "", (about or "").strip(), ""]
    for kind in dataclass_types:
        for item in dataclasses.fields(kind):
            required = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
            default = (
                "required"
                if required
                else f"default {item.default}"
                if item.default is not dataclasses.MISSING
                else ""
            )
            lines += [
                f"  --{item.name}  ({default})" if default else f"  --{item.name}",
                f"      {item.metadata['help']}",
            ]
    sys.stdout.write("\n".join([*lines, "", further]) + "\n")


def print_all_help(module: str, dataclass_types: Sequence[type]) -> None:
    """Write every key of the dataclasses, TRL's and transformers' included."""
    parser = _make_parser(dataclass_types)
    parser.prog = f"python -m {module}"
    parser.print_help()


def _make_parser(dataclass_types: Sequence[type], path: Path | None = None) -> Any:
    """TRL's parser, which raises a ValueError where it would print hundreds of lines of usage and exit."""
    from trl import TrlParser

    class Parser(TrlParser):
        def error(self, message: str) -> NoReturn:
            _, required, names = message.partition("arguments are required: ")
            if required:
                where = str(path) if path else "the recipe (--config FILE)"
                raise ValueError(f"`{names.replace('--', '')}` is not set: give it in {where}, or as {names}.")
            raise ValueError(f"{message}. --help_all says what each key takes.")

    kinds: Any = list(dataclass_types)
    return Parser(kinds)


def _parse_settings(parser: Any, settings: dict[str, Any]) -> tuple[Any, ...]:
    from_text = {key: value for key, value in settings.items() if isinstance(value, _CommandLineText)}
    remaining = parser.set_defaults_with_config(**{k: v for k, v in settings.items() if k not in from_text})
    assert not remaining, remaining  # keys were checked above
    argv = [part for key, value in from_text.items() for part in (f"--{key}", *value.parts)]
    return parser.parse_args_into_dataclasses(args=argv)


@dataclass(frozen=True)
class _CommandLineText:
    """The words that followed a key on the command line; the parser gives them their type."""

    parts: tuple[str, ...]


def _read_pairs(words: Sequence[str]) -> dict[str, _CommandLineText]:
    pairs: dict[str, list[str]] = {}
    current: list[str] | None = None
    for word in words:
        if word.startswith("--"):
            key, equals, value = word[2:].partition("=")
            current = pairs.setdefault(key.replace("-", "_"), [])
            current.clear()
            current.extend([value] if equals else [])
        elif current is None:
            raise ValueError(f"Unexpected argument {word!r}: settings are given as `--key value`.")
        else:
            current.append(word)
    return {key: _CommandLineText(tuple(values)) for key, values in pairs.items()}


def _as_plain(value: Any) -> Any:
    if isinstance(value, _CommandLineText):
        values = [_as_plain(part) for part in value.parts]
        return values[0] if len(values) == 1 else values or True
    if not isinstance(value, str):
        return value
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    try:
        number = float(value)
    except ValueError:
        return value
    return (int(number) if value.lstrip("+-").isdecimal() else number) if math.isfinite(number) else value


def _field_names(kind: type) -> set[str]:
    return {item.name for item in dataclasses.fields(kind) if item.init}


def read_mapping(name: str, value: Any) -> dict[str, Any]:
    """A mapping as a recipe has it, or as JSON from a command line; an empty one for None.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError(f"{name} is {value!r}, which is not JSON ({error}): give a mapping.") from error
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"{name} is a {type(value).__name__}: give a mapping.")
    return value or {}
