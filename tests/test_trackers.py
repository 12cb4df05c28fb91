# SPDX-License-Identifier: Apache-2.0
"""Trackers: which are there, and what reaches them; TensorBoard is the real one, wandb and trackio are stand-ins."""

import json
import shutil
import sys
from collections import defaultdict
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest
from processes import write_recipe
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_models import image
from transformers.integrations import integration_utils
from trl.extras import profiling
from trl.trainer import base_trainer, grpo_trainer

from open_r1_vision import sft, train
from open_r1_vision.arguments import read_recipe
from open_r1_vision.gallery.curves import build_curves
from open_r1_vision.held_out import read_evaluations
from open_r1_vision.run_log import LOG_FILE, read_log
from open_r1_vision.trackers import check_trackers, missing_trackers

#: What transformers gives trackers as summaries, or in words of their own.
SUMMARIES = ("total_flos", "train_loss", "train_runtime", "train_samples_per_second", "train_steps_per_second")


class StandIn(ModuleType):
    """What transformers and TRL call of wandb and trackio; keeps what it is given, and is as strict as wandb."""

    class Image:
        def __init__(self, content):
            self.colour = content.convert("RGB").getpixel((0, 0))

    class Table:
        def __init__(self, dataframe):
            for name in dataframe:
                kinds = {type(cell) for cell in dataframe[name] if cell is not None}
                assert len(kinds) <= 1 and not kinds & {list, dict}, f"wandb refuses column {name} of {kinds}"
            self.rows = dataframe.to_dict(orient="records")

    class Settings(dict):
        def update(self, values, allow_val_change=False):
            super().update(values)

    def __init__(self, name):
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None)
        self.run, self.entries, self.config = None, [], self.Settings()
        nobody = SimpleNamespace(get=lambda: None)
        self.context_vars = SimpleNamespace(current_space_id=nobody, current_run=nobody)

    def init(self, **options):
        assert self.run is None, "one run a process"
        self.run = SimpleNamespace(summary={}, url=None, _label=lambda **labels: None)

    def log(self, entry, step=None):
        self.entries.append(entry)

    def finish(self):
        pass

    @property
    def tables(self):
        return [entry["completions"].rows for entry in self.entries if "completions" in entry]

    @property
    def scalars(self):
        """Each scalar's values by step, by its name in log.jsonl."""
        by_name = defaultdict(dict)
        for entry in self.entries:
            for name, value in entry.items():
                if name.startswith("train/") and name != "train/global_step" and value is not None:
                    by_name[name.removeprefix("train/")][entry["train/global_step"]] = value
        return by_name


@pytest.fixture
def stand_in(monkeypatch):
    """`stand_in(name)` puts a stand-in where transformers and TRL find that tracker."""

    def put(name):
        tracker = StandIn(name)
        modules = {name: tracker}
        if name == "wandb":
            modules |= {f"wandb.{part}": ModuleType(f"wandb.{part}") for part in ("sdk", "sdk.lib")}
            modules["wandb.sdk.lib.config_util"] = SimpleNamespace(ConfigError=RuntimeError)
        for module, content in modules.items():
            monkeypatch.setitem(sys.modules, module, content)
        for module in (grpo_trainer, profiling, base_trainer):
            monkeypatch.setattr(module, name, tracker, raising=False)
        return tracker

    return put


def write(folder, model, **settings):
    """A recipe of 2 steps on rows of which the second has no image, with 3 held-out rows evaluated at each step."""
    defaults = {
        "trainer": "open_r1_vision.trainers.CaptionGRPOTrainer",
        "dataset_options": {"count": 4, "texts": [1]},
        "eval_dataset": "processes.rows",
        "eval_dataset_options": {"count": 3},
        "eval_every": 1,
        "max_completions_per_device": 8,
        "max_steps": 2,
    }
    return str(write_recipe(folder, model, **{**defaults, **settings}))


def logged(run):
    """Each metric's values of log.jsonl by step."""
    by_name = defaultdict(dict)
    for entry in read_log(run / LOG_FILE):
        for name, value in entry.items():
            if name != "step" and name not in SUMMARIES and value is not None:
                assert name == "epoch" or entry["step"] not in by_name[name], f"{name} twice"
                by_name[name][entry["step"]] = value
    return dict(by_name)


def events(folder):
    """Each scalar of TensorBoard's files by step, by its name in log.jsonl."""
    reader = EventAccumulator(str(folder))
    reader.Reload()
    return {
        tag.removeprefix("train/"): {event.step: event.value for event in reader.Scalars(tag)}
        for tag in reader.Tags()["scalars"]
    }


# ---- which are there


def hide(monkeypatch, *names):
    for name in names:
        monkeypatch.setattr(integration_utils, f"is_{name}_available", lambda: False)


def test_what_is_missing(monkeypatch):
    hide(monkeypatch, "wandb", "comet", "azureml", "trackio", "flytekit")
    for nothing in ("none", ["none"], [], None, "all", ["all"], "tensorboard"):
        assert missing_trackers(nothing) == []
        check_trackers(nothing)
    assert missing_trackers("wandb") == ["wandb"]
    names = ["tensorboard", "comet_ml", "azure_ml", "flyte", "trackio"]
    assert missing_trackers(names) == ["comet-ml", "azureml-sdk", "flytekit", "trackio"]


@pytest.mark.parametrize("name", integration_utils.INTEGRATION_TO_CALLBACK)
def test_every_tracker_can_be_looked_for(name):
    assert len(missing_trackers(name)) <= 1


def test_messages(monkeypatch):
    hide(monkeypatch, "wandb", "trackio")
    with pytest.raises(ValueError, match="report_to is 'wandb', but wandb is not installed here: `pip install wandb`"):
        check_trackers("wandb")
    with pytest.raises(ValueError, match="'trackio, wandb', but trackio and wandb are not .* `pip install trackio w"):
        check_trackers(["trackio", "wandb"])
    with pytest.raises(ValueError, match="'tensorbord', which is no tracker. Did you mean 'tensorboard'"):
        check_trackers("tensorbord")
    with pytest.raises(ValueError, match="'xyz', which is no tracker. There are azure_ml, .*report_to: none"):
        check_trackers(["tensorboard", "xyz"])


@pytest.mark.parametrize("module", [train, sft])
def test_training_says_so_before_it_loads_anything(module, tiny_model, tmp_path, monkeypatch):
    hide(monkeypatch, "wandb")
    monkeypatch.setattr("open_r1_vision.models.find_model", lambda *args: pytest.fail("too late"))
    settings = {"model_name_or_path": tiny_model, "output_dir": str(tmp_path / "run"), "report_to": "wandb"}
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps({**settings, "dataset": "processes.rows", "use_cpu": True, "bf16": False}))
    with pytest.raises(ValueError, match="pip install wandb`, or set report_to: none"):
        module.prepare(read_recipe(["--config", str(path)]))
    assert not (tmp_path / "run").exists()


# ---- what reaches them


def test_tensorboard_has_the_scalars_of_the_log(tiny_model, tmp_path, monkeypatch):
    path = write(tmp_path, tiny_model, report_to="tensorboard")
    train.main(["--config", path])
    run = tmp_path / "run"
    (folder,) = (run / "runs").iterdir()
    scalars, expected = events(folder), logged(run)
    assert {"held_out/accuracy", "held_out/reader_accuracy", "reward", "loss", "seconds/step"} <= expected.keys()
    for name, values in expected.items():
        # TensorBoard keeps 32 bits
        assert scalars[name] == pytest.approx(values, rel=1e-6), name
    assert set(scalars) - set(expected) == set(SUMMARIES)
    # a step's metrics stay in its own entry
    assert [
        sorted(entry.keys() - {"epoch", "step"}) for entry in read_log(run / LOG_FILE) if "reward" not in entry
    ] == [
        *[["held_out/accuracy", "held_out/reader_accuracy"]] * 3,
        sorted(SUMMARIES),
    ]
    assert list(expected["reward"]) == [1, 2]
    for step, samples in read_evaluations(run).items():
        assert expected["held_out/accuracy"][step] == sum(sample.accuracy for sample in samples) / 3
    # killed in step 2: what the first part logged is not logged again
    shutil.rmtree(run / "checkpoint-2")
    shutil.rmtree(run / "final")
    (run / "results.json").unlink()
    monkeypatch.setattr(integration_utils, "default_logdir", lambda: "runs/second")
    train.main(["--config", path])
    assert list(logged(run)["held_out/accuracy"]) == [0, 1, 2]
    assert list(events(run / "runs" / "second")["held_out/accuracy"]) == [2]


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_scalars_and_tables_of_other_trackers(tiny_model, tmp_path, stand_in, name):
    tracker = stand_in(name)
    path = write(tmp_path, tiny_model, report_to=name, log_completions=True)
    train.main(["--config", path])
    expected = logged(tmp_path / "run")
    assert list(expected["held_out/accuracy"]) == [0, 1, 2]
    assert tracker.scalars == expected
    colours = {f"train-{index}": image(index).getpixel((0, 0)) for index in (0, 2, 3)} | {"train-1": None}
    # at the end TRL gives the last table once more
    steps = [[row["step"] for row in table] for table in tracker.tables]
    assert steps == [[1] * 8, [2] * 8, [2] * 8]
    for table, ids in zip(tracker.tables, (("train-0", "train-1"), ("train-2", "train-3")), strict=False):
        assert [row["id"] for row in table] == [ids[0]] * 4 + [ids[1]] * 4
        for row in table:
            assert (row["image"] and row["image"].colour) == colours[row["id"]]
            marker = "[image]\n" if row["image"] else ""
            assert row["prompt"].startswith(f"{marker}How many of {row['id'][-1]}?")
            assert isinstance(row["completion"], str)


def test_held_out_curves_are_shown_once(tmp_path):
    entries = [{"step": step, "held_out/accuracy": step / 4, "loss": 1 / (step + 1)} for step in (0, 1)]
    titles = [section["title"] for section in build_curves(tmp_path, entries)["sections"]]
    assert titles == ["Held-out rows", "Optimisation"]  # where the evaluations are gone
    (tmp_path / "evaluations").mkdir()
    for step in (0, 1):
        samples = "".join(json.dumps({"id": str(n), "accuracy": float(n < step)}) + "\n" for n in range(4))
        (tmp_path / "evaluations" / f"step_0000{step}.jsonl").write_text(samples)
    curves = build_curves(tmp_path, entries)
    held_out, optimisation = curves["sections"]
    assert held_out["title"].startswith("Held-out rows, greedy")
    assert [(curve["name"], curve["points"]) for curve in held_out["curves"]] == [("accuracy", [[0, 0.0], [1, 0.25]])]
    assert [curve["name"] for curve in optimisation["curves"]] == ["loss"]
    assert curves["constants"] == []
