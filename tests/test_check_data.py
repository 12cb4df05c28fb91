# SPDX-License-Identifier: Apache-2.0
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from open_r1_vision import check_data
from open_r1_vision.data.checks import Inspection, Problem
from open_r1_vision.data.loading import load_rows

ROW = {"problem": "How many?", "solution": "7", "problem_type": "number", "image": "red.png"}
FACTS_REWARD = "def facts_reward(completions, visual_facts, **columns):\n    return [1.0] * len(completions)\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from open_r1_vision.starter.model import save_new_policy

    folder = tmp_path_factory.mktemp("model")
    save_new_policy(str(folder))
    return str(folder)


@pytest.fixture
def recipe(tmp_path, model):
    """`recipe(rows, **settings)` writes rows and a recipe for them, and gives the command line's arguments."""
    Image.new("RGB", (56, 56), "red").save(tmp_path / "red.png")
    (tmp_path / "broken.png").write_bytes(b"junk")

    def write(rows, **settings):
        (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
        recipe = {
            "model_name_or_path": model,
            "dataset": str(tmp_path / "rows.jsonl"),
            "system_prompt": "starter",
            "output_dir": str(tmp_path / "run"),
            "report_to": "none",
            "bf16": False,
            **settings,
        }
        (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
        return ["--config", str(tmp_path / "recipe.yaml")]

    return write


def test_a_clean_data_set(recipe, capsys):
    text_only = {**ROW, "id": "text", "image": None}
    assert check_data.main(recipe([{**ROW, "id": "a"}, text_only, {**ROW, "id": "b"}])) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("3 rows checked, none with problems; prompt tokens ")
    assert lines[0].endswith("images per row 0 / 1 / 1 (min / median / max).")


def test_the_column_of_the_hints(recipe, capsys):
    """It must be there, and a row may leave it empty."""
    hints = {"trainer": "open_r1_vision.trainers.HintGRPOTrainer"}
    assert check_data.main(recipe([{**ROW, "id": "a"}], **hints)) != 0
    assert "The data set lacks columns: an option needs 'reasoning_steps'" in capsys.readouterr().err
    rows = [{**ROW, "id": "a", "reasoning_steps": ["One."]}, {**ROW, "id": "b", "reasoning_steps": []}]
    assert check_data.main(recipe(rows, **hints)) == 0


def test_problems_and_the_good_rows(recipe, capsys, tmp_path):
    rows = [{**ROW, "id": "a"}, {**ROW, "id": "b", "image": "broken.png"}, {**ROW, "id": "a"}, {**ROW, "id": "c"}]
    rows += [{**ROW, "id": "long", "problem": "How many? " * 40}]
    arguments = recipe(rows, max_prompt_tokens=60)
    clean = tmp_path / "clean"
    assert check_data.main([*arguments, "--write-clean", str(clean)]) == 1
    out = capsys.readouterr().out
    assert "b\timage unreadable\timage 1 of 1" in out
    assert "a\tduplicate id\trow 0 has this id too" in out
    assert "long\tprompt too long\t" in out
    assert "5 rows checked, 3 with problems" in out
    assert f"2 good rows written to {clean}." in out

    (tmp_path / "red.png").unlink()  # the clean folder holds the images themselves
    dataset = load_rows(str(clean))
    assert list(dataset["id"]) == ["a", "c"]
    assert dataset[1]["images"][0].size == (56, 56)
    assert check_data.main([*arguments, "--dataset", str(clean)]) == 0

    with pytest.raises(SystemExit, match="exists already: .* or allow this with --overwrite"):
        check_data.main([*arguments, "--write-clean", str(clean)])
    assert check_data.main([*arguments, "--limit", "1", "--write-clean", str(clean), "--overwrite"]) == 1
    assert "Nothing written" in capsys.readouterr().out  # red.png is gone, so no row is good
    assert list(load_rows(str(clean))["id"]) == ["a", "c"]


def test_limit_and_the_eval_split(recipe, capsys):
    arguments = recipe([{**ROW, "id": "a"}, {**ROW, "id": "b", "problem_type": "essay"}])
    assert check_data.main([*arguments, "--limit", "1"]) == 0
    assert check_data.main([*arguments, "--split", "eval"]) == 1
    assert "sets no `eval_dataset`" in capsys.readouterr().err
    rows = json.loads(Path(arguments[1]).read_text())["dataset"]
    assert check_data.main([*arguments, "--split", "eval", "--eval_dataset", rows]) == 1
    assert "b\tproblem type\t'essay' is not one of" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="--limit is 0"):
        check_data.main([*arguments, "--limit", "0"])


def test_a_column_that_a_reward_needs(recipe, capsys, tmp_path, monkeypatch):
    (tmp_path / "facts_module.py").write_text(FACTS_REWARD)
    monkeypatch.syspath_prepend(tmp_path)
    rewards = ["open_r1_vision.rewards.accuracy_reward", "facts_module.facts_reward"]
    assert check_data.main(recipe([ROW], reward_funcs=rewards)) == 1
    assert "facts_reward needs 'visual_facts'" in capsys.readouterr().err
    # a single row may go without: the reward leaves it out
    rows = [{**ROW, "id": "a", "visual_facts": ["red"]}, {**ROW, "id": "b"}]
    assert check_data.main(recipe(rows, reward_funcs=rewards)) == 0


def test_a_missing_data_set(recipe, capsys):
    assert check_data.main(recipe([ROW], dataset="./none.parquet")) == 1
    assert "There is no such file or folder: './none.parquet'" in capsys.readouterr().err


def test_the_report_in_full():
    inspection = Inspection(
        problems=[
            Problem("a", "image unreadable", "image 1 of 1: junk", 0),
            Problem("a", "duplicate id", "row 0 has this id too", 1),
            Problem("b", "image unreadable", "image 1 of 2: junk", 2),
            Problem("b", "image unreadable", "image 2 of 2: junk", 2),
        ],
        num_rows=4,
        images_per_row=[1, 1, 2, 0],
        prompt_tokens=[10, 21],
    )
    assert check_data.format_report(inspection) == (
        "a\timage unreadable\timage 1 of 1: junk\n"
        "a\tduplicate id\trow 0 has this id too\n"
        "b\timage unreadable\timage 1 of 2: junk\n"
        "b\timage unreadable\timage 2 of 2: junk\n"
        "\n"
        "check             rows  for example\n"
        "image unreadable     2  a, b\n"
        "duplicate id         1  a\n"
        "\n"
        "4 rows checked, 3 with problems; prompt tokens 10 / 15.5 / 21 (min / median / max); "
        "images per row 0 / 1 / 2 (min / median / max).\n"
    )


def test_help_is_fast():
    start = time.monotonic()
    command = [sys.executable, "-m", "open_r1_vision.check_data", "--help"]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "--write-clean PATH" in out
    assert time.monotonic() - start < 3
