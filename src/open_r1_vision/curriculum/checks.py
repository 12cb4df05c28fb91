# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a stage, found without starting it: unknown keys, missing files, missing columns."""

from typing import Any

from open_r1_vision.arguments import Recipe, ScriptArguments, WarmUpArguments, parse_recipe
from open_r1_vision.curriculum.recipe import Curriculum, Stage
from open_r1_vision.importing import import_callable, is_dotted_path

#: Where a stage's rows come from.
_DATA_KEYS = ("dataset", "dataset_split", "dataset_options")
#: What names the folder of another stage that has them.
_SOURCE_KEYS = (*_DATA_KEYS, "samples")


def find_faults(curriculum: Curriculum, stage: Stage) -> list[str]:
    """Everything that would stop the stage before its first step, as far as it can be known beforehand.

    Rows that an earlier stage has yet to split are those of the stage that samples them: a split changes no columns.
    """
    try:
        _check_model(stage)
        if stage.run == "train":
            _check_train(curriculum, stage)
        elif stage.run == "sft":
            _check_sft(curriculum, stage)
        else:
            _check_data(_with_source(curriculum, stage))
    except (ValueError, FileNotFoundError) as error:
        return [str(error)]
    return []


def _check_model(stage: Stage) -> None:
    name = stage.settings.get("model_name_or_path")
    if stage.run in ("train", "sft", "sample") and not name:
        raise ValueError("it has no `model_name_or_path`: set it to a folder, a hub id or an earlier stage's final.")
    if name and is_dotted_path(str(name)):
        import_callable(str(name))


def _check_train(curriculum: Curriculum, stage: Stage) -> None:
    from trl import ModelConfig

    from open_r1_vision.train import load_inputs

    settings = _with_source(curriculum, stage)
    trainer_class: Any = import_callable(settings.get("trainer") or ScriptArguments.trainer)
    # how the run is spread over devices does not matter here
    recipe = Recipe({key: value for key, value in settings.items() if key != "deepspeed"}, None)
    script, training, _ = parse_recipe(recipe, (ScriptArguments, trainer_class.config_class, ModelConfig))
    load_inputs(script, trainer_class, training.named_columns)


def _check_sft(curriculum: Curriculum, stage: Stage) -> None:
    from trl import ModelConfig, SFTConfig

    settings = {key: value for key, value in stage.settings.items() if key != "deepspeed"}
    parse_recipe(Recipe({**settings, "use_cpu": True, "bf16": False}, None), (WarmUpArguments, SFTConfig, ModelConfig))
    columns = _check_data(_with_source(curriculum, stage))
    missing = [name for name in ("prompt", "completion") if name not in columns]
    if missing and "messages" not in columns:
        raise ValueError(
            f"its rows lack {' and '.join(missing)}; they have {', '.join(columns)}: name a data set with the columns "
            "prompt and completion."
        )


def _check_data(settings: dict[str, Any]) -> list[str]:
    """The columns of a stage's rows."""
    from open_r1_vision.data.loading import load_table

    if not settings.get("dataset"):
        return []
    options = settings.get("dataset_options") or {}
    return load_table(settings["dataset"], settings.get("dataset_split", "train"), **options).column_names


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
