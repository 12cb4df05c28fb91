# SPDX-License-Identifier: Apache-2.0
"""The gallery without a browser: what is read, chosen, cut, said, and how it is put into the file."""

import base64
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from runs_on_disk import HOSTILE, group, logged, webp, write_images, write_log, write_settings, write_table

from open_r1_vision.gallery import write_gallery
from open_r1_vision.gallery.__main__ import main
from open_r1_vision.gallery.page import embed
from open_r1_vision.gallery.tables import pick_evenly, split_groups


class Page(HTMLParser):
    """The file's elements, and the texts of its scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.inside = [], {}, None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = dict(attrs).get("id", tag) if tag in ("script", "style") else None

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside:
            self.texts.setdefault(self.inside, []).append(data)


def read(gallery):
    return Page(gallery.path.read_text(encoding="utf-8"))


def data_of(gallery):
    return json.loads("".join(read(gallery).texts["data"]))


@pytest.fixture
def run(tmp_path):
    """A finished run of 3 steps with 2 groups of 2 completions each."""
    folder = tmp_path / "run"
    write_settings(folder)
    for step in (1, 2, 3):
        rows = [*group(0, [0.0, 0.0], step), *group(1, [1.0, 0.0], step)]
        write_table(folder, step, [{**row, "image_keys": ["a" if row["group"] == 0 else "b"]} for row in rows])
    write_images(folder, {"a": webp(8, 4), "b": webp(400, 200, "blue"), "unused": webp(4, 4)})
    write_log(folder, [logged(step, 0.1 * step) for step in (1, 2, 3)])
    (folder / "results.json").write_text("{}")
    return folder


# ---- what is in the file


def test_what_is_written(run):
    gallery = write_gallery(run)
    assert gallery.path == run / "gallery.html"
    assert gallery.num_bytes == gallery.path.stat().st_size
    assert (gallery.num_rollouts, gallery.num_groups, gallery.num_steps) == (12, 6, 3)
    assert (gallery.num_images, gallery.notes) == (2, ())
    data = data_of(gallery)
    assert data["run"]["name"] == "run"
    assert data["run"]["trainer"] == "CaptionGRPOTrainer"
    assert data["run"]["model"] == "tiny"
    assert (data["run"]["finished"], data["run"]["last_step"]) == (True, 3)
    assert data["rewards"] == [{"name": "accuracy_reward", "weight": 1.0}, {"name": "format_reward", "weight": 0.5}]
    second = data["groups"][1]
    assert (second["step"], second["group"], second["id"], second["source"]) == (1, 1, "row-1-1", "here")
    assert second["gold"] == "4"
    assert second["images"] == ["b"]
    prompt = [[role, data["texts"][place]] for role, place in second["prompt"]]
    assert prompt == [["system", "be short"], ["user", "[image]\nQuestion 1 of step 1?"]]
    first = {"text": "<think>try 0</think> <answer>0</answer>", "rewards": [1.0, 1.0], "advantage": 0.5}
    assert second["completions"][0] == first
    assert second["completions"][1]["advantage"] == -0.5


def test_what_each_method_logs(tmp_path):
    hinted = {"hint": "<info>a", "hint_level": 2, "caption": "a b", "caption_answer": "4", "reader_reply": "it is 4"}
    judged = {"facts": ["red", "round"], "fact_verdicts": "10", "judge_reply": "verdicts", "has_description": False}
    write_table(tmp_path, 1, group(0, [0.0, 1.0], my_note="of a reward", tries=3, **hinted, **judged))
    found = data_of(write_gallery(tmp_path))["groups"][0]
    assert found["facts"] == ["red", "round"]
    completion = found["completions"][0]
    assert {name: completion[name] for name in hinted} == hinted
    assert (completion["verdicts"], completion["judge_reply"]) == ([1, 0], "verdicts")
    assert completion["has_description"] is False
    assert completion["more"] == {"my_note": "of a reward", "tries": "3"}


@pytest.mark.parametrize(
    ("judged", "reward", "verdicts"),
    [
        ("", 0.0, None),  # the judge failed
        ("1", 0.5, None),  # not a verdict for each fact
        (None, 0.5, [1, 0]),  # the rule, whose verdicts the reward is made of
        (None, 1.0, None),  # something else made the reward
        (None, None, None),
    ],
)
def test_verdicts_are_the_rewards_own(tmp_path, judged, reward, verdicts):
    row = {"facts": ["a red ball", "a blue box"], "completion": "I see a red ball.", "fact_verdicts": judged}
    write_table(tmp_path, 1, [{**row, "rewards": {"visual_facts_reward": reward}}] * 2)
    assert data_of(write_gallery(tmp_path))["groups"][0]["completions"][0].get("verdicts") == verdicts


def test_the_rule_of_the_recipe_gives_the_verdicts(tmp_path):
    # only what stands in <info> counts there, and the hint's part of it is not the model's
    options = {"open_r1_vision.rewards.visual_facts_reward": {"section": "info"}}
    write_settings(tmp_path, reward_funcs="open_r1_vision.rewards.visual_facts_reward", reward_kwargs=options)
    row = {"facts": ["one", "two", "three"], "hint": "<info>one ", "completion": "two</info> three"}
    write_table(tmp_path, 1, [{**row, "rewards": {"visual_facts_reward": 1 / 3}}] * 2)
    assert data_of(write_gallery(tmp_path))["groups"][0]["completions"][0]["verdicts"] == [0, 1, 0]


def test_images_come_once_and_no_larger_than_asked(run):
    data = data_of(write_gallery(run, image_size=100))
    sizes = {}
    for key, url in data["images"].items():
        head, _, content = url.partition(",")
        assert head == "data:image/webp;base64"
        sizes[key] = Image.open(BytesIO(base64.b64decode(content))).size
    assert sizes == {"a": (8, 4), "b": (100, 50)}


def test_numbers_that_are_none(tmp_path):
    rows = group(0, [float("nan"), None, 1.0])
    rows[2]["advantage"] = float("nan")
    write_table(tmp_path, 1, rows)
    completions = data_of(write_gallery(tmp_path))["groups"][0]["completions"]
    assert [one["rewards"] for one in completions] == [[None, 1.0], [None, 1.0], [1.0, 1.0]]
    assert "advantage" not in completions[2]


def test_prompts_of_plain_text_and_no_columns_of_ours(tmp_path):
    """The folder of a run of stock TRL."""
    rows = [{"prompt": [{"role": "user", "content": text}], "completion": "x"} for text in ("a", "a", "a", "a", "b")]
    path = write_table(tmp_path, 1, rows)
    pq.write_table(pq.read_table(path, columns=["step", "prompt", "completion", "accuracy_reward", "advantage"]), path)
    (tmp_path / "run.json").write_text(json.dumps({"num_generations": 2}))
    gallery = write_gallery(tmp_path)
    data = data_of(gallery)
    assert [len(one["completions"]) for one in data["groups"]] == [2, 2, 1]
    assert [one["group"] for one in data["groups"]] == [0, 1, 2]
    assert data["texts"] == ["a", "b"]
    assert data["rewards"] == [{"name": "accuracy_reward", "weight": None}]
    assert gallery.notes == (
        "This run kept no images: with log_image_size above 0, training keeps them from its start on.",
    )


# ---- escaping


@pytest.mark.parametrize("text", [*HOSTILE.values(), "\ud800 alone \udfff", "</ScRiPt\n>", "\ufffe\uffff"])
def test_embedded_data_is_one_harmless_text(text):
    embedded = embed({"text": text, text: [text]})
    assert json.loads(embedded) == {"text": text, text: [text]}
    assert not set("<>&\u2028\u2029") & set(embedded)
    embedded.encode("utf-8")


def test_hostile_texts_add_no_element(tmp_path):
    write_settings(tmp_path, model_name_or_path="<script>1</script>")
    columns = ("caption", "reader_reply", "hint", "judge_reply", "my_note", "source", "solution", "id", "prompt")
    rows = [
        {"group": place, "completion": text, **dict.fromkeys(columns, text), "facts": [text]}
        for place, text in enumerate(HOSTILE.values())
    ]
    write_table(tmp_path, 1, rows)
    gallery = write_gallery(tmp_path)
    page = read(gallery)
    assert [attrs for tag, attrs in page.tags if tag == "script"] == [{"type": "application/json", "id": "data"}, {}]
    assert not {"svg", "a", "iframe", "object", "link", "base"} & {tag for tag, _ in page.tags}
    data = data_of(gallery)
    texts = [one["completions"][0]["text"] for one in data["groups"]]
    assert texts == list(HOSTILE.values())


def test_a_folder_name_is_no_markup(tmp_path):
    folder = tmp_path / "<img src=x onerror=alert(1)>"
    write_table(folder, 1, group(0, [1.0, 0.0]))
    page = read(write_gallery(folder, tmp_path / "out.html"))
    assert [attrs.get("src") for tag, attrs in page.tags if tag == "img"] == [None]  # the page's own


def test_the_file_asks_no_one_and_runs_only_its_own_script(run):
    text = write_gallery(run).path.read_text(encoding="utf-8")
    page = Page(text)
    for _, attrs in page.tags:
        assert not {"src", "href", "srcset", "action", "style"} & set(attrs)
        assert not any(name.startswith("on") for name in attrs)
    code = "".join(page.texts["style"] + page.texts["script"])
    assert set(re.findall(r"\w+://[^\s\"']*", code)) == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|innerHTML|outerHTML|insertAdjacentHTML|eval\(", code)
    (policy,) = (attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    for kind in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256("".join(page.texts[kind]).encode()).digest()).decode()
        assert rules[f"{kind}-src"] == f"'sha256-{digest}'"


# ---- what is chosen


def test_items_are_picked_evenly():
    assert pick_evenly(range(10), 4) == [0, 3, 6, 9]
    assert pick_evenly(range(3), 3) == [0, 1, 2]
    assert pick_evenly(range(3), 8) == [0, 1, 2]
    assert pick_evenly(range(3), 1) == [2]


def steps_and_groups(gallery):
    return [(one["step"], one["group"]) for one in data_of(gallery)["groups"]]


def test_whole_groups_from_all_over_the_run(tmp_path):
    for step in range(1, 11):
        write_table(tmp_path, step, [row for number in range(4) for row in group(number, [0.0, 1.0], step)])
    # 7 completions allow 3 groups of 2
    gallery = write_gallery(tmp_path, max_rollouts=7)
    assert steps_and_groups(gallery) == [(1, 3), (5, 3), (10, 3)]
    assert "6 of 80 rollouts are in this file" in gallery.notes[0]
    # 15 groups over 10 steps: two of each of five, then one
    chosen = steps_and_groups(write_gallery(tmp_path, max_rollouts=30))
    assert len(chosen) == 15
    assert {step for step, _ in chosen} == set(range(1, 11))
    assert steps_and_groups(write_gallery(tmp_path, max_rollouts=1)) == [(10, 3)]
    assert {step for step, _ in steps_and_groups(write_gallery(tmp_path, every=4))} == {1, 5, 9}


def test_a_sampling_of_several_updates_is_shown_once(tmp_path):
    for step in (1, 2, 3):
        write_table(tmp_path, step, group(0, [1.0, 0.0]))
    write_table(tmp_path, 4, [{**row, "completion": "new"} for row in group(0, [1.0, 0.0])])
    gallery = write_gallery(tmp_path)
    assert steps_and_groups(gallery) == [(1, 0), (4, 0)]
    assert gallery.notes[0].startswith("2 of 4 tables repeat the sampling of an earlier step")


def test_neighbours_with_one_prompt_are_one_group():
    rows = [{"step": 1, "id": name, "prompt": "p", "group": number} for name, number in (("a", 0), ("a", 1), ("b", 1))]
    assert [(one.number, len(one.rows)) for one in split_groups(rows)] == [(0, 1), (1, 1), (1, 1)]


def test_the_middle_of_a_long_text_is_cut(tmp_path):
    text = "A" * 700 + "B" * 9_999_000 + "C" * 300
    write_table(tmp_path, 1, [{"completion": text}, {"completion": "B" * 1000}])
    gallery = write_gallery(tmp_path, max_text=1000)
    completions = data_of(gallery)["groups"][0]["completions"]
    assert completions[0]["text"] == ["A" * 700, 9_999_000, "C" * 300]
    assert completions[1]["text"] == "B" * 1000
    assert gallery.notes[-1].startswith("Texts longer than 1,000 characters, which are 1, lack their middle here")
    assert gallery.num_bytes < 100_000


# ---- runs that are not whole


def test_a_run_that_goes_on(run):
    (run / "results.json").unlink()
    torn = write_table(run, 4, group(0, [1.0, 0.0], 4))
    torn.write_bytes(torn.read_bytes()[:300])
    (run / "completions" / "completions_00005.parquet").touch()
    with (run / "log.jsonl").open("a") as file:
        file.write(json.dumps(logged(4, 0.4)) + '\n{"step": 5, "rewar')
    (run / "rollout_images" / "images_00001.parquet").write_bytes(b"PAR1")
    gallery = write_gallery(run)
    data = data_of(gallery)
    assert {one["step"] for one in data["groups"]} == {1, 2, 3}
    assert gallery.notes == (
        "completions_00004.parquet, completions_00005.parquet can't be read, perhaps still being written; left out.",
    )
    assert (data["run"]["finished"], data["run"]["last_step"]) == (False, 4)
    assert gallery.num_images == 2
    # and again, over the file that is there
    assert write_gallery(run).num_rollouts == 12


def test_a_run_without_images(tmp_path):
    write_table(tmp_path, 1, group(0, [1.0, 0.0], image_keys=[]))
    gallery = write_gallery(tmp_path)
    assert (gallery.num_images, gallery.notes) == (0, ())


def test_images_that_are_gone(run):
    (run / "rollout_images" / "images_00000.parquet").unlink()
    write_images(run, {"a": b"no image"})
    gallery = write_gallery(run)
    assert gallery.num_images == 0
    assert gallery.notes == ("Images that are not among those that the run kept: 2.",)


def test_no_completions_logged(tmp_path):
    write_settings(tmp_path)
    write_log(tmp_path, [logged(1, 0.1), logged(2, 0.3)])
    gallery = write_gallery(tmp_path)
    assert (gallery.num_rollouts, gallery.num_curves) == (0, 1)
    assert gallery.notes[0].startswith("This run has logged no completions: set log_completions: true")


def test_a_run_that_has_not_begun(tmp_path):
    write_settings(tmp_path)
    gallery = write_gallery(tmp_path)
    assert (gallery.num_rollouts, gallery.num_curves) == (0, 0)
    assert data_of(gallery)["curves"] == {"sections": [], "constants": []}


# ---- curves


def test_curves_by_section(tmp_path):
    entries = [
        {"step": 1, "loss": 0.5, "rewards/accuracy_reward/mean": 0.1, "rewards/accuracy_reward/std": 9, "kl": 0.0},
        {"step": 2, "loss": float("nan"), "rewards/accuracy_reward/mean": 0.2, "kl": 0.0, "hints/level_0": 1.0},
        {"step": 2, "rewards/accuracy_reward/mean": 0.3},
        {"step": 2, "train_runtime": 9.0},
    ]
    write_log(tmp_path, entries)
    (tmp_path / "evaluations").mkdir()
    samples = [{"id": str(n), "accuracy": float(n < 3), "reader_accuracy": None} for n in range(4)]
    lines = "".join(json.dumps(sample) + "\n" for sample in samples)
    (tmp_path / "evaluations" / "step_00002.jsonl").write_text(lines)
    curves = data_of(write_gallery(tmp_path))["curves"]
    assert [section["title"].split(",")[0] for section in curves["sections"]] == [
        "Held-out rows",
        "Rewards",
        "Hints",
        "Optimisation",
    ]
    held_out, rewards, hints, optimisation = (section["curves"] for section in curves["sections"])
    assert held_out[0]["points"] == [[2, 0.75]]
    # Wilson's interval of 3 of 4: (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n) with z = 1.96
    assert held_out[0]["band"][0] == pytest.approx([0.3006, 0.9544], abs=1e-4)
    assert [one["name"] for one in held_out] == ["accuracy"]
    assert rewards == [{"name": "accuracy_reward", "points": [[1, 0.1], [2, 0.3]]}]
    assert hints == [{"name": "hints/level_0", "points": [[2, 1.0]]}]
    assert optimisation == [{"name": "loss", "points": [[1, 0.5]]}]
    assert curves["constants"] == [["kl", 0.0]]


def test_curves_of_a_run_without_a_log_file(tmp_path):
    for step in (5, 10):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        history = [{"step": number, "loss": float(number)} for number in range(1, step + 1)]
        (folder / "trainer_state.json").write_text(json.dumps({"log_history": history}))
    (tmp_path / "checkpoint-15").mkdir()
    (tmp_path / "checkpoint-15" / "trainer_state.json").write_text('{"log_hist')
    curves = data_of(write_gallery(tmp_path))["curves"]
    assert curves["sections"][0]["curves"][0]["points"][-1] == [10, 10.0]


# ---- the command line


def test_command_line(run, tmp_path, capsys):
    main([str(run), "--output", str(tmp_path / "new" / "look.html"), "--max_rollouts", "4", "--every", "2"])
    out = capsys.readouterr().out
    assert "rollouts 4 in 2 groups of 2 steps" in out
    assert "images   1" in out
    size = (tmp_path / "new" / "look.html").stat().st_size
    assert f"gallery  {tmp_path}/new/look.html ({size / 1e6:.1f} MB)" in out
    assert "note     4 of 12 rollouts are in this file" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "There is no folder 'nowhere'"),
        (["empty"], "'empty' holds no run: no run.json"),
        (["stages"], "'stages' is no run, but holds some: perceive. Give the folder of one of them."),
        (["run", "--output", "notes.txt"], "'notes.txt' exists and is no gallery"),
        (["run", "--output", "empty"], "The output 'empty' is a folder"),
        (["run", "--max_rollouts", "0"], "max_rollouts is 0, which leaves nothing to show"),
        (["run", "--every", "-1"], "every is -1"),
        (["run", "--image_size", "0"], "image_size is 0"),
    ],
)
def test_refusals(run, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    write_table(tmp_path / "stages" / "perceive", 1, group(0, [1.0, 0.0]))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_no_torch_is_loaded(run):
    code = (
        "import sys; from open_r1_vision.gallery import write_gallery; write_gallery(sys.argv[1]); "
        "print([name for name in ('torch', 'transformers', 'datasets', 'trl') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code, run], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"


def test_the_starters_recipes_log_what_it_shows():
    recipes = Path(__file__).parents[2] / "recipes" / "starter"
    found = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(recipes.glob("*.yaml"))]
    stages = [stage.get("settings") or {} for recipe in found for stage in recipe.get("stages", ())]
    trained = [recipe for recipe in (*found, *stages) if "reward_funcs" in recipe]
    assert len(trained) >= 8
    assert all(recipe["log_completions"] and recipe.get("log_image_size", 512) for recipe in trained)
