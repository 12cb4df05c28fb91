# SPDX-License-Identifier: Apache-2.0
"""What the documents tell to type exists, and is run by a test or marked as not run."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TESTS = {path: path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)}
PROGRAMS = ("make", "python", "torchrun", "local_scripts/")
#: Targets of make that .ci/run calls, and the tests of what others call.
TARGETS = {
    **dict.fromkeys(("test", "quality", "test-vllm", "vllm-cpu"), ".ci/run"),
    "starter": "test_train.py",
    "claims": "test_claims.py",
}


def commands(path):
    """The commands of a document, with their comments: indented lines and lines of shell fences."""
    text = re.sub(r"\\\n\s*", " ", path.read_text(encoding="utf-8"))
    fences = re.findall(r"```(?:bash|sh|console)\n(.*?)```", text, re.DOTALL)
    outside = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    lines = re.findall(r"^    (\S.*)$", outside, re.MULTILINE) + [
        line for fence in fences for line in fence.splitlines()
    ]
    return [line.strip() for line in lines if line.strip().startswith(PROGRAMS)]


ALL = [(path.relative_to(ROOT), command) for path in DOCUMENTS for command in commands(path)]


def test_there_are_commands():
    assert len(ALL) > 20


@pytest.mark.parametrize(("document", "command"), ALL, ids=lambda value: str(value)[:60])
def test_what_it_names_exists(document, command):
    words = command.partition("#")[0].split()
    for word in words:
        if re.match(r"(recipes|local_scripts|eval|tests|docs)/\S+\.(ya?ml|json|sh|py)$", word):
            assert (ROOT / word).is_file(), f"{document}: {word}"
    if "-m" in words and (module := words[words.index("-m") + 1]).startswith("open_r1_vision"):
        place = ROOT / "src" / Path(*module.split("."))
        assert place.with_suffix(".py").is_file() or (place / "__main__.py").is_file(), f"{document}: {module}"
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        targets = [word for word in words[1:] if "=" not in word]
        assert all(f"\n{target}:" in makefile for target in targets), f"{document}: {command}"


def is_run(command):
    """Whether a test names what the command starts: its module, its script, or what its target calls."""
    words = command.partition("#")[0].split()
    if words[0] == "make":
        place = TARGETS.get(words[1])
        return place == ".ci/run" or any(path.name == place for path in TESTS)
    if "-m" in words:
        module = words[words.index("-m") + 1]
        return any(module in text for text in TESTS.values())
    script = Path(next(word for word in words if "/" in word))
    if script.name.startswith("reproduce_"):
        return any('"reproduce_*.sh"' in text for text in TESTS.values())
    return any(script.name in text or f'"{script.stem}"' in text for text in TESTS.values())


@pytest.mark.parametrize(("document", "command"), ALL, ids=lambda value: str(value)[:60])
def test_it_is_run_or_marked(document, command):
    assert "not run" in command or is_run(command), f"{document}: no test runs it, and it isn't marked as not run"
