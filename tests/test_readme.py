# SPDX-License-Identifier: Apache-2.0
"""The README keeps its word."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def paths_in_tree():
    """The paths that the README's tree names under src/open_r1_vision, by indentation."""
    tree = README.split("## The tree")[1].split("```")[1]
    lines = tree[tree.index("src/open_r1_vision/") :].splitlines()[1:]
    folder, paths = "", set()
    for line in lines:
        match = re.match(r"( +)(\S+)", line)
        if match and len(match[1]) == 2:
            folder = match[2] if match[2].endswith("/") else ""
        if match:
            paths.add((folder if len(match[1]) == 4 else "") + match[2])
    return paths


def test_the_tree_names_every_module_and_no_other():
    package = ROOT / "src" / "open_r1_vision"
    modules = {str(path.relative_to(package)) for path in package.rglob("*.py") if path.name != "__init__.py"}
    named = {path for path in paths_in_tree() if path.endswith(".py")}
    assert named == modules


def test_the_tree_names_what_lies_at_the_root():
    tree = README.split("## The tree")[1].split("```")[1]
    lines = [line for line in tree.splitlines() if line and not line.startswith(" ")]
    # a line names one place or two, at most two blanks apart, before what is in it
    named = {place.split("/")[0] for line in lines for place in re.split(r" {3,}", line)[0].split()}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a checkout: what belongs to the repository is not known")
    assert named == {path.split("/")[0] for path in tracked.stdout.splitlines()}


def test_it_says_what_it_is_in_five_lines():
    title, what, *_ = README.split("\n\n")
    assert title == "# open_r1_vision" and 1 <= len(what.splitlines()) <= 5


def test_the_root_is_small():
    visible = [path.name for path in ROOT.iterdir() if not path.name.startswith(".") and path.name != "runs"]
    assert len([name for name in visible if not name.endswith(".egg-info")]) <= 14


@pytest.mark.parametrize("command", re.findall(r"^    make (\w+)", README, re.MULTILINE))
def test_make_targets_exist(command):
    assert f"\n{command}:" in (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_notebook_example_runs(tmp_path, monkeypatch):
    code = next(
        block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "CaptionGRPOTrainer" in block
    )
    assert len(code.strip().splitlines()) <= 20
    monkeypatch.chdir(tmp_path)
    namespace: dict = {}
    exec(code, namespace)
    assert namespace["trainer"].state.global_step == 10
