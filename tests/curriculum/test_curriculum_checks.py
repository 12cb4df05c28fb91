# SPDX-License-Identifier: Apache-2.0
"""`--dry_run` tells of everything that is wrong at once and starts nothing; an empty split stops before its stage."""

import json
import sys
from pathlib import Path
from unittest.mock import ANY

import pytest
from miniature import miniature_stages, write_curriculum

from open_r1_vision import train
from open_r1_vision.arguments import read_recipe
from open_r1_vision.curriculum import __main__ as command
from open_r1_vision.curriculum import checks, read_curriculum
from open_r1_vision.curriculum.state import FINISHED, CurriculumState
from open_r1_vision.data.rows import rows_from_list
from open_r1_vision.dual_encoder import load_dual_encoder
from open_r1_vision.split import assign

sys.path.append(str(Path(__file__).parents[1] / "rewards"))

from dual_encoders import save_clip

CLIP = "open_r1_vision.rewards.clip_reward"
CAPTION = "open_r1_vision.trainers.CaptionGRPOTrainer"


@pytest.fixture
def dry_run(tiny_model, tmp_path, monkeypatch, capsys):
    """`dry_run(warm_up={...}, ...)` rehearses the miniature with other settings; gives code and faults by stage."""
    monkeypatch.setattr(command, "run_stage", lambda *_: pytest.fail("a stage was started"))

    def dry_run(*words, more=(), **changes):
        stages = [*miniature_stages(tiny_model), *more]
        for stage in stages:
            change = changes.get(stage["name"], {})
            stage["settings"] = {**stage["settings"], **change}
        config = write_curriculum(tmp_path, stages)
        code = command.main(["--config", str(config), "--dry_run", *words])
        dry_run.out = capsys.readouterr().out
        faults = [line.removeprefix("fault: ") for line in dry_run.out.splitlines() if line.startswith("fault: ")]
        assert (code == 2) == bool(faults)
        assert not (tmp_path / "runs").exists()
        return faults

    return dry_run


def test_a_good_curriculum_has_no_faults_and_nothing_is_started(dry_run, tmp_path):
    assert dry_run() == []
    assert "No faults found. Nothing was started." in dry_run.out
    assert dry_run.out.count("-m torch.distributed.run --standalone --nproc_per_node=1 -m open_r1_vision.") == 5
    # a state, a command and what it takes for each stage, and two lines for all
    lines = dry_run.out.splitlines()
    assert len(lines) == 5 + 5 + 4 + 2
    assert "# perceive: waiting" in lines
    assert "#   takes dataset_options.path from {splits.folder}, model_name_or_path from {warm_up.final}" in lines
    assert "# The recipes are written when their stages start; --verbose shows them." in lines
    dry_run("--verbose")
    # references are shown as what they stand for
    assert f"#   model_name_or_path: {tmp_path}/runs/warm_up/final\n" in dry_run.out
    assert f"#   dataset_options:\n#     path: {tmp_path}/runs/splits\n" in dry_run.out


def test_every_fault_of_every_stage_at_once(dry_run, tmp_path):
    """Two or more in each stage, of which none hides another."""
    faults = dry_run(
        warm_up={"model_name_or_path": f"{tmp_path}/nowhere", "learnin_rate": 1, "dataset": "processes.rows"},
        difficulty={"temprature": 1, "num_generaton": 2, "dataset": str(tmp_path / "gone.parquet")},
        splits={"easy_form": 0.5, "scorer": "processes.nothing"},
        perceive={"max_step": 3, "reward_funcs": ["processes.gone"], "eval_dataset": "processes.hinted_row"},
        reason={"model_name_or_path": "{percieve.final}", "user_prompt": "no_such_prompt", "beta_flor": 0},
    )
    expected = [
        # of the references first, since they are read first
        "no earlier stage is called 'percieve'; did you mean 'perceive'",
        f"warm_up: There is no model folder '{tmp_path}/nowhere'",
        "warm_up: Unknown key `learnin_rate`. Did you mean `learning_rate`?",
        "warm_up: its rows lack prompt and completion; they have id, images, problem, solution, problem_type",
        "difficulty: Unknown key `temprature`. Did you mean `temperature`?",
        "Unknown key `num_generaton`. Did you mean `num_generations`?",
        f"difficulty: There is no such file or folder: '{tmp_path}/gone.parquet'",
        "splits: Unknown key `easy_form`. Did you mean `easy_from`?",
        "perceive: Unknown key `max_step`. Did you mean `max_steps`?",
        "perceive: 'processes.gone' can't be imported: module 'processes' has no 'gone'",
        "perceive: 'processes.hinted_row' can't be imported",
        "reason: Unknown key `beta_flor`. Did you mean `beta_floor`?",
        "reason: ",
    ]
    missing = [line for line in expected if line not in dry_run.out]
    assert not missing, dry_run.out
    assert "'no_such_prompt'" in dry_run.out
    # what the sampling stage lacks is told once, not by those that read its splits
    assert dry_run.out.count("gone.parquet' (looked") == 1
    assert len(faults) >= 11


def test_columns_that_rewards_trainers_and_scorers_need(dry_run):
    """Rows that are still to be split are those of the stage that samples them."""
    faults = dry_run(
        splits={"scorer": "open_r1_vision.rewards.key_words_reward"},
        perceive={"reward_funcs": ["open_r1_vision.rewards.visual_facts_reward"]},
        reason={"trainer": "open_r1_vision.trainers.HintGRPOTrainer"},
    )
    assert len(faults) == 3
    assert faults[0].startswith("splits: The data set lacks columns: key_words_reward needs 'key_words'. It has 'id'")
    assert faults[1].startswith("perceive: The data set lacks columns: visual_facts_reward needs 'visual_facts'.")
    assert faults[2].startswith("reason: The data set lacks columns: HintGRPOTrainer needs 'reasoning_steps'.")


@pytest.mark.parametrize(
    ("stage", "change", "message"),
    [
        ("warm_up", {"model_name_or_path": None}, "warm_up: it has no `model_name_or_path`: set it to a folder"),
        ("warm_up", {"model_name_or_path": "./gone"}, "warm_up: There is no model folder './gone'"),
        ("warm_up", {"model_name_or_path": "~/gone"}, "warm_up: There is no model folder '~/gone'"),
        ("warm_up", {"model_name_or_path": "a/b/c"}, "warm_up: There is no model folder 'a/b/c'"),
        ("warm_up", {"model_name_or_path": "processes.gone"}, "warm_up: 'processes.gone' can't be imported"),
        ("warm_up", {"model_name_or_path": "owner/name"}, None),
        ("warm_up", {"max_steps": "many"}, "--max-steps: invalid int value: 'many'"),
        ("warm_up", {"dataset": None}, "warm_up: its `dataset` is None: name a file"),
        ("difficulty", {"temperature": 0}, "difficulty: temperature is 0, at which all samples of a row are the same"),
        ("difficulty", {"top_k": 5}, "difficulty: top_k is 5, which training would use"),
        ("splits", {"easy_from": 0.1}, "splits: hard_up_to is 0.25 and easy_from 0.1, but they are pass rates"),
        (
            "splits",
            {"samples": "{warm_up.folder}"},
            "splits: `samples` is the folder of stage 'warm_up', which runs sft",
        ),
        ("splits", {"samples": "nowhere"}, "splits: 'nowhere' is no folder of samples"),
        ("perceive", {"model_name_or_path": "{warm_up.folder}"}, "write {warm_up.final}."),
        ("perceive", {"model_name_or_path": "{splits.final}"}, "'splits' runs split, which leaves no model"),
        ("perceive", {"trainer": "processes.gone"}, "perceive: 'processes.gone' can't be imported"),
        ("perceive", {"num_generations": 1}, "perceive: "),
        ("warm_up", {"deepspeed": "nowhere.json"}, "warm_up: deepspeed is 'nowhere.json', but there is no such file"),
        ("perceive", {"deepspeed": "nowhere.json"}, "perceive: deepspeed is 'nowhere.json', but there is no such"),
        ("perceive", {"deepspeed": '{"zero_optimization": {"stage": 2}}'}, None),
        ("perceive", {"resume_from_checkpoint": "runs/checkpoint-7"}, "perceive: resume_from_checkpoint is 'runs/"),
        (
            "perceive",
            {"reward_weights": [1, 2]},
            "perceive: reward_weights has 2 numbers, but there are 1 reward_funcs: give one weight for each",
        ),
        ("perceive", {"dataset_split": "easy+hrd"}, "splits' will have no split 'hrd': set dataset_split to one of"),
        ("perceive", {"dataset_split": "easy+hard"}, None),
        (
            "perceive",
            {"dataset_options": {"path": "{difficulty.folder}"}},
            "perceive: the `path` of open_r1_vision.data.splits.rows is the folder of stage 'difficulty', which runs "
            "sample: name one that runs split.",
        ),
        ("perceive", {"dataset_options": {"path": "{splits.folder}/"}}, None),
        ("splits", {"samples": "{difficulty.folder}/"}, None),
        ("perceive", {"model_name_or_path": "{warm_up.folder}/"}, "write {warm_up.final}."),
        ("perceive", {"model_name_or_path": "{warm_up.folder}/checkpoint-2"}, None),
        ("perceive", {"model_name_or_path": "{warm_up}"}, "which is no reference and would be taken literally: write"),
    ],
)
def test_what_can_not_be_run(dry_run, stage, change, message):
    faults = dry_run(**{stage: change})
    assert (faults == []) if message is None else any(message in fault for fault in faults), dry_run.out


def test_completions_are_shared_by_as_many_processes_as_there_will_be(dry_run):
    (fault,) = [fault for fault in dry_run("--processes", "3") if fault.startswith("perceive")]
    assert "8 completions per step can't be shared evenly by 3 processes" in fault
    # 1 completion each on 4 processes are a group of 4
    batch = {"prompts_per_step": None, "per_device_train_batch_size": 1}
    assert dry_run("--processes", "4", perceive=batch) == []
    assert "must be divisible by num_generations (4)" in dry_run("--processes", "2", perceive=batch)[0]


def test_a_dry_run_says_what_changes_cost(after_splits, tmp_path, tiny_model):
    after_splits([4, 2])
    stages = miniature_stages(tiny_model)
    stages[0]["settings"]["learning_rate"] = 0.5
    words = ["--config", str(write_curriculum(tmp_path, stages)), "--dry_run"]
    code, out = after_splits.main(words)
    assert code == 2
    assert "fault: The recipe changed since" in out and "warm_up.learning_rate: 0.01 -> 0.5. Undo that, set" in out
    assert "which deletes warm_up, difficulty, splits, perceive, reason, to be run anew." in out
    code, out = after_splits.main([*words, "--accept_changes"])
    assert code == 0
    assert "To be deleted and run anew: warm_up, difficulty, splits, perceive, reason." in out
    assert "fault" not in out.replace("No faults found", "")
    assert (tmp_path / "runs" / "reason").exists()


def test_names_of_all_stages_are_checked_before_the_first_one_starts(tiny_model, tmp_path, monkeypatch, capsys):
    """In another process, and without rows: those of the first stage are not there yet."""
    stages = miniature_stages(tiny_model)
    stages[0]["settings"]["dataset"] = str(tmp_path / "to_come.parquet")
    stages[3]["settings"]["max_step"] = 3
    stages[4]["settings"]["reward_funcs"] = ["processes.gone"]
    config = write_curriculum(tmp_path, stages)
    monkeypatch.setattr(command, "run_stage", lambda *_: pytest.fail("a stage was started"))
    assert command.main(["--config", str(config)]) == 2
    assert capsys.readouterr().out.splitlines() == [
        "error: perceive: Unknown key `max_step`. Did you mean `max_steps`?",
        ANY,  # with the names that the module has
    ]


def test_names_are_checked_once(tiny_model, tmp_path, monkeypatch):
    """A curriculum that goes on would wait for nothing."""
    stages = miniature_stages(tiny_model)
    config, looked_at = write_curriculum(tmp_path, stages), []

    def find_wrong_names(curriculum, unchecked):
        looked_at.append([stage.name for stage in unchecked])
        faults = [fault for stage in unchecked for fault in checks.find_faults(curriculum, stage, with_rows=False)]
        return faults

    monkeypatch.setattr(command, "find_wrong_names", find_wrong_names)
    monkeypatch.setattr(command, "run_stage", lambda *_: 3)
    assert command.main(["--config", str(config)]) == 3
    assert command.main(["--config", str(config)]) == 3
    stages[2]["settings"]["easy_form"] = 0.5
    write_curriculum(tmp_path, stages)
    assert command.main(["--config", str(config)]) == 2
    assert looked_at == [["warm_up", "difficulty", "splits", "perceive", "reason"], ["splits"]]


def test_a_stage_that_builds_on_one_that_can_not_be_read(dry_run):
    more = [{"name": "draw", "run": "smaple", "settings": {}}, {"name": "parts", "run": "split", "settings": {}}]
    more[1]["settings"] = {"samples": "{draw.folder}", "easy_form": 1}
    faults = dry_run(more=more)
    assert any("`run` of stage 'draw' is 'smaple'" in fault for fault in faults)
    assert any("parts: Unknown key `easy_form`" in fault for fault in faults)


def test_rows_are_loaded_once_for_all_stages_that_read_them(dry_run, monkeypatch):
    import processes

    checks._load.cache_clear()
    calls, rows = [], processes.rows
    monkeypatch.setattr(processes, "rows", lambda split, **options: (calls.append(split), rows(split, **options))[1])
    assert dry_run() == []
    assert calls == ["train"]


def test_an_encoder_that_is_no_clip_is_found_before_the_first_step(dry_run, tiny_model, tmp_path):
    rewards = {"reward_funcs": [CLIP], "reward_weights": [1.0]}

    def of(**settings):
        return dry_run(perceive={**rewards, "reward_kwargs": {CLIP: settings}})

    (fault,) = of(encoder=tiny_model)
    assert "holds a Qwen2_5_VL" in fault and "so it is no dual encoder: set `encoder` to" in fault
    assert "perceive: clip_reward has no `encoder`" in dry_run(perceive=rewards)[0]
    assert "scale is 0, but the cosine is divided by it" in of(encoder=tiny_model, scale=0)[0]
    assert "No dual encoder could be loaded from" in " ".join(of(encoder=str(tmp_path / "gone")))
    assert of(encoder=save_clip(tmp_path / "clip")) == []
    # the dry run may be made on another machine
    assert of(encoder=str(tmp_path / "clip"), device="cuda:97") == []
    with pytest.raises(ValueError, match="can't be put on the device 'cuda:97' .*: set `device` to one that this"):
        load_dual_encoder(str(tmp_path / "clip"), "cuda:97", "float32")
    # the training itself refuses it as early
    path = tmp_path / "recipe.yaml"
    data = {"dataset": "processes.rows", "reward_funcs": [CLIP], "reward_kwargs": {CLIP: {"encoder": tiny_model}}}
    options = {
        "model_name_or_path": tiny_model,
        "report_to": "none",
        "num_generations": 2,
        "output_dir": str(tmp_path),
    }
    path.write_text(json.dumps({**data, **options, "per_device_train_batch_size": 2, "output_dir": f"{tmp_path}/run"}))
    with pytest.raises(ValueError, match="so it is no dual encoder"):
        train.prepare(read_recipe(["--config", str(path)]))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("value", ["red", ["red", 3], [None], [["red"]]])
def test_key_words_that_are_no_strings_are_refused_when_rows_are_loaded(value):
    good = {"problem": "q", "solution": "1", "problem_type": "number", "key_words": ["red"]}
    with pytest.raises(ValueError, match=r"Row 'page-7': `key_words` is .*, but it must be a list of texts"):
        rows_from_list([{**good, "id": "page-6"}, {**good, "id": "page-7", "key_words": value}])


# ---- empty splits


@pytest.fixture
def after_splits(tiny_model, tmp_path, monkeypatch, capsys):
    """`after_splits(right)` runs what comes after a split by these right samples; gives code, output, stages begun."""

    def after_splits(right, stages=None):
        started = []

        def run_stage(words, mark):
            recipe = Path(words[-1])
            started.append(recipe.stem)
            (recipe.parents[1] / recipe.stem).mkdir()
            return 0

        monkeypatch.setattr(command, "run_stage", run_stage)
        config = write_curriculum(tmp_path, stages or miniature_stages(tiny_model))
        curriculum = read_curriculum(config)
        state = CurriculumState(curriculum)
        for stage in curriculum.stages[:3]:
            stage.folder.mkdir(parents=True, exist_ok=True)
            state.note(stage, FINISHED)
        counts = {f"train-{index}": count for index, count in enumerate(right)}
        found = {"splits": assign(list(counts), counts, 4, 0.75, 0.25), "easy_from": 0.75, "hard_up_to": 0.25}
        found |= {"scorer": "processes.text_reward", "answer_form": "tags", "right_from": 0.5}
        found |= {"histogram": [right.count(number) for number in range(5)], "num_samples": 4}
        (curriculum.stage("splits").folder / "splits.json").write_text(json.dumps(found))
        monkeypatch.setattr(command, "find_wrong_names", lambda *_: [])  # takes a process
        code = command.main(["--config", str(config)])
        out = capsys.readouterr().out
        rehearsal = command.main(["--config", str(config), "--dry_run"])
        rehearsed = capsys.readouterr().out
        assert rehearsal == (2 if code else 0), rehearsed
        assert not code or out.partition("error: ")[2].strip() in rehearsed.replace("fault: ", "")
        return code, out, started

    after_splits.main = lambda words: (command.main(words), capsys.readouterr().out)
    return after_splits


def test_an_empty_split_stops_before_its_stage_with_the_threshold(after_splits):
    code, out, started = after_splits([0, 1, 2, 2])
    assert (code, started) == (2, [])
    assert "error: perceive: The split 'easy' of " in out
    assert "is empty: the highest pass rate is 0.5, below easy_from 0.75: lower easy_from." in out


def test_a_split_that_a_later_stage_reads_stops_before_the_stages_in_between(after_splits):
    """Training on the easy rows would be thrown away when the thresholds are mended."""
    code, out, started = after_splits([4, 0, 3])
    assert (code, started) == (2, [])
    assert "error: reason: The split 'medium' of " in out
    assert "no pass rate lies between hard_up_to 0.25 and easy_from 0.75: raise easy_from or lower hard_up_to" in out


def test_splits_with_rows_do_not_stop(after_splits, tiny_model):
    stages = miniature_stages(tiny_model)
    stages[3]["settings"]["dataset_split"] = "easy+hard"  # one of them is empty, both together are not
    code, out, started = after_splits([4, 2], stages)
    assert (code, started) == (0, ["perceive", "reason"])


def test_splits_among_merged_data_sets_are_looked_at_too(after_splits, tiny_model):
    stages = miniature_stages(tiny_model)
    easy = {key: stages[3]["settings"][key] for key in ("dataset", "dataset_split", "dataset_options")}
    merged = {"dataset": "open_r1_vision.data.merged.rows", "dataset_split": "train"}
    stages[3]["settings"] |= {**merged, "dataset_options": {"datasets": [easy]}}
    code, out, started = after_splits([1, 2], stages)
    assert (code, started) == (2, [])
    assert "perceive: The split 'easy' of" in out
