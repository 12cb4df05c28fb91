# SPDX-License-Identifier: Apache-2.0
"""What the documents tell to type is right to the last option, and is run by a test or marked as not run."""

import ast
import json
import re
from pathlib import Path

import pytest
from document_commands import commands_of, find_commands, read

from open_r1_vision import train
from open_r1_vision.arguments import Recipe, read_recipe

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "notebooks").glob("*.ipynb")),
]
ALL = [command for path in DOCUMENTS for command in commands_of(path)]
CI = ".ci/run"
STARTER = "test_documents.py::test_what_trains_on_the_starter"
#: Which test runs a command: with the same program and options, though with smaller numbers, and files of its own.
RUN_BY = {
    r"make (test|quality|test-vllm|vllm-cpu)": CI,
    r"make starter": STARTER,
    r"make claims|python eval/claims\.py --quick": "test_claims.py::test_a_quick_study",
    r"torchrun --nproc_per_node=\d -m open_r1_vision\.train --config recipes/starter/.*": STARTER,
    r"\.venv-vllm/bin/torchrun .*/visionary_r1\.yaml --use_vllm true .*": (
        "vllm_support/test_colocated.py::test_the_starters_recipe"
    ),
    r"python -m open_r1_vision\.curriculum .*/pebr_r1\.yaml --dry_run": (
        "curriculum/test_pebr_recipe.py::test_a_dry_run_says_what_is_missing"
    ),
    r"python -m open_r1_vision\.doctor --config [^-]+": "doctor/test_doctor.py::test_a_recipe_that_would_start",
    r"python -m open_r1_vision\.doctor .* --gpus \d+ --gpu_memory 80( --verbose)?": (
        "doctor/test_doctor.py::test_a_gpu_that_is_too_small"
    ),
    r"python -m open_r1_vision\.check_data .* --write-clean good_rows": (
        "test_check_data.py::test_problems_and_the_good_rows"
    ),
    r"python -m open_r1_vision\.check_data .* --limit 1000": "test_check_data.py::test_limit_and_the_eval_split",
    r"python -m open_r1_vision\.split .* --scorer .*": "test_split.py::test_other_scorers_need_no_other_samples",
    r"python -m open_r1_vision\.data\.key_words .* --description_column .*": (
        "data/test_key_words.py::test_by_a_text_model"
    ),
    r"python -m open_r1_vision\.data\.annotate .* --reasoner .*": "data/test_annotate.py::test_the_whole_way",
    r"python -m open_r1_vision\.three_step .* --reasoner reasoner\.yaml .*": (
        "three_step/test_three_step_command.py::test_a_reasoner_may_come_from_a_file_and_captions_from_another_output"
    ),
    r"python -m open_r1_vision\.gallery runs/\S+": "gallery/test_gallery_page.py::test_command_line",
    r"(cd runs; )?python -m open_r1_vision\.compare .*": (
        "compare/test_compare_command.py::test_the_commands_of_the_documents"
    ),
    r"python -m open_r1_vision\.evaluate run .*\.policy --max_tokens 60( --batch_size 64)? --output \S+": (
        "evaluate/test_starter_runs.py::test_greedy_replies_are_those_of_generate_and_scores_those_of_the_reward"
    ),
    r"python -m open_r1_vision\.evaluate run .* --calibration [\d.]+ .*": (
        "evaluate/test_starter_runs.py::test_calibrated_replies_are_those_of_the_generator"
    ),
    r"python -m open_r1_vision\.evaluate (run .*/evaluation --model \S+\.policy|list|export .*|import .*)": (
        "evaluate/test_guide.py::test_every_command_runs_or_says_that_it_was_not_run"
    ),
    r"python eval/pairs\.py .* --records \S+": "compare/test_seeds.py::test_a_row_counts_once",
    r"python eval/starter\.py --calibration 0\.8": (
        "decoding/test_calibration_scripts.py::test_the_starters_evaluation_takes_a_calibration"
    ),
    r"python eval/calibration\.py": (
        "decoding/test_calibration_scripts.py::test_the_calibration_script_writes_a_table_and_a_plot"
    ),
    r"python local_scripts/prepare_llava_cot\.py .*": (
        "data/test_llava_cot.py::test_prepare_writes_rows_with_their_images"
    ),
    r"python -m open_r1_vision\.bench update --pixels \d+ --tokens \d+ --repeats 3": (
        "bench/test_bench_update.py::test_update"
    ),
    r"python -m open_r1_vision\.bench generate --pixels \d+ --tokens \d+ --repeats 3": (
        "bench/test_bench_generate.py::test_the_smallest_run"
    ),
    r"python -m open_r1_vision\.bench step( --tokens \d+)? --repeats 3": (
        "bench/test_bench_step.py::test_both_take_the_same_steps"
    ),
    r"python -m open_r1_vision\.bench caption --repeats 3": (
        "bench/test_bench_caption.py::test_both_read_the_same_captions_alike"
    ),
    r"python -m open_r1_vision\.bench hint --prompts \d --repeats 3": (
        "bench/test_bench_hint.py::test_tokens_of_a_step"
    ),
    r"python -m open_r1_vision\.bench calibration --prompts \d --repeats 3": (
        "bench/test_bench_calibration.py::test_ours_replies_as_the_authors_code_does"
    ),
    r"python -m open_r1_vision\.bench judge( --limit \d+ --same \d)?": (
        "bench/test_bench_judge.py::test_requests_of_each_way"
    ),
    r"python -m open_r1_vision\.bench waste .* --repeats 3": (
        "bench/test_bench_waste.py::test_the_table_of_what_is_left_out"
    ),
}


def run_by(command):
    """The tests that run it."""
    return [test for pattern, test in RUN_BY.items() if re.fullmatch(pattern, command.text)]


def short(command):
    return str(command)[:80]


def test_commands_are_found_wherever_they_stand():
    text = "\n".join(
        [
            "Call `python -m open_r1_vision.doctor",
            "--config RECIPE`, or `runs/x`.",
            "",
            '    S="--a 1"',
            "    cd runs; python -m m $S \\",
            "        --b    # not run",
            "    A=1 B=2 local_scripts/train_nodes.sh r.yaml",
            "    r_clip = min(c / 0.4, 1)",
            "",
            "Not run on a GPU:",
            "",
            "    .venv-vllm/bin/torchrun -m m",
            "",
            "```python",
            "    python = 1",
            "```",
            "",
            "Not run:",
            "",
            "```bash",
            "hf download a/b",
            "```",
        ]
    )
    found = list(find_commands(text, "page"))
    assert [(command.text, command.says_not_run, command.inline) for command in found] == [
        ("python -m open_r1_vision.doctor --config RECIPE", False, True),
        ("cd runs; python -m m --a 1 --b", True, False),
        ("A=1 B=2 local_scripts/train_nodes.sh r.yaml", False, False),
        (".venv-vllm/bin/torchrun -m m", False, False),
        ("hf download a/b", True, False),
    ]
    assert found[1].words == ["python", "-m", "m", "--a", "1", "--b"]
    assert (found[2].words, found[2].environment) == (["local_scripts/train_nodes.sh", "r.yaml"], {"A": "1", "B": "2"})
    assert not found[0].is_a_name


@pytest.mark.parametrize(
    "text",
    [
        "python -m open_r1_vision.nothing",
        "python -m open_r1_vision.check_data --config recipes/starter/grpo.yaml --write_clen x",
        "torchrun --nprocs_per_node=2 -m open_r1_vision.train --config recipes/starter/grpo.yaml",
        "torchrun --nproc_per_node=2 -m open_r1_vision.train --config recipes/starter/grpo.yaml --learnin_rate 1",
        "local_scripts/train_8_gpus.sh recipes/starter/grpo.yaml recipes/hardware/9_gpus.yaml",
        "python -m open_r1_vision.curriculum --config recipes/starter/pebr_r1.yaml --dry_rum true",
        "python -m open_r1_vision.bench update --pixls 448",
        "python -m open_r1_vision.evaluate rum --benchmark mmstar",
        "python eval/calibration.py --scale x",
        "python local_scripts/prepare_llava_cot.py --input a",
        "make strater",
        'pip install -c constraints.txt -e ".[evil]"',
    ],
)
def test_a_mistake_is_seen(text, tmp_path, monkeypatch, capsys):
    (command,) = find_commands(f"    {text}", "page")
    with pytest.raises((AssertionError, ValueError, SystemExit)):
        read(command, tmp_path, monkeypatch)


@pytest.mark.parametrize("command", ALL, ids=short)
def test_it_is_what_the_programs_take(command, tmp_path, monkeypatch):
    read(command, tmp_path, monkeypatch)


@pytest.mark.parametrize("command", [command for command in ALL if not command.is_a_name], ids=short)
def test_it_is_run_or_marked(command):
    tests = run_by(command)
    assert len(tests) <= 1, f"{command}: {' and '.join(tests)} can't both be meant"
    if command.says_not_run:
        assert not tests, f"{command}: it is marked as not run, but {tests[0]} runs it"
    else:
        assert tests, f"{command}: name the test that runs it in RUN_BY, or write 'not run' behind it"


@pytest.mark.parametrize(("pattern", "test"), RUN_BY.items())
def test_the_test_is_there_and_wanted(pattern, test):
    assert any(re.fullmatch(pattern, command.text) for command in ALL), "no document has such a command any more"
    if test == CI:
        return
    path, _, name = test.partition("::")
    tree = ast.parse((ROOT / "tests" / path).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_what_ci_calls():
    called = re.findall(r"^make (\S+)$", (ROOT / CI).read_text(encoding="utf-8"), re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    needed = [name for target in called for name in re.findall(rf"^{target}: (\S+)$", makefile, re.MULTILINE)]
    pattern = next(pattern for pattern, test in RUN_BY.items() if test == CI)
    assert {command.text for command in ALL if re.fullmatch(pattern, command.text)} <= {
        f"make {target}" for target in (*called, *needed)
    }
    # what `make starter` trains is what the README says
    assert "-m open_r1_vision.train --config recipes/starter/visionary_r1.yaml\n" in makefile


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    {command.text: command for command in ALL if STARTER in run_by(command) and "torchrun" in command.text}.values(),
    ids=short,
)
def test_what_trains_on_the_starter(command, tmp_path, monkeypatch):
    """One step on few rows, in this process; a folder of an earlier run gives way to the shipped policy."""
    monkeypatch.chdir(ROOT)
    recipe = read_recipe(command.words[command.words.index("open_r1_vision.train") + 1 :])
    settings = {
        **recipe.settings,
        "model_name_or_path": "open_r1_vision.starter.model.policy",
        "dataset_options": {"count": 8},
        "eval_dataset_options": {"count": 8},
        "prompts_per_step": 4,
        "max_steps": 1,
        "output_dir": str(tmp_path / "run"),
    }
    results = train.run(train.prepare(Recipe(settings, recipe.path)))
    assert results["steps"] == 1
    assert json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))["steps"] == 1
    assert (tmp_path / "run" / "final" / "model.safetensors").is_file()
