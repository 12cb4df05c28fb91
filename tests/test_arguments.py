# SPDX-License-Identifier: Apache-2.0
import importlib
import subprocess
import sys
from dataclasses import dataclass, field

import pytest

from open_r1_vision.arguments import DataArguments, ScriptArguments, parse_recipe, print_help, read_recipe
from open_r1_vision.data.rows import to_messages
from open_r1_vision.prompts import load_prompt, load_template
from open_r1_vision.rewards.headers import has_headers_somewhere, split_sections
from open_r1_vision.rewards.loading import load_rewards


@dataclass
class Options:
    """Keys of a method."""

    rate: float = field(default=0.5, metadata={"help": "Rate."})
    steps: int = field(default=1, metadata={"help": "Steps."})
    weights: list[float] | None = field(default=None, metadata={"help": "Weights."})
    fast: bool = field(default=False, metadata={"help": "Fast."})
    name: str | None = field(default=None, metadata={"help": "Name."})


@pytest.fixture
def parse(tmp_path):
    """`parse(yaml, *words)` gives the script's arguments and the options."""

    def get(text, *words):
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        return parse_recipe(read_recipe(["--config", str(path), *words]), (ScriptArguments, Options))

    return get


def test_recipe_defaults_and_command_line(parse):
    script, options = parse("dataset: a.jsonl\nrate: 0.1\nsteps: 7\n", "--steps", "9", "--name=b=c")
    assert (script.dataset, script.dataset_split, script.check_rows) == ("a.jsonl", "train", 2000)
    assert (options.rate, options.steps, options.name, options.fast) == (0.1, 9, "b=c", False)


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--rate", "1e-4"], "rate", 1e-4),
        (["--rate=-2"], "rate", -2.0),
        (["--rate", "-2"], "rate", -2.0),
        (["--fast"], "fast", True),
        (["--fast", "false"], "fast", False),
        (["--weights", "1", "0.5"], "weights", [1.0, 0.5]),
        (["--weights", "1"], "weights", [1.0]),
        (["--steps", "2", "--steps", "3"], "steps", 3),
    ],
)
def test_words_of_the_command_line(parse, words, name, value):
    assert getattr(parse("dataset: a.jsonl", *words)[1], name) == value


def test_a_number_that_yaml_takes_for_text(parse):
    assert parse("dataset: a.jsonl\nrate: 1e-4")[1].rate == 1e-4


def test_hyphens_in_keys(parse):
    assert parse("dataset: a.jsonl", "--dataset-split", "test", "--reward-funcs", "a.b", "c.d")[0] == ScriptArguments(
        dataset="a.jsonl", dataset_split="test", reward_funcs=["a.b", "c.d"]
    )


def test_one_reward_needs_no_list(parse):
    assert parse("dataset: a.jsonl\nreward_funcs: a.b")[0].reward_funcs == ["a.b"]


def test_mappings(parse):
    assert parse("dataset: a.b\ndataset_options: {count: 3}")[0].dataset_options == {"count": 3}
    script, _ = parse("dataset: a.b\ndataset_options: {count: 3}", "--dataset_options", '{"count": 4}')
    assert script.dataset_options == {"count": 4}
    assert script.eval_dataset_options == script.reward_kwargs == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dataset_options: count=3", "dataset_options is 'count=3', which is not JSON"),
        ("dataset_options: [3]", "dataset_options is a list: give a mapping"),
        ("reward_kwargs: '[3]'", "reward_kwargs is a list: give a mapping"),
        ("eval_every: 0", "eval_every is 0: set at least 1 step"),
    ],
)
def test_values_that_cannot_be(parse, text, message):
    with pytest.raises(ValueError, match=message):
        parse(f"dataset: a.b\n{text}")


def test_unknown_keys_name_the_nearest(parse):
    with pytest.raises(ValueError, match=r"Unknown key `wieghts` in .*recipe.yaml\. Did you mean `weights`\?"):
        parse("dataset: a.b\nwieghts: [1]")
    with pytest.raises(ValueError, match=r"Unknown key `stepz`.*Did you mean `steps`\?"):
        parse("dataset: a.b", "--stepz", "1")
    with pytest.raises(ValueError, match=r"Unknown key `qqqq`.*`--help_all` lists the keys"):
        parse("dataset: a.b", "--qqqq", "1")
    # argparse would take it for `dataset`
    with pytest.raises(ValueError, match="Unknown key `datase`"):
        parse("steps: 1", "--datase", "a.b")


def test_the_data_set_is_required(parse, capsys):
    with pytest.raises(ValueError, match=r"`dataset` is not set: give it in .*recipe\.yaml, or as --dataset\.$"):
        parse("steps: 1")
    # and no hundreds of lines of usage
    assert capsys.readouterr().err == ""


def test_a_value_of_another_type_is_refused_in_one_line(parse, capsys):
    with pytest.raises(
        ValueError, match=r"argument --steps: invalid int value: 'six'\. --help_all says what each key"
    ):
        parse("dataset: a.b", "--steps", "six")
    assert capsys.readouterr().err == ""


def test_environment(parse, monkeypatch):
    monkeypatch.setenv("OPEN_R1_VISION_TEST", "before")
    parse("dataset: a.b\nenv: {OPEN_R1_VISION_TEST: 3}")
    import os

    assert os.environ["OPEN_R1_VISION_TEST"] == "3"
    with pytest.raises(ValueError, match="`env` in a recipe must be a mapping"):
        parse("dataset: a.b\nenv: 3")


@pytest.mark.parametrize("text", ["- a\n- b", "just words", "[1, 2]", "", "# nothing yet"])
def test_a_recipe_that_is_no_mapping(parse, text):
    with pytest.raises(ValueError, match="must consist of `key: value` lines"):
        parse(text)


def test_a_recipe_that_is_no_yaml(parse):
    with pytest.raises(ValueError, match=r"(?s)recipe.yaml.* is not YAML.*line 2"):
        parse("dataset: a.b\nsteps: [1, 2")


def test_no_recipe():
    with pytest.raises(ValueError, match="There is no recipe 'nowhere.yaml': give the path of a YAML file"):
        read_recipe(["--config", "nowhere.yaml"])
    script, options = parse_recipe(read_recipe(["--dataset", "a.b", "--steps", "3"]), (ScriptArguments, Options))
    assert (script.dataset, options.steps) == ("a.b", 3)


def test_words_without_a_key():
    with pytest.raises(ValueError, match="Unexpected argument 'recipe.yaml': settings are given as `--key value`"):
        read_recipe(["recipe.yaml", "--seed", "1"])


def test_plain_values_do_not_show_where_they_come_from(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("rate: 1e-4\nsteps: 3\nfast: true\nweights: [1, 0.5]\nname: none\n")
    recipe = read_recipe(["--config", str(path)])
    words = ["--rate", "1e-4", "--steps", "3", "--fast", "--weights", "1", "0.5", "--name", "none"]
    plain = {"rate": 0.0001, "steps": 3, "fast": True, "weights": [1, 0.5], "name": "none"}
    assert recipe.as_plain() == read_recipe(words).as_plain() == plain
    assert type(recipe.as_plain()["steps"]) is type(read_recipe(words).as_plain()["steps"]) is int
    # `nan` is not equal to itself
    assert read_recipe(["--name", "nan"]).as_plain() == {"name": "nan"}


def test_help_lists_every_key_with_its_default(capsys):
    print_help("open_r1_vision.train", [ScriptArguments], "What it is for.\n", "What else may be given.")
    text = capsys.readouterr().out
    assert text.startswith(
        "usage: python -m open_r1_vision.train --config RECIPE [OVERLAY ...] [--key value ...]\n\nWhat it is for.\n\n"
    )
    assert text.endswith("\n\nWhat else may be given.\n")
    assert "  --dataset  (required)\n      Training rows: " in text
    assert "  --check_rows  (default 2000)\n" in text
    assert "  --reward_funcs\n      Dotted paths" in text


@pytest.mark.parametrize("module", ["train", "sft", "sample", "split", "starter.train_dual_encoder"])
def test_help_promises_no_option_that_is_not_there(module, capsys, monkeypatch):
    entry = importlib.import_module(f"open_r1_vision.{module}")
    run = getattr(entry, "main" if module in ("sample", "split") else "run_command_line")
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    run()
    text = capsys.readouterr().out
    assert entry.__doc__.strip() in text
    if "--help_all" in text:
        monkeypatch.setattr(sys, "argv", [module, "--help_all"])
        run()
        text = capsys.readouterr().out
        assert text.startswith(f"usage: python -m open_r1_vision.{module} [-h]")
        assert "--learning_rate" in text
    else:
        assert module in ("sample", "split")


def test_nothing_heavy_is_imported():
    code = (
        "import sys; import open_r1_vision.train, open_r1_vision.sft, open_r1_vision.check_data\n"
        "sys.stdout.write(' '.join(sys.modules))"
    )
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "open_r1_vision.arguments" in modules
    assert not {"torch", "transformers", "trl", "datasets", "accelerate"} & set(modules)


def test_data_arguments_stand_alone():
    data, options = parse_recipe(read_recipe(["--dataset", "a.b"]), (DataArguments, Options))
    assert (data.dataset, data.eval_dataset, options.steps) == ("a.b", None, 1)


def test_prompts_of_a_recipe(parse, tmp_path):
    template = tmp_path / "mine.txt"
    template.write_text("\nQ: {problem} {other}\n")
    script, _ = parse(f"dataset: a.b\nsystem_prompt: r1\nuser_prompt: {template}")
    texts = script.prompt_texts
    assert texts["user_prompt"] == "Q: {problem} {other}"
    assert texts["system_prompt"] == load_prompt("r1")
    assert parse("dataset: a.b")[0].prompt_texts == {"system_prompt": None, "user_prompt": None}


def test_the_prompt_of_pebr_r1(parse):
    """The instruction, a blank line, the problem with its image; the headers are those that are looked for."""
    script, _ = parse("dataset: a.b\nuser_prompt: pebr_r1")
    row = {"problem": "<image>How long is AB?", "images": ["a.png"]}
    (message,) = to_messages(row, **script.prompt_texts)
    instruction, image, problem = message["content"]
    assert (image, problem) == ({"type": "image"}, {"type": "text", "text": "How long is AB?"})
    assert instruction["text"].endswith("### The final answer is:\n\n")
    assert "'The final answer is: xxx'" in instruction["text"]
    _, sections = split_sections(instruction["text"])
    names = ["description", "rationales", "thinking", "step", "step", "answer"]
    assert [section.name for section in sections] == names
    assert has_headers_somewhere(instruction["text"])


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("r1", "The prompt 'r1' lacks {problem}, where the text of a row goes: write it in, or name another"),
        ("racro_joints", "There is no prompt 'racro_joints': give the path of a text file or one of .*racro_joint"),
    ],
)
def test_templates_that_cannot_be(parse, prompt, message):
    script, _ = parse(f"dataset: a.b\nuser_prompt: {prompt}")
    with pytest.raises(ValueError, match=message):
        _ = script.prompt_texts


def test_several_placeholders_are_missed_at_once():
    with pytest.raises(ValueError, match="'racro_caption' lacks {caption} and {response}"):
        load_template("racro_caption", "caption", "response")


def test_answer_forms(parse):
    assert parse("dataset: a.b")[0].answer_form == "tags"
    assert parse("dataset: a.b\nanswer_form: null")[0].answer_form is None
    assert parse("dataset: a.b", "--answer_form", "boxed")[0].answer_form == "boxed"
    with pytest.raises(ValueError, match="answer_form is 'box': set it to tags, boxed, sections or null"):
        parse("dataset: a.b\nanswer_form: box")


def test_the_answer_form_reaches_the_rewards_that_take_it():
    names = ["open_r1_vision.rewards.accuracy_reward", "open_r1_vision.rewards.format_reward"]
    accuracy, formatting = load_rewards(names, defaults={"answer_form": "boxed"})
    row = {"completions": [r"\boxed{7}", "<answer>7</answer>"], "solution": ["7"] * 2, "problem_type": ["number"] * 2}
    assert accuracy(**row) == [1, 0]
    assert formatting(**row) == [0, 0]
    # a reward's own setting wins
    (accuracy,) = load_rewards(names[:1], {names[0]: {"answer_form": "tags"}}, defaults={"answer_form": "boxed"})
    assert accuracy(**row) == [0, 1]
