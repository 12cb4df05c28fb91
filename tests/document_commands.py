# SPDX-License-Identifier: Apache-2.0
"""The commands of the documents, and reading them as the programs would that they start."""

import argparse
import importlib
import json
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_eval_scripts import load
from test_local_scripts import REPRODUCE, record
from test_recipes import parse_stage

from open_r1_vision.arguments import read_recipe

ROOT = Path(__file__).parents[1]
#: What a line begins with that is typed: ours, and what others bring.
OURS = ("make", "python", "torchrun")
OTHERS = (
    *("pip", "hf", "curl", "wget", "unzip", "tar", "cat", "vllm", "source", "export", "for", "bash", "git", "pytest"),
    *("apt-get", "docker", "sudo", "accelerate", "deepspeed", "transformers", "huggingface-cli", "pre-commit"),
)
_FILE = re.compile(r"(recipes|local_scripts|eval|tests|docs|notebooks|src)/\S+\.(ya?ml|json|sh|py|md|ipynb)")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
#: What stands for something that the reader has.
_STAND_INS = {"RECIPE": "recipes/qwen2_5_vl_7b/racro_cro.yaml", "OVERLAY": "recipes/hardware/8_gpus.yaml"}


@dataclass(frozen=True)
class Command:
    """A command of a document, in one line, without its comment.

    Attributes:
        document: path from the root.
        text: what is typed, variables filled in.
        says_not_run: its comment says that it was not run, or the paragraph before its block.
        inline: it stands within a sentence.
    """

    document: str
    text: str
    says_not_run: bool
    inline: bool = False

    def __str__(self):
        return f"{self.document}: {self.text}"

    @property
    def words(self):
        """Program and arguments, without `cd` and the environment before them."""
        last = re.split(r"; |&& ", self.text)[-1] if self.text.startswith("cd ") else self.text
        words = shlex.split(last)
        while words and _ASSIGNMENT.match(words[0]):
            words.pop(0)
        return [_STAND_INS.get(word, word) for word in words]

    @property
    def environment(self):
        """Variables that are set for it alone."""
        words = shlex.split(self.text)
        count = next((place for place, word in enumerate(words) if not _ASSIGNMENT.match(word)), 0)
        return dict(word.split("=", 1) for word in words[:count])

    @property
    def is_a_name(self):
        """Whether a sentence only names what could be started: an entry point or a target, or what others bring."""
        program, *words = [word for word in self.words if not _ASSIGNMENT.match(word)]
        is_ours = _program(program) in OURS or "/" in program
        return self.inline and not (is_ours and len(words) > (2 if words[0] == "-m" else 1))


def commands_of(path):
    """The commands of a Markdown file, or of the texts in a notebook."""
    texts = [path.read_text(encoding="utf-8")]
    if path.suffix == ".ipynb":
        texts = ["".join(cell["source"]) for cell in json.loads(texts[0])["cells"] if cell["cell_type"] == "markdown"]
    return [command for text in texts for command in find_commands(text, str(path.relative_to(ROOT)))]


def find_commands(text, document):
    """Those in indented lines, in fences of a shell, and in sentences."""
    text = re.sub(r"```(?:bash|sh|shell|console)\n(.*?)```", _indented, text, flags=re.DOTALL)
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    text = re.sub(r" *\\\n\s*", " ", text)
    before, variables = "", {}
    for paragraph in re.split(r"\n\s*\n", text):
        sentences, lines = [], []
        for line in paragraph.splitlines():
            (lines if line.startswith("    ") else sentences).append(line)
        before = " ".join(sentences) if sentences else before
        for span in re.findall(r"`([^`]+)`", before if sentences else ""):
            if _is_typed(span) and len(span.split()) > 1:
                yield Command(document, " ".join(span.split()), says_not_run=False, inline=True)
        for line in lines:
            typed, _, comment = re.sub(r"\s+#\s", "\0", line.strip(), count=1).partition("\0")
            if assigned := re.fullmatch(r'(\w+)="(.*)"', typed):
                variables[assigned[1]] = assigned[2]
            elif _is_typed(typed):
                typed = re.sub(r"\$(\w+)", lambda match: variables.get(match[1], match[0]), " ".join(typed.split()))
                yield Command(document, typed, _says_not_run(comment) or _says_not_run(before))


def _indented(match):
    return "".join(f"    {line}\n" for line in match[1].splitlines())


def _is_typed(text):
    words = text.split()
    while words and _ASSIGNMENT.match(words[0]):
        words.pop(0)
    if text.startswith("cd ") or (words and _program(words[0]) in (*OURS, *OTHERS)):
        return True
    return bool(words) and re.fullmatch(r"(local_scripts|eval|\.ci|\.venv\S*)/\S*[^\s/]", words[0]) is not None


def _program(word):
    return re.sub(r"^\.venv[\w-]*/bin/", "", word)


def _says_not_run(text):
    # what was not run on a GPU may have been run without one
    return re.search(r"\bnot run\b(?! on a)", text, re.IGNORECASE) is not None


class Parsed(Exception):
    """Ends a command after its options were read."""


def read(command, folder, monkeypatch):
    """Read a command as the programs would that it starts, and start none of them; fails on what they would refuse.

    Args:
        command: a :class:`Command`.
        folder: an empty one.
        monkeypatch: pytest's.
    """
    for word in command.words:
        if _FILE.fullmatch(word):
            assert (ROOT / word).is_file(), f"{command}: there is no {word}"
    monkeypatch.setattr(os, "environ", {**os.environ, **command.environment})  # recipes set some of it
    monkeypatch.chdir(ROOT)
    program, *words = command.words
    if _program(program) == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert all(f"\n{word}:" in makefile or _is_variable(word, makefile) for word in words), command
    elif _program(program) == "pip" and words[0] == "install":
        _read_pip(words)
    elif Path(program).suffix == ".sh":
        _read_launcher(ROOT / program, words, folder, monkeypatch)
    else:
        _read_start([_program(program), *words], monkeypatch)


def _is_variable(word, makefile):
    return re.search(rf"^{word.partition('=')[0]} \?=", makefile, re.MULTILINE) is not None


def _read_pip(words):
    """The constraints are there, and the package has the extras."""
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    for option, value in zip(words, words[1:], strict=False):
        assert option != "-c" or (ROOT / value).is_file()
    for extras in re.findall(r"^\.\[(.*)\]$", "\n".join(words), re.MULTILINE):
        for extra in extras.split(","):
            assert f'"{extra}": [' in setup or f'extras["{extra}"]' in setup, extra


def _read_launcher(script, words, folder, monkeypatch):
    """What a script of ours starts; test_local_scripts.py reads what those start that reproduce results."""
    if script in REPRODUCE:
        assert not words
        return
    for start in record(script, folder, *words):
        _read_start(start, monkeypatch)


def _read_start(words, monkeypatch):
    program, *words = words
    if program == "torchrun":
        from torch.distributed.run import get_args_parser

        launch = get_args_parser().parse_args(words)
        assert launch.module
        _read_module(launch.training_script, launch.training_script_args, monkeypatch)
    elif program == "python" and words[0] == "-m":
        _read_module(words[1], words[2:], monkeypatch)
    elif program == "python":
        script = Path(words[0])
        main = load(script.stem).main if script.parent.name == "eval" else _load_script(ROOT / script)
        _read_by_main(main, words[1:], monkeypatch)


def _load_script(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def _read_module(name, words, monkeypatch):
    place = ROOT / "src" / Path(*name.split("."))
    assert place.with_suffix(".py").is_file() or (place / "__main__.py").is_file(), f"there is no module {name}"
    module = importlib.import_module(f"{name}.__main__" if place.is_dir() else name)
    kind = name.removeprefix("open_r1_vision.")
    if not words:
        return
    if kind in ("doctor", "check_data"):
        _, words = module._build_parser().parse_known_args(words)
        kind = "train"
    if kind in ("train", "sft", "sample", "split"):
        parse_stage(SimpleNamespace(run=kind, settings=read_recipe(words).settings))
    elif kind == "curriculum":
        args, rest = module._build_parser().parse_known_args(words)
        module.read_curriculum(args.config, args.output_dir, args.processes, module._read_overrides(rest))
    else:
        _read_by_main(module.main, words, monkeypatch)


def _read_by_main(main, words, monkeypatch):
    """By its own argparse parser; whatever it does next is not done."""
    parse_args = argparse.ArgumentParser.parse_args

    def parse(parser, *args, **kwargs):
        raise Parsed(parse_args(parser, *args, **kwargs))

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse)
        with pytest.raises(Parsed):
            main(words)
