# SPDX-License-Identifier: Apache-2.0
import json

import pytest
from matplotlib.figure import Figure
from PIL import Image

from open_r1_vision.data.rows import add_prompts, rows_from_list
from open_r1_vision.held_out import Sample, evaluate, write_samples
from open_r1_vision.learning_curve import CURVE_FILE, draw_curve
from open_r1_vision.report import format_table, read_results, write_report
from open_r1_vision.runs import RESULTS_FILE

HISTORY = [
    {"step": 1, "reward": 0.25, "rewards/accuracy_reward/mean": 0.125, "frac_reward_zero_std": 0.5, "loss": 0.1},
    {"step": 2, "reward": 0.5, "rewards/accuracy_reward/mean": 0.375, "frac_reward_zero_std": 0.25, "loss": 0.2},
    {"step": 2, "train_runtime": 12.5, "train_loss": 0.15},
]


def write_evaluation(folder, step, accuracy, reader=None, captions=None):
    """Samples with these scores."""
    empty = [None] * len(accuracy)
    scores = zip(accuracy, reader or empty, captions or empty, strict=True)
    samples = [
        Sample(f"row-{index}", "completion", first, None, None, second, third)
        for index, (first, second, third) in enumerate(scores)
    ]
    write_samples(folder, step, samples)


@pytest.fixture
def folder(tmp_path):
    """10 rows: accuracy from 2 to 8 right, one lost; the reader's from 5 to 5; captions only scored before."""
    write_evaluation(tmp_path, 0, [1, 1] + [0] * 8, [1.0] * 5 + [0.5] * 5, [1.0] * 10)
    write_evaluation(tmp_path, 10, [1] * 5 + [0] * 5, [1.0] * 5 + [0.0] * 5, [1.0] * 10)
    write_evaluation(tmp_path, 20, [1, 0] + [1] * 7 + [0], [0.0] * 5 + [1.0] * 5, [None] * 10)
    return tmp_path


def test_numbers(folder):
    results = write_report(folder, HISTORY, {"seed": 0, "path": folder})
    assert results["steps"] == 2
    assert results["train_seconds"] == 12.5
    assert results["last_step"] == {
        "reward": 0.5,
        "rewards/accuracy_reward/mean": 0.375,
        "frac_reward_zero_std": 0.25,
        "loss": 0.2,
    }
    assert results["means"] == {
        "reward": 0.375,
        "rewards/accuracy_reward/mean": 0.25,
        "frac_reward_zero_std": 0.375,
        "loss": pytest.approx(0.15),
    }
    assert results["settings"] == {"seed": 0, "path": str(folder)}
    held_out = results["held_out"]
    assert held_out["rows"] == 10
    assert list(held_out["measures"]) == ["accuracy", "reader_accuracy"]
    accuracy = held_out["measures"]["accuracy"]
    # Wilson with z = 1.96 for 2 of 10: (0.2 + z^2/20 -+ z sqrt(0.16/10 + z^2/400)) / (1 + z^2/10)
    assert accuracy["before"] == pytest.approx({"mean": 0.2, "low": 0.056682, "high": 0.509838, "count": 10}, abs=1e-6)
    assert accuracy["after"] == pytest.approx({"mean": 0.8, "low": 0.490162, "high": 0.943318, "count": 10}, abs=1e-6)
    # 7 gained, 1 lost: 2 (C(8,0) + C(8,1)) / 2^8 = 18 / 256
    assert accuracy["change"] == pytest.approx({"difference": 0.6, "gained": 7, "lost": 1, "p_value": 18 / 256})
    reader = held_out["measures"]["reader_accuracy"]
    # half marks are not full marks; 5 gained, 5 lost
    assert reader["before"]["mean"] == reader["after"]["mean"] == 0.5
    assert reader["change"] == {"difference": 0.0, "gained": 5, "lost": 5, "p_value": 1.0}
    assert held_out["curve"] == {
        0: {"accuracy": 0.2, "reader_accuracy": 0.5},
        10: {"accuracy": 0.5, "reader_accuracy": 0.5},
        20: {"accuracy": 0.8, "reader_accuracy": 0.5},
    }
    assert {"open_r1_vision", "torch", "trl", "transformers"} <= results["versions"].keys()
    assert read_results(folder) == json.loads(json.dumps(results))
    assert json.loads((folder / RESULTS_FILE).read_text())["steps"] == 2


def test_the_table(folder):
    lines = format_table(write_report(folder, HISTORY, {})).splitlines()
    assert lines[0].split() == ["held-out", "rows:", "10", "before", "after", "change"]
    assert lines[1].split("  ")[0] == "accuracy"
    assert "20.0 % [5.7, 51.0]" in lines[1]
    assert "80.0 % [49.0, 94.3]" in lines[1]
    assert "+60.0 points, p = 0.07 (+7 -1 rows)" in lines[1]
    assert "accuracy of the answer read from the caption alone" in lines[2]
    assert "+0.0 points, p = 1 (+5 -5 rows)" in lines[2]
    assert lines[3] == "Intervals: 95 % (Wilson). p: McNemar's exact test on the same rows."
    assert len(lines) == 4
    # the columns stand below each other
    assert len({line.index(" [") // 20 for line in lines[1:3]}) == 1


def test_the_table_from_the_file(folder):
    results = write_report(folder, HISTORY, {})
    assert format_table(read_results(folder)) == format_table(results)


def test_without_held_out_rows(tmp_path):
    results = write_report(tmp_path, HISTORY, {})
    assert results["held_out"] == {}
    assert format_table(results) == (
        "2 steps. There were no held-out rows to evaluate: set eval_dataset to see a change."
    )
    assert (tmp_path / CURVE_FILE).stat().st_size > 1000


def test_without_any_step(tmp_path):
    results = write_report(tmp_path, [], {})
    assert (results["steps"], results["train_seconds"], results["last_step"]) == (0, None, {})


def test_an_evaluation_alone_is_its_own_before_and_after(tmp_path):
    write_evaluation(tmp_path, 0, [1, 0, 0, 0])
    accuracy = write_report(tmp_path, HISTORY, {})["held_out"]["measures"]["accuracy"]
    assert accuracy["before"] == accuracy["after"]
    assert accuracy["change"] == {"difference": 0.0, "gained": 0, "lost": 0, "p_value": 1.0}


def test_settings_that_json_does_not_know(tmp_path):
    write_report(tmp_path, HISTORY, {"dtype": object, "weights": (1, 2)})
    assert read_results(tmp_path)["settings"]["weights"] == [1, 2]


def test_the_picture(folder):
    from open_r1_vision.held_out import read_evaluations

    path = folder / "a.png"
    draw_curve(path, read_evaluations(folder), HISTORY[:2])
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        with_lines = picture.convert("RGB")
    draw_curve(path, {}, [])
    with Image.open(path) as picture:
        assert picture.size == (564, 504)  # an empty page
        blue = (31, 119, 180)  # matplotlib's first colour
        count = {colour: number for number, colour in picture.convert("RGB").getcolors(2**24)}.get(blue, 0)
    assert count == 0
    # a line in each of the three parts
    third = with_lines.width // 3
    for part in range(3):
        colours = with_lines.crop((part * third, 0, (part + 1) * third, with_lines.height)).getcolors(2**24)
        assert {colour: number for number, colour in colours}.get(blue, 0) > 50


def test_rows_whose_reader_failed_are_no_rows_of_its_measure(tmp_path):
    """Row 0 failed before, row 3 after, row 4 only in between: three pairs are left, of which one was gained."""
    write_evaluation(tmp_path, 0, [0] * 5, [None, 0.0, 1.0, 1.0, 0.0])
    write_evaluation(tmp_path, 5, [0] * 5, [1.0, 1.0, 0.0, 0.0, None])
    write_evaluation(tmp_path, 10, [1] * 5, [1.0, 1.0, 1.0, None, 0.0])
    held_out = write_report(tmp_path, HISTORY, {})["held_out"]
    assert held_out["rows"] == held_out["measures"]["accuracy"]["before"]["count"] == 5
    reader = held_out["measures"]["reader_accuracy"]
    assert [reader[when]["count"] for when in ("before", "after")] == [3, 3]
    assert [reader[when]["mean"] for when in ("before", "after")] == pytest.approx([1 / 3, 2 / 3])
    assert reader["change"] == pytest.approx({"difference": 1 / 3, "gained": 1, "lost": 0, "p_value": 1.0})
    # the curve is of the rows that were read at the time
    assert [entry["reader_accuracy"] for entry in held_out["curve"].values()] == [0.5, 0.5, 0.75]


def test_a_reader_that_failed_throughout_has_no_measure(tmp_path):
    write_evaluation(tmp_path, 0, [0, 1], [None, None])
    write_evaluation(tmp_path, 5, [0, 1], [1.0, 1.0])
    results = write_report(tmp_path, HISTORY, {})
    assert list(results["held_out"]["measures"]) == ["accuracy"]
    assert results["held_out"]["curve"] == {0: {"accuracy": 0.5}, 5: {"accuracy": 0.5}}
    assert "read from the caption" not in format_table(results)


@pytest.mark.parametrize(("form", "scores"), [("tags", [1, 0, 0]), ("boxed", [0, 1, 0]), (None, [None] * 3)])
def test_the_form_of_an_answer_decides_what_is_right(form, scores):
    completions = ["<answer>7</answer>", r"so \boxed{7}", "7"]
    row = {"problem": "How many?", "solution": "7", "problem_type": "number"}
    samples = evaluate(
        lambda prompts, limit: completions, add_prompts(rows_from_list([row] * 3)), max_new_tokens=5, answer_form=form
    )
    assert [sample.accuracy for sample in samples] == scores


def drawn(monkeypatch, tmp_path, steps, evaluations=None):
    """The panels of a picture by title."""
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **kwargs: figures.append(figure))
    draw_curve(tmp_path / "a.png", evaluations or {}, steps)
    return {axes.get_title(): axes for axes in figures[0].axes}


def labels(axes):
    return axes.get_legend_handles_labels()[1]


def test_a_panel_for_what_the_method_is_about(monkeypatch, tmp_path):
    before, trained, level = "hints/utilisation_before", "hints/utilisation", "hints/level_"
    steps = [
        {"step": 1, before: 0.25, trained: 0.75, level + "0": 0.5, level + "1": 0.3, level + "2": 0.2},
        {"step": 2, before: 0.5, trained: 0.75, level + "0": 0.8, level + "1": 0.1, level + "2": 0.1},
    ]
    steps[1]["hints/level_0_only"] = 0.0  # a number of its own, no level
    panels = drawn(monkeypatch, tmp_path, steps)
    axes = panels["What the method is about"]
    assert labels(axes) == ["groups with signal, as first sampled", "groups with signal, as trained"]
    assert list(axes.lines[0].get_ydata()) == [0.25, 0.5]
    axes = panels["Hint level of the trained groups"]
    assert labels(axes) == ["level 0", "level 1", "level 2"]
    # the second area of step 1 lies between 0.5 and 0.8
    heights = {round(float(y), 6) for x, y in axes.collections[1].get_paths()[0].vertices if x == 1}
    assert heights == {0.5, 0.8}


def test_facts_by_judge_or_by_rule(monkeypatch, tmp_path):
    by_rule = {"step": 1, "rewards/visual_facts_reward/mean": 0.5}
    axes = drawn(monkeypatch, tmp_path, [by_rule])["What the method is about"]
    assert (labels(axes), list(axes.lines[0].get_ydata())) == (["visual facts stated"], [0.5])
    axes = drawn(monkeypatch, tmp_path, [{**by_rule, "judge/facts_stated": 0.25}])["What the method is about"]
    assert (labels(axes), list(axes.lines[0].get_ydata())) == (["visual facts stated"], [0.25])


def test_plain_grpo_has_no_such_panel(monkeypatch, tmp_path):
    assert "What the method is about" not in drawn(monkeypatch, tmp_path, HISTORY[:2])


def test_panels_without_content_are_left_out(monkeypatch, tmp_path):
    """No held-out rows, a reward that scored nothing, and no KL term."""
    shares = "Shares to keep an eye on"
    assert list(drawn(monkeypatch, tmp_path, HISTORY[:2])) == ["Rewards in training (mean of a step)", shares]
    steps = [{"step": 1, "rewards/a_reward/mean": None, "frac_reward_zero_std": 0.5, "kl_weight": 0.0}]
    panels = drawn(monkeypatch, tmp_path, steps)
    assert list(panels) == [shares]
    assert panels[shares].lines[0].get_marker() == "o"  # a point alone makes no line
    unscored = {step: [Sample("row-0", "completion", None, None, None, None, None)] for step in (0, 1)}
    assert list(drawn(monkeypatch, tmp_path, steps, unscored)) == [shares]


def test_values_outside_0_to_1_are_in_the_picture(monkeypatch, tmp_path):
    names = ("repetition_reward", "clip_reward", "accuracy_reward")
    values = {1: (-0.5, -0.25, 0.0), 2: (0.0, 0.25, 2.0)}
    steps = [
        {"step": step, **{f"rewards/{name}/mean": value for name, value in zip(names, of_step, strict=True)}}
        for step, of_step in values.items()
    ]
    panels = drawn(monkeypatch, tmp_path, steps)
    # a fiftieth of the height is left at each end
    assert panels["Rewards in training (mean of a step)"].get_ylim() == pytest.approx((-0.55, 2.05))
    assert panels["What the method is about"].get_ylim() == pytest.approx((-0.25 - 0.025, 1.025))
    within = drawn(monkeypatch, tmp_path, HISTORY[:2])
    assert [axes.get_ylim() for axes in within.values()] == [pytest.approx((-0.02, 1.02))] * 2


def test_the_kl_weight_has_a_scale_of_its_own(monkeypatch, tmp_path):
    axes = drawn(monkeypatch, tmp_path, [{"step": step, "kl_weight": 0.04 / step} for step in (1, 2)])[
        "Weight of the KL term"
    ]
    assert list(axes.lines[0].get_ydata()) == [0.04, 0.02]
    assert axes.get_ylim() == pytest.approx((0.0, 0.042))


@pytest.mark.parametrize("count", range(1, 8))
def test_every_panel_has_a_place(monkeypatch, tmp_path, count):
    keys = (
        "rewards/a/mean",
        "frac_reward_zero_std",
        "hints/utilisation",
        "hints/level_0",
        "kl_weight",
        "seconds/other",
    )
    scores = {0: [Sample("row-0", "completion", 1.0, None, None, None, None)]} if count == 7 else {}
    steps = [{"step": step, **dict.fromkeys(keys[:count], 0.5)} for step in (1, 2)]
    places = [axes.get_subplotspec() for axes in drawn(monkeypatch, tmp_path, steps, scores).values()]
    assert len({(place.rowspan.start, place.colspan.start) for place in places}) == len(places) == count


def test_seconds_on_top_of_each_other(monkeypatch, tmp_path):
    parts = {"seconds/generation": 2.0, "seconds/update": 5.0, "seconds/rewards": 0.01, "seconds/step": 7.01}
    axes = drawn(monkeypatch, tmp_path, [{"step": 1, **parts}, {"step": 2, **parts}])["Seconds of a step"]
    # the largest below; what takes less than a hundredth is left out, and so is the whole
    assert labels(axes) == ["update", "generation"]
    # the topmost first, as it is seen
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["generation", "update"]
    heights = {round(float(y), 6) for x, y in axes.collections[1].get_paths()[0].vertices if x == 1}
    assert heights == {5.0, 7.0}
    assert axes.get_ylim()[1] >= 7.0
