# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a stage, found without starting it: unknown keys, missing files and columns, empty splits."""

import contextlib
import functools
import io
import json
import re
from collections.abc import Collection, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from open_r1_vision.arguments import Recipe, ScriptArguments, WarmUpArguments, find_unknown_keys, parse_recipe
from open_r1_vision.curriculum.recipe import Curriculum, Stage
from open_r1_vision.importing import import_callable, is_dotted_path

#: Where a stage's rows come from.
_DATA_KEYS = ("dataset", "dataset_split", "dataset_options")
#: What names the folder of another stage that has them.
_SOURCE_KEYS = (*_DATA_KEYS, "samples")
_SPLIT_ROWS = "open_r1_vision.data.splits.rows"


def find_faults(curriculum: Curriculum, stage: Stage) -> list[str]:
    """Everything that would stop the stage before its first step, as far as it can be known beforehand.

    Rows that an earlier stage has yet to split are those of the stage that samples them: a split changes no columns.
    """
    faults: list[str] = []
    with _noting(faults):
        _check_model(curriculum, stage)
    check = {"train": _check_train, "sft": _check_sft, "sample": _check_sample, "split": _check_split}[stage.run]
    check(curriculum, stage, faults)
    return list(dict.fromkeys(faults))


def find_empty_splits(stage: Stage, unfinished: Collection[str]) -> list[str]:
    """Which splits that a stage is to read are empty, or are not there: with the threshold that emptied them.

    Args:
        stage: it need not be the next one.
        unfinished: folders in which there may be no splits yet.
    """
    faults: list[str] = []
    for block in _blocks(stage.settings):
        for prefix in ("", "eval_"):
            path = str((block.get(f"{prefix}dataset_options") or {}).get("path"))
            if block.get(f"{prefix}dataset") == _SPLIT_ROWS and path not in unfinished:
                from open_r1_vision.data.splits import read_split

                with _noting(faults):
                    read_split(block.get(f"{prefix}dataset_split", "test" if prefix else "train"), path)
    return faults


@contextlib.contextmanager
def _noting(faults: list[str]) -> Iterator[None]:
    """What goes wrong is noted, and what comes after is checked nevertheless."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        faults.append(str(error))


def _check_model(curriculum: Curriculum, stage: Stage) -> None:
    name = stage.settings.get("model_name_or_path")
    if not name:
        has_server = stage.run == "sample" and stage.settings.get("backend") == "endpoint"
        if stage.run != "split" and not has_server:
            raise ValueError(
                "it has no `model_name_or_path`: set it to a folder, a hub id or an earlier stage's final."
            )
        return
    name = str(name)
    for other in map(curriculum.stage, stage.needs):
        if name == str(other.folder):
            raise ValueError(
                f"model_name_or_path is the folder of stage {other.name!r}, whose model lies in a folder of its own: "
                f"write {{{other.name}.final}}."
            )
        if name == str(other.folder / "final"):
            return
    if Path(name).exists():
        return
    if is_dotted_path(name):
        import_callable(name)
    elif name.startswith(("./", "/", "~")) or name.count("/") > 1:
        raise FileNotFoundError(
            f"There is no model folder {name!r} (looked at {str(Path(name).absolute())!r}): set model_name_or_path to "
            "a folder that is there, a hub id of the form owner/name, or an earlier stage's final, as {stage.final}."
        )


def _check_train(curriculum: Curriculum, stage: Stage, faults: list[str]) -> None:
    from trl import ModelConfig

    from open_r1_vision import train
    from open_r1_vision.rewards.loading import ROW_COLUMNS, check_settings

    trainer_class: Any = None
    with _noting(faults):
        trainer_class = train.find_trainer(Recipe(stage.settings, None))
    if trainer_class is None:
        trainer_class = import_callable(ScriptArguments.trainer)
        config = None  # what keys there are is not known
    else:
        config = _parse(stage.settings, (ScriptArguments, trainer_class.config_class, ModelConfig), 1, faults)
    script = _parse_own(_with_source(curriculum, stage), ScriptArguments, faults)
    if script is None:
        return
    with _noting(faults):
        _ = script.prompt_texts
    rows = _load_rows(curriculum, stage, faults)
    names = ROW_COLUMNS if rows is None else rows.column_names
    rewards: list = []
    with _noting(faults):
        rewards = train.name_rewards(script, names)
        check_settings(rewards)
    gate: Any = {}
    with _noting(faults):
        gate = train.load_gate(config, script.answer_form, names)
    if rows is not None:
        with _noting(faults):
            functions = [*rewards, *gate.values()]
            train.check_needs(rows, functions, trainer_class, config.named_columns if config else ())
    if script.eval_dataset != _SPLIT_ROWS:  # of a split there may be no rows yet
        with _noting(faults):
            train.load_eval_rows(script)


def _check_sft(curriculum: Curriculum, stage: Stage, faults: list[str]) -> None:
    from trl import ModelConfig, SFTConfig

    settings = {**stage.settings, "use_cpu": True, "bf16": False}
    _parse(settings, (WarmUpArguments, SFTConfig, ModelConfig), 1, faults)
    rows = _load_rows(curriculum, stage, faults)
    if rows is None or "messages" in rows.column_names:
        return
    missing = [name for name in ("prompt", "completion") if name not in rows.column_names]
    if missing:
        faults.append(
            f"its rows lack {' and '.join(missing)}; they have {', '.join(rows.column_names)}: name a data set with "
            "the columns prompt and completion, or messages."
        )


def _check_sample(curriculum: Curriculum, stage: Stage, faults: list[str]) -> None:
    from open_r1_vision.sampling.options import SampleArguments, check_sampling_keys, read_part

    recipe = Recipe(stage.settings, None)
    with _noting(faults):
        check_sampling_keys(recipe)
    with _noting(faults):
        read_part(recipe, SampleArguments)
    options = _parse_own(_with_source(curriculum, stage), SampleArguments, [])
    with _noting(faults):
        _ = options and options.prompt_texts
    _load_rows(curriculum, stage, faults)


def _check_split(curriculum: Curriculum, stage: Stage, faults: list[str]) -> None:
    from open_r1_vision.sampling.options import read_part
    from open_r1_vision.sampling.records import read_settings
    from open_r1_vision.sampling.scoring import load_scorer
    from open_r1_vision.split import SplitArguments

    with _noting(faults):
        read_part(Recipe(stage.settings, None), SplitArguments)
    options = _parse_own(stage.settings, SplitArguments, [])
    samples = str(stage.settings.get("samples"))
    sampled_by = [other for other in map(curriculum.stage, stage.needs) if samples == str(other.folder)]
    if not sampled_by and "samples" in stage.settings:
        with _noting(faults):
            read_settings(samples)
    for other in sampled_by:
        if other.run != "sample":
            faults.append(
                f"`samples` is the folder of stage {other.name!r}, which runs {other.run}: name one that runs sample."
            )
            return
    rows = _load_rows(curriculum, stage, faults)
    if options is not None and rows is not None:
        with _noting(faults):
            load_scorer(options.scorer, options.scorer_kwargs, rows, options.answer_form)


def _parse(settings: dict[str, Any], kinds: tuple[type, ...], place: int, faults: list[str]) -> Any:
    """The options at a place among `kinds`, unknown keys left out; None where values can't work."""
    # how the run is spread over devices does not matter here
    recipe = Recipe({key: value for key, value in settings.items() if key not in ("deepspeed", "env")}, None)
    unknown = find_unknown_keys(recipe, kinds)
    faults += unknown.values()
    known = Recipe({key: value for key, value in recipe.settings.items() if key not in unknown}, None)
    with _noting(faults), _no_exit():
        return parse_recipe(known, kinds)[place]
    return None


def _parse_own(settings: dict[str, Any], kind: type, faults: list[str]) -> Any:
    """The part of a stage's settings that a dataclass of this library has; None where values can't work."""
    names = {item.name for item in fields(kind) if item.init}
    own = {key: value for key, value in settings.items() if key in names}
    with _noting(faults), _no_exit():
        return parse_recipe(Recipe(own, None), (kind,))[0]
    return None


@contextlib.contextmanager
def _no_exit() -> Iterator[None]:
    """The parser leaves the program, with a line on stderr, over a required key that is not set."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            yield
    except SystemExit as error:
        raise ValueError(said.getvalue().rpartition("error: ")[2].strip()) from error


def _load_rows(curriculum: Curriculum, stage: Stage, faults: list[str]) -> Any:
    """The stage's rows; None where there are none, which is a fault unless it is that of another stage."""
    settings = _with_source(curriculum, stage)
    name = settings.get("dataset")
    if not name and "dataset" in settings:
        faults.append(f"its `dataset` is {name!r}: name a file, a folder, a hub id or the dotted path of a function.")
    # a mapping's own brace has a quotation mark behind it
    if not name or re.search(r"\{\w", str([settings.get(key) for key in _DATA_KEYS])):
        return None  # a reference that leads nowhere was a fault already
    options = json.dumps(settings.get("dataset_options") or {}, sort_keys=True, default=str)
    from_another = settings is not stage.settings
    with _noting([] if from_another else faults):
        return _load(stage.run == "sft", str(name), str(settings.get("dataset_split", "train")), options)
    return None


@functools.lru_cache(maxsize=4)
def _load(is_lessons: bool, name: str, split: str, options: str) -> Any:
    from open_r1_vision.data.loading import load_rows, load_table

    return (load_table if is_lessons else load_rows)(name, split, **json.loads(options))


def _with_source(curriculum: Curriculum, stage: Stage) -> dict[str, Any]:
    """The stage's settings, with the rows that an earlier stage samples in place of splits of them."""
    for name in stage.needs:
        other = curriculum.stage(name)
        reads_it = any(str(other.folder) in str(stage.settings.get(key)) for key in _SOURCE_KEYS)
        source = _with_source(curriculum, other)
        if reads_it and source.get("dataset"):
            rows = {key: source[key] for key in _DATA_KEYS if key in source}
            return {**{key: value for key, value in stage.settings.items() if key not in _DATA_KEYS}, **rows}
    return stage.settings


def _blocks(value: Any) -> Iterator[dict[str, Any]]:
    """Every mapping within a value, itself included: data sets that are merged are named in blocks."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _blocks(item)
