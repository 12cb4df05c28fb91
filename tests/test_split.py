# SPDX-License-Identifier: Apache-2.0
"""Splits by pass rate: every row in exactly one, by any scorer, and what is said of an empty one."""

import json
import re

import pytest

from open_r1_vision.data.loading import load_rows
from open_r1_vision.data.splits import SPLITS_FILE, read_split
from open_r1_vision.sampling.draws import Draw
from open_r1_vision.sampling.records import SampleFolder
from open_r1_vision.sampling.run import row_settings
from open_r1_vision.split import SplitArguments, assign, main, split_samples

#: Right samples of 4 of the rows `train-0`, `train-1`, …; None for rows without all of their samples.
RIGHT = (4, 0, 3, None, 1, 0, 4, 2)


@pytest.fixture
def samples(tmp_path):
    """A folder with samples of eight rows, the fourth without its last one."""
    source = {"dataset": "processes.rows", "dataset_split": "train", "dataset_options": {"count": 8}}
    rows = load_rows("processes.rows", "train", count=8)
    folder = SampleFolder(tmp_path / "samples")
    folder.open({**source, **row_settings(rows), "num_generations": 4})
    folder.join(0)
    for row, right in zip(rows, RIGHT, strict=True):
        texts = [row["solution"] if number < (right or 0) else "no" for number in range(3 if right is None else 4)]
        folder.add([Draw(row["id"], number, f"<answer>{text}</answer>") for number, text in enumerate(texts)])
    folder.close()
    return str(folder.folder)


def ids(*numbers):
    return [f"train-{number}" for number in numbers]


def split(samples, tmp_path, name="splits", **settings):
    return split_samples(SplitArguments(samples=samples, output_dir=str(tmp_path / name), **settings))


def test_rows_are_split_by_their_right_samples(samples, tmp_path, capsys):
    words = ["--samples", samples, "--output_dir", str(tmp_path / "splits")]
    assert main(words) == 0
    found = json.loads((tmp_path / "splits" / "splits.json").read_text())
    assert found["splits"] == {"easy": ids(0, 6), "medium": ids(2, 4, 7), "hard": ids(1, 5), "incomplete": ids(3)}
    assert found["histogram"] == [2, 1, 1, 1, 2]
    rates = json.loads((tmp_path / "splits" / "pass_rates.json").read_text())
    assert rates == {f"train-{n}": right / 4 for n, right in enumerate(RIGHT) if right is not None}
    assert (tmp_path / "splits" / "pass_rates.png").read_bytes().startswith(b"\x89PNG")
    out = capsys.readouterr().out.splitlines()
    assert out[:5] == [
        "8 rows, 4 samples each, scored by open_r1_vision.rewards.accuracy_reward",
        "easy              2   25.0 %",
        "medium            3   37.5 %",
        "hard              2   25.0 %",
        "incomplete        1   12.5 %",
    ]
    assert out[5] == "  3 of 4 samples: 1 rows"
    # the same samples give the same files
    assert main([*words[:3], str(tmp_path / "again")]) == 0
    for name in ("splits.json", "pass_rates.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "splits" / name).read_bytes()


def test_every_row_is_in_exactly_one_split():
    num_right = {f"{right}": right for right in range(9)}
    names = [*num_right, "x"]
    for easy_from, hard_up_to, expected in [
        (1.0, 0.0, ("8", "1234567", "0")),
        (0.75, 0.25, ("678", "345", "012")),
        (0.5, 0.375, ("45678", "", "0123")),
        (0.1, 0.0, ("12345678", "", "0")),
    ]:
        splits = assign(names, num_right, 8, easy_from, hard_up_to)
        assert ["".join(splits[name]) for name in ("easy", "medium", "hard", "incomplete")] == [*expected, "x"]
    # 0.3 has no exact binary form
    assert assign(["a"], {"a": 3}, 10, 0.3, 0.0)["easy"] == ["a"]
    assert assign(["a"], {"a": 3}, 10, 0.9, 0.3)["hard"] == ["a"]


def test_a_split_is_the_data_set_of_a_recipe(samples, tmp_path):
    split(samples, tmp_path)
    path = str(tmp_path / "splits")
    medium = load_rows("open_r1_vision.data.splits.rows", "medium", path=path)
    assert list(medium["id"]) == ids(2, 4, 7)
    whole = load_rows("processes.rows", "train", count=8)
    assert medium[1]["images"][0].tobytes() == whole[4]["images"][0].tobytes()
    assert medium.column_names == whole.column_names
    both = load_rows("open_r1_vision.data.splits.rows", "easy+hard", path=path)
    assert list(both["id"]) == ids(0, 1, 5, 6)
    for name, message in [
        ("train", "has no split 'train': set dataset_split to one of easy, medium, hard, incomplete"),
        ("easy+simple", "has no split 'simple'"),
    ]:
        with pytest.raises(ValueError, match=message):
            load_rows("open_r1_vision.data.splits.rows", name, path=path)
    with pytest.raises(ValueError, match="holds no splits .*: set `path` to the output_dir of open_r1_vision.split"):
        read_split("easy", tmp_path)


def test_an_empty_split_says_which_threshold_emptied_it(samples, tmp_path):
    def nothing(name, **settings):
        split(samples, tmp_path, **settings)
        with pytest.raises(ValueError, match=f"The split '{name}' of .* is empty: ") as caught:
            read_split(name, tmp_path / "splits")
        return str(caught.value).partition("is empty: ")[2]

    none = "processes.text_reward"  # below 1 for every completion
    check = "check scorer (processes.text_reward), answer_form (tags) and right_from"
    # no threshold is at fault where none or all of the samples are right
    assert nothing("easy", scorer=none) == (
        f"no sample of any row is right. If the model does answer, {check} (1) of the split."
    )
    assert nothing("hard", scorer=none, right_from=0.0) == (
        f"every sample of every row is right. If it should not be, {check} (0) of the split."
    )
    assert nothing("medium", easy_from=0.2, hard_up_to=0.1).startswith(
        "no pass rate lies between hard_up_to 0.1 and easy_from 0.2: raise easy_from or lower hard_up_to"
    )
    assert "answer_form (boxed)" in nothing("easy", answer_form="boxed")
    # one row with 1, and one with 2 of 4 samples right
    found = {"easy_from": 1.0, "hard_up_to": 0.0, "num_samples": 4, "histogram": [0, 1, 1, 0, 0]}
    found |= {"scorer": none, "answer_form": "tags", "right_from": 1.0, "splits": {"easy": [], "hard": []}}
    (tmp_path / SPLITS_FILE).write_text(json.dumps(found))
    for name, why in (
        ("easy", "the highest pass rate is 0.5, below easy_from 1: lower easy_from."),
        ("hard", "the lowest pass rate is 0.25, above hard_up_to 0: raise hard_up_to."),
    ):
        with pytest.raises(ValueError, match=re.escape(why)):
            read_split(name, tmp_path)
    with pytest.raises(ValueError, match="hard_up_to is 0.5 and easy_from 0.5"):
        split(samples, tmp_path, easy_from=0.5, hard_up_to=0.5)


def some_unscored(completions, id, **columns):
    """No score for row 1, half a point for every completion of the others."""
    return [None if row_id == "train-1" else 0.5 for row_id in id]


def picture_reward(completions, images, *, least=3, **columns):
    """Looks at the images, and at a setting."""
    return [float(len(of_row) == 1 and least <= 2) for of_row in images]


async def slow_reward(completions, **columns):
    """An async one, as judges are."""
    return [1.0] * len(completions)


def test_other_scorers_need_no_other_samples(samples, tmp_path):
    found = split(samples, tmp_path, scorer="test_split.some_unscored", right_from=0.5)
    assert found["splits"]["incomplete"] == ids(1, 3)
    assert found["reasons"] == {"3 of 4 samples": 1, "a sample without score": 1}
    assert len(found["splits"]["easy"]) == 6
    found = split(samples, tmp_path, scorer="test_split.picture_reward", scorer_kwargs='{"least": 1}')
    assert len(found["splits"]["easy"]) == 7
    assert len(split(samples, tmp_path, scorer="test_split.slow_reward")["splits"]["easy"]) == 7
    for scorer, message in [
        ("open_r1_vision.rewards.nothing", "has no 'nothing'"),
        ("open_r1_vision.rewards.caption_reward", "needs caption_answer, which only a trainer has"),
        ("open_r1_vision.rewards.visual_facts_reward", "lacks columns: visual_facts_reward needs 'visual_facts'"),
    ]:
        with pytest.raises(ValueError, match=message):
            split(samples, tmp_path, scorer=scorer)


def test_samples_of_other_rows_are_refused(samples, tmp_path, capsys):
    settings = tmp_path / "samples" / "settings.json"
    changed = json.loads(settings.read_text())
    changed["dataset_options"] = {"count": 8, "texts": [2]}
    settings.write_text(json.dumps(changed))
    words = ["--samples", samples, "--output_dir", str(tmp_path / "splits")]
    assert main(words) == 2
    assert "are not those of which" in capsys.readouterr().out
    assert main(["--samples", str(tmp_path), "--output_dir", str(tmp_path / "splits")]) == 2
    assert "is no folder of samples" in capsys.readouterr().out
    assert main(["--output_dir", str(tmp_path / "splits")]) == 2
    assert "samples is not set" in capsys.readouterr().out
    assert main([*words, "--easy_form", "0.5"]) == 2
    assert "Unknown key `easy_form`. Did you mean `easy_from`?" in capsys.readouterr().out


def test_a_data_set_that_lost_rows_since(samples, tmp_path):
    split(samples, tmp_path)
    file = tmp_path / "splits" / "splits.json"
    found = json.loads(file.read_text())
    found["source"]["dataset_options"] = {"count": 5}
    file.write_text(json.dumps(found))
    with pytest.raises(ValueError, match="3 rows of 'processes.rows' are in the split 'medium' .* 2 of their ids"):
        load_rows("open_r1_vision.data.splits.rows", "medium", path=str(tmp_path / "splits"))
