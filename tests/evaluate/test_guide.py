# SPDX-License-Identifier: Apache-2.0
"""The commands of docs/evaluation.md, read from there and run on six pages of the starter instead of 512."""

import re
import shlex
from pathlib import Path

from open_r1_vision.evaluate.__main__ import main

GUIDE = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
START = "python -m open_r1_vision.evaluate "


def commands():
    """Commands with the paragraphs around them, each in one line."""
    for block in re.split(r"\n\n(?=\S)", GUIDE.replace(" \\\n", " ")):
        for line in block.splitlines():
            if line.strip().startswith(START) and line.startswith("    "):
                words, _, comment = line.partition("  # ")
                yield shlex.split(words.strip().removeprefix(START)), block + comment


def test_every_command_runs_or_says_that_it_was_not_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    done = []
    for words, around in commands():
        if re.search("not run", around, re.IGNORECASE):
            continue
        pages = ["--data", "6"] if words[0] in ("run", "import") else []
        assert main([*words, *pages]) == 0, words
        done.append(words[0])
    assert done == ["run", "list", "export", "import"]
    said = capsys.readouterr().out
    assert said.count("starter_digits_accuracy   50.0 %") == 2 and "written tables" in said


def test_the_python_of_the_guide(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"### From Python\n\n```python\n(.*?)```", GUIDE, re.DOTALL)
    names: dict = {}
    exec(compile(code, "docs/evaluation.md", "exec"), names)
    told = float(re.search(r"value +# ([\d.]+)", code)[1])
    assert names["summary"].metrics[0].value == told
