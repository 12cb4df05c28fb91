# SPDX-License-Identifier: Apache-2.0
"""Nothing stands between the doctor's lines, whoever writes it."""

import subprocess
import sys

_NOISE = """
import logging, os, sys, warnings
from open_r1_vision.doctor.quiet import keep_quiet

with keep_quiet(len(sys.argv) == 1) as say:
    say("first")
    print("printed")
    warnings.warn("warned")
    logging.basicConfig()
    logging.warning("logged")
    os.write(1, b"compiled\\n")
    os.write(2, b"compiled\\n")
    os.system("echo child; echo child >&2")
    say("last")
logging.warning("later")  # to the stream that its handler was given
print("after")
sys.stderr.write("after\\n")
"""


def run(*words):
    result = subprocess.run([sys.executable, "-c", _NOISE, *words], capture_output=True, text=True, check=True)
    return result.stdout, result.stderr


def test_other_output_is_kept_out():
    assert run() == ("first\nlast\nafter\n", "after\n")


def test_other_output_on_request():
    out, err = run("verbose")
    assert out.splitlines().count("compiled") == 1 and "printed" in out and "child" in out
    assert "warned" in err and "logged" in err and "later" in err


def test_progress_bars_of_data_sets(ask, recipe, capsys):
    ask("--config", recipe())
    assert capsys.readouterr() == ("", "")


def test_streams_come_back_after_an_error(capfd):
    from open_r1_vision.doctor.quiet import keep_quiet

    try:
        with keep_quiet():
            raise KeyError
    except KeyError:
        sys.stdout.write("back\n")
    assert capfd.readouterr() == ("back\n", "")
