# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a stage, found without starting it: unknown keys, missing files and columns, empty splits."""

import contextlib
import functools
import inspect
import json
import os
import re
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from open_r1_vision.arguments import (
    Recipe,
    ScriptArguments,
    WarmUpArguments,
    find_unknown_keys,
    parse_recipe,
    read_mapping,
)
from open_r1_vision.curriculum.launch import LAUNCHER_VARIABLES
from open_r1_vision.curriculum.recipe import Curriculum, Stage
from open_r1_vision.importing import describe_error, import_callable, is_dotted_path
from open_r1_vision.rewards.loading import check_weights
from open_r1_vision.trackers import check_trackers

#: Where a stage's rows come from.
_DATA_KEYS = ("dataset", "dataset_split", "dataset_options")
#: What names the folder of another stage that has them.
_SOURCE_KEYS = (*_DATA_KEYS, "samples")
_SPLIT_ROWS = "open_r1_vision.data.splits.rows"


def find_faults(curriculum: Curriculum, stage: Stage, with_rows: bool = True) -> list[str]:
    """Everything that would stop the stage before its first step, as far as it can be known beforehand.

    Rows that an earlier stage has yet to split are those of the stage that samples them: a split changes no columns.

    Args:
        curriculum: whose.
        stage: one of its stages.
        with_rows: load rows, and what rewards load, too; without, keys and names are checked alone.
    """
    check = _Check(curriculum, stage, with_rows)
    check.references()
    with check.noting():
        check.model()
    {"train": check.train, "sft": check.sft, "sample": check.sample, "split": check.split}[stage.run]()
    return list(dict.fromkeys(check.faults))


def find_own_rows(curriculum: Curriculum, stage: Stage) -> Any:
    """The rows that a stage loads by itself, as :func:`find_faults` does; None where they can't be, or not yet."""
    is_own = _with_source(curriculum, stage) is stage.settings
    return _Check(curriculum, stage, with_rows=True)._load_rows() if is_own else None


def find_wrong_names(curriculum: Curriculum, stages: Sequence[Stage]) -> list[str]:
    """The faults of stages that can be found without rows, each after its stage's name.

    They are found in a process that ends then: one that has read a trainer's options holds memory of a GPU.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_find_wrong_names, curriculum, stages).result()


def _find_wrong_names(curriculum: Curriculum, stages: Sequence[Stage]) -> list[str]:
    for name in LAUNCHER_VARIABLES:  # with those of a caller's torchrun, options would wait for its other processes
        os.environ.pop(name, None)
    return [f"{stage.name}: {fault}" for stage in stages for fault in find_faults(curriculum, stage, with_rows=False)]


def find_empty_splits(stage: Stage, unfinished: Collection[Path]) -> list[str]:
    """Which splits that a stage is to read are empty, or are not there: with the threshold that emptied them.

    Args:
        stage: it need not be the next one.
        unfinished: folders in which there may be no splits yet.
    """
    faults: list[str] = []
    for split, path in _splits_read(stage.settings):
        if path not in unfinished:
            from open_r1_vision.data.splits import read_split

            with _noting(faults):
                read_split(split, path)
    return faults


@contextlib.contextmanager
def _noting(faults: list[str]) -> Iterator[None]:
    """What goes wrong is noted, and what comes after is checked nevertheless."""
    try:
        yield
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a data set's or a reward's code may raise anything
        faults.append(describe_error(error))


class _Check:
    """Looks at one stage; what is wrong goes to `faults`."""

    def __init__(self, curriculum: Curriculum, stage: Stage, with_rows: bool) -> None:
        self._curriculum, self._stage, self._with_rows = curriculum, stage, with_rows
        self._settings = stage.settings
        self._needs = _find_needs(curriculum, stage)
        self.faults: list[str] = []

    def noting(self) -> contextlib.AbstractContextManager[None]:
        return _noting(self.faults)

    def references(self) -> None:
        """Splits that an earlier stage has yet to write, and files that are named."""
        from open_r1_vision.data.splits import SPLITS, SPLITS_FILE

        for split, path in _splits_read(self._settings):
            for other in self._needs:
                if path != other.folder:
                    continue
                if other.run != "split":
                    self.faults.append(
                        f"the `path` of {_SPLIT_ROWS} is the folder of stage {other.name!r}, which runs {other.run}: "
                        "name one that runs split."
                    )
                unknown = [name for name in split.split("+") if name not in SPLITS]
                if unknown and other.run == "split" and not (path / SPLITS_FILE).exists():
                    self.faults.append(
                        f"{str(path)!r} will have no split {unknown[0]!r}: set dataset_split to one of "
                        f"{', '.join(SPLITS)}, or to several, joined by +."
                    )
        if self._stage.run not in ("sft", "train"):
            return
        deepspeed, checkpoint = (self._settings.get(key) for key in ("deepspeed", "resume_from_checkpoint"))
        # it may be the configuration itself
        if isinstance(deepspeed, str) and not deepspeed.lstrip().startswith("{") and not Path(deepspeed).is_file():
            self.faults.append(
                f"deepspeed is {deepspeed!r}, but there is no such file (looked at {str(Path(deepspeed).absolute())!r}"
                "): set it to the path of a DeepSpeed configuration in JSON."
            )
        if isinstance(checkpoint, str) and not Path(checkpoint).is_dir():
            self.faults.append(
                f"resume_from_checkpoint is {checkpoint!r}, but there is no such folder: leave it out, since a stage "
                "goes on from its own last checkpoint."
            )

    def model(self) -> None:
        name = self._settings.get("model_name_or_path")
        if not name:
            has_server = self._stage.run == "sample" and self._settings.get("backend") == "endpoint"
            if self._stage.run != "split" and not has_server:
                raise ValueError(
                    "it has no `model_name_or_path`: set it to a folder, a hub id or an earlier stage's final."
                )
            return
        name = str(name)
        for other in self._needs:
            if Path(name) == other.folder:
                raise ValueError(
                    f"model_name_or_path is the folder of stage {other.name!r}, whose model lies in a folder of its "
                    f"own: write {{{other.name}.final}}."
                )
            if Path(name).is_relative_to(other.folder):
                return
        if Path(name).exists():
            return
        if is_dotted_path(name):
            import_callable(name)
        elif name.startswith(("./", "/", "~")) or name.count("/") > 1:
            raise FileNotFoundError(
                f"There is no model folder {name!r} (looked at {str(Path(name).absolute())!r}): set "
                "model_name_or_path to a folder that is there, a hub id of the form owner/name, or an earlier "
                "stage's final, as {stage.final}."
            )

    def train(self) -> None:
        from open_r1_vision import train
        from open_r1_vision.rewards.loading import check_settings

        trainer_class, config = self._trainer()
        script: Any = None
        with self.noting():
            script = _parse_own(_with_source(self._curriculum, self._stage), ScriptArguments)
        if script is None:
            return
        with self.noting():
            _ = script.prompt_texts
        with self.noting():
            check_weights(getattr(config, "reward_weights", None), script.reward_funcs)
        rows = self._load_rows()
        names = () if rows is None else rows.column_names
        rewards: list = []
        with self.noting():
            rewards = train.name_rewards(script, names)
            if self._with_rows:
                check_settings(map(on_cpu, rewards))
        gate: Any = {}
        with self.noting():
            gate = train.load_gate(config, script.answer_form, names)
        if rows is not None:
            with self.noting():
                functions = [*rewards, *gate.values()]
                train.check_needs(rows, functions, trainer_class, config.named_columns if config else ())
        if script.eval_dataset == _SPLIT_ROWS or not script.eval_dataset:
            return  # of a split there may be no rows yet
        with self.noting():
            if self._with_rows:
                train.load_eval_rows(script)
            else:
                _import_named(script.eval_dataset)

    def _trainer(self) -> tuple[Any, Any]:
        """The trainer's class and its options; None for options that can't be read."""
        from trl import ModelConfig

        from open_r1_vision import train
        from open_r1_vision.batching import plan_batch

        trainer_class: Any = None
        with self.noting():
            trainer_class = train.find_trainer(Recipe(self._settings, None))
        if trainer_class is None:
            return import_callable(ScriptArguments.trainer), None  # what keys there are is not known
        kind = trainer_class.config_class
        # as many as there will be: TRL refuses completions that they can't share
        config_class = type(kind.__name__, (kind,), {"world_size": self._stage.processes})
        config = self._parse((ScriptArguments, config_class, ModelConfig), 1)
        if config is not None and getattr(config, "prompts_per_step", None):
            with self.noting():
                plan_batch(
                    config.prompts_per_step,
                    config.num_generations,
                    self._stage.processes,
                    config.max_completions_per_device,
                )
        return trainer_class, config

    def sft(self) -> None:
        from trl import ModelConfig, SFTConfig

        self._settings = {**self._settings, "use_cpu": True, "bf16": False}
        self._parse((WarmUpArguments, SFTConfig, ModelConfig), 1)
        rows = self._load_rows()
        if rows is None or "messages" in rows.column_names:
            return
        missing = [name for name in ("prompt", "completion") if name not in rows.column_names]
        if missing:
            self.faults.append(
                f"its rows lack {' and '.join(missing)}; they have {', '.join(rows.column_names)}: name a data set "
                "with the columns prompt and completion, or messages."
            )

    def sample(self) -> None:
        from open_r1_vision.sampling.options import SampleArguments, check_sampling_keys, read_part

        recipe = Recipe(self._settings, None)
        with self.noting():
            check_sampling_keys(recipe)
        with self.noting():
            read_part(recipe, SampleArguments)
        options: Any = None
        with _noting([]):  # what is wrong with its keys was said a moment ago
            options = _parse_own(_with_source(self._curriculum, self._stage), SampleArguments)
        with self.noting():
            _ = options and options.prompt_texts
        self._load_rows()

    def split(self) -> None:
        from open_r1_vision.sampling.options import read_part
        from open_r1_vision.sampling.records import read_settings
        from open_r1_vision.sampling.scoring import load_scorer
        from open_r1_vision.split import SplitArguments

        with self.noting():
            read_part(Recipe(self._settings, None), SplitArguments)
        options: Any = None
        with _noting([]):
            options = _parse_own(self._settings, SplitArguments)
        samples = Path(str(self._settings.get("samples")))
        sampled_by = [other for other in self._needs if samples == other.folder]
        if not sampled_by and "samples" in self._settings:
            with self.noting():
                read_settings(samples)
        for other in sampled_by:
            if other.run != "sample":
                self.faults.append(
                    f"`samples` is the folder of stage {other.name!r}, which runs {other.run}: name one that runs "
                    "sample."
                )
                return
        rows = self._load_rows()
        if options is None:
            return
        with self.noting():
            if rows is None:
                import_callable(options.scorer)
            else:
                load_scorer(options.scorer, options.scorer_kwargs, rows, options.answer_form)

    def _parse(self, kinds: tuple[type, ...], place: int) -> Any:
        """The options at a place among `kinds`, unknown keys left out; None where values can't work."""
        # how the run is spread over devices does not matter here
        settings = {key: value for key, value in self._settings.items() if key not in ("deepspeed", "env")}
        unknown = find_unknown_keys(Recipe(settings, None), kinds)
        self.faults += unknown.values()
        known = Recipe({key: value for key, value in settings.items() if key not in unknown}, None)
        with self.noting():
            options = parse_recipe(known, kinds)[place]
            with self.noting():
                check_trackers(getattr(options, "report_to", None))
            return options
        return None

    def _load_rows(self) -> Any:
        """The stage's rows; None where there are none, which is a fault unless it is that of another stage."""
        settings = _with_source(self._curriculum, self._stage)
        name = settings.get("dataset")
        if not name and "dataset" in settings:
            self.faults.append(
                f"its `dataset` is {name!r}: name a file, a folder, a hub id or the dotted path of a function."
            )
        # a mapping's own brace has a quotation mark behind it
        if not name or re.search(r"\{\w", str([settings.get(key) for key in _DATA_KEYS])):
            return None  # a reference that leads nowhere was a fault already
        from_another = settings is not self._stage.settings
        with _noting([] if from_another else self.faults):
            given = read_mapping("dataset_options", settings.get("dataset_options"))
            options = json.dumps(given, sort_keys=True, default=str)
            if not self._with_rows:
                return _import_named(str(name))
            split = str(settings.get("dataset_split", "train"))
            return _load(self._stage.run == "sft", str(name), split, options)
        return None


def _parse_own(settings: dict[str, Any], kind: type) -> Any:
    """The part of settings that a dataclass of this library has."""
    names = {item.name for item in fields(kind) if item.init}
    return parse_recipe(Recipe({key: value for key, value in settings.items() if key in names}, None), (kind,))[0]


def on_cpu(reward: Any) -> Any:
    """A reward that checks its encoder on the CPU: this machine may not have the device of the training."""
    return functools.partial(reward, device="cpu") if "device" in inspect.signature(reward).parameters else reward


def _import_named(dataset: str) -> None:
    from open_r1_vision.data.loading import FILE_SUFFIXES

    path = Path(dataset).expanduser()
    if is_dotted_path(dataset) and not path.exists() and path.suffix not in FILE_SUFFIXES:
        import_callable(dataset)


@functools.lru_cache(maxsize=4)
def _load(is_lessons: bool, name: str, split: str, options: str) -> Any:
    from open_r1_vision.data.loading import load_rows, load_table

    return (load_table if is_lessons else load_rows)(name, split, **json.loads(options))


def _find_needs(curriculum: Curriculum, stage: Stage) -> list[Stage]:
    """The stages that it takes something from, but for those that can't be read, which were a fault already."""
    return [other for other in curriculum.stages if other.name in stage.needs]


def _with_source(curriculum: Curriculum, stage: Stage) -> dict[str, Any]:
    """The stage's settings, with the rows that an earlier stage samples in place of splits of them."""
    for other in _find_needs(curriculum, stage):
        reads_it = any(f"{{{other.name}.folder}}" in str(stage.written.get(key)) for key in _SOURCE_KEYS)
        source = _with_source(curriculum, other)
        if reads_it and source.get("dataset"):
            rows = {key: source[key] for key in _DATA_KEYS if key in source}
            return {**{key: value for key, value in stage.settings.items() if key not in _DATA_KEYS}, **rows}
    return stage.settings


def _splits_read(settings: dict[str, Any]) -> Iterator[tuple[str, Path]]:
    """The splits that settings name, each with the folder where it is to be."""
    for block in _blocks(settings):
        for prefix, default in (("", "train"), ("eval_", "test")):
            options = block.get(f"{prefix}dataset_options")
            if block.get(f"{prefix}dataset") == _SPLIT_ROWS:
                path = options.get("path") if isinstance(options, dict) else None
                yield str(block.get(f"{prefix}dataset_split", default)), Path(str(path)).expanduser()


def _blocks(value: Any) -> Iterator[dict[str, Any]]:
    """Every mapping within a value, itself included: data sets that are merged are named in blocks."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _blocks(item)
