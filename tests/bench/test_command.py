# SPDX-License-Identifier: Apache-2.0
import importlib
import subprocess
import sys

import pytest
import torch

from open_r1_vision.bench.__main__ import SUBCOMMANDS, main


def test_help_says_what_each_subcommand_measures(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for name, about in SUBCOMMANDS.items():
        assert f"{name} {about}" in text


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from open_r1_vision.bench.__main__ import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: sys.stderr.write(' '.join(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "argparse" in result.stderr.split()
    assert "torch" not in result.stderr.split()


@pytest.mark.parametrize("name", sorted(SUBCOMMANDS))
def test_help_of_a_subcommand_explains_every_option(name, capsys):
    with pytest.raises(SystemExit) as caught:
        main([name, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert importlib.import_module(f"open_r1_vision.bench.{name}").__doc__.split(".")[0] in " ".join(text.split())
    assert "--repeats REPEATS measurements of each, after one that doesn't count (default " in " ".join(text.split())


@pytest.mark.parametrize("option", ["repeats", "tokens", "prompts", "threads"])
def test_nothing_to_measure_is_refused_before_a_model_is_built(option, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["update", "--shape", "tiny", f"--{option}", "0"])
    assert caught.value.code == 2
    assert f"--{option} is 0: there is nothing to measure, give 1 or more" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["update", "--shape", "tiny", "--device", "cuda"])
    assert caught.value.code == 2
    assert f"--device is cuda, but torch {torch.__version__} finds no GPU here: give cpu" in capsys.readouterr().err
