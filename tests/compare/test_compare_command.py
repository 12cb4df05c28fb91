# SPDX-License-Identifier: Apache-2.0
"""The command line on run folders: tables, files, picture, and mistakes in one line."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from run_folders import write_run

from open_r1_vision.compare import compare_runs, draw_forest, items_to_csv, to_json, to_rows
from open_r1_vision.compare.__main__ import main


@pytest.fixture
def runs(tmp_path):
    """Two runs of two benchmarks: 2 lost and 10 gained of 40 items, and four gained of ten sources of two items."""
    sources = [f"q{place // 2}" for place in range(20)]
    same = [1.0, 0.0] * 14
    scores = {
        "base": ([1.0] * 2 + [0.0] * 10 + same, [0.0] * 20),
        "grpo": ([0.0] * 2 + [1.0] * 10 + same[:-1] + ["truncated"], [1.0] * 8 + [0.0] * 12),
    }
    for name, (independent, clustered) in scores.items():
        write_run(tmp_path / name, "mathvista", independent)
        write_run(tmp_path / name, "dynamath", clustered, clusters=sources)
    return [str(tmp_path / name) for name in scores]


def test_the_command(runs, tmp_path):
    words = [sys.executable, "-m", "open_r1_vision.compare", *runs, "--output", str(tmp_path / "out")]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ, timeout=120, check=True)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    first = lines.index("mathvista, accuracy: 40 items")
    # 14 + 2 of 40 right, then 14 + 10
    assert [" ".join(line.split()) for line in lines[first + 1 : first + 7]] == [
        "run accuracy interval samples not ok, scored 0",
        "base 40.0 % [26.3, 55.4] Wilson 40 -",
        "grpo 60.0 % [44.6, 73.7] Wilson 40 1 truncated",
        "",
        "difference points gained lost p holm test sees",
        # error sqrt((12 / 40 - 0.2^2) / 39) = 0.08165, t of 39 degrees 2.022691; Holm's p: dynamath's of 0.0368 twice;
        # seen: 2.80 sqrt(0.3 / 40) = 24.3 points, and some more for t
        "grpo - base +20.0 [+3.5, +36.5] 10 2 0.0386 0.0736 exact McNemar 24.9",
    ]
    assert "dynamath, accuracy: 20 items from 10 sources" in lines
    assert any("McNemar refused: the 20 items come from 10 sources" in line for line in lines)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["comparison.csv", "comparison.json", "forest.png", "items.csv"]


def test_files(runs, tmp_path, capsys):
    out = tmp_path / "out"
    assert main([*runs, "--output", str(out), "--names", "before", "after"]) == 0
    with (out / "comparison.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["benchmark"], row["first"], row["second"]) for row in rows] == [
        ("dynamath", "before", "after"),
        ("mathvista", "before", "after"),
    ]
    assert float(rows[1]["p"]) == pytest.approx(0.0386, abs=5e-5)
    assert (rows[1]["gained"], rows[1]["lost"], rows[1]["test"], rows[1]["reason"]) == ("10", "2", "exact McNemar", "")
    found = json.loads((out / "comparison.json").read_text())
    assert found["tables"][0]["pairs"][0]["num_clusters"] == 10
    assert found["tables"][1]["runs"][1]["statuses"] == {"ok": 39, "truncated": 1}
    assert "statsmodels" in found["versions"]
    with (out / "items.csv").open(newline="", encoding="utf-8") as file:
        items = list(csv.DictReader(file))
    assert len(items) == 60
    lost = [row["index"] for row in items if (row["score before"], row["score after"]) == ("1.0", "0.0")]
    assert lost == ["0", "1"]
    with Image.open(out / "forest.png") as picture:
        assert picture.format == "PNG" and picture.width >= 1600
        colours = {colour for _, colour in picture.convert("RGB").getcolors(2**20)}
    assert (0, 0x72, 0xB2) in colours  # the intervals are there
    capsys.readouterr()
    assert main([*runs, "--output", str(out)]) == 2
    assert "holds comparison.json, comparison.csv, items.csv, forest.png of an earlier" in capsys.readouterr().err
    assert main([*runs, "--output", str(out), "--overwrite"]) == 0


def test_one_benchmark_of_each(runs):
    comparison = compare_runs([f"{run}/mathvista" for run in runs])
    assert list(comparison.tables[0].estimates) == ["base", "grpo"]
    assert [table.benchmark for table in comparison.tables] == ["mathvista"]


def test_holm_over_benchmarks_and_pairs(tmp_path):
    """Three runs on two benchmarks, each with each: six tests in one family."""
    pairs = {"mathvista": [(0, 8), (0, 6)], "mmstar": [(1, 5), (2, 4)]}
    for benchmark, (one, two) in pairs.items():
        base = [1.0] * 10 + [0.0] * 20
        for name, (lost, gained) in (("a", (0, 0)), ("b", one), ("c", two)):
            scores = [0.0] * lost + base[lost:10] + [1.0] * gained + base[10 + gained :]
            write_run(tmp_path / name, benchmark, scores)
    runs = [tmp_path / name for name in "abc"]
    rows = to_rows(compare_runs(runs, pairs="all"))
    assert [(row["first"], row["second"]) for row in rows[:3]] == [("a", "b"), ("a", "c"), ("b", "c")]
    # b and c differ in the gains beyond c's: 2 of mathvista, 1 lost more and 1 gained less of mmstar
    by_hand = [2 / 2**8, 2 / 2**6, 2 / 2**2, 0.21875, 0.6875, 2 / 2**2]
    assert [row["p"] for row in rows] == pytest.approx(by_hand)
    # sorted 6 * 0.0078, 5 * 0.03125, 4 * 0.21875, 3 * 0.5 and so on, which are 1
    assert [row["p_holm"] for row in rows] == pytest.approx([6 * 2 / 2**8, 5 * 2 / 2**6, 1.0, 4 * 0.21875, 1.0, 1.0])
    assert [row["p_holm"] for row in to_rows(compare_runs(runs[:2]))][0] == pytest.approx(2 * 2 / 2**8)


def test_pass_at_k(tmp_path):
    # right samples of 4: (0, 2), (1, 2), (4, 3)
    first = [[0.0] * 4, [1.0, 0.0, 0.0, 0.0], [1.0] * 4]
    second = [[1.0, 1.0, 0.0, 0.0], [0.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 0.0]]
    runs = [write_run(tmp_path / name, "emma", scores) for name, scores in (("a", first), ("b", second))]
    tables = {table.measure: table for table in compare_runs(runs).tables}
    assert list(tables) == ["accuracy", "pass@2", "pass@4"]
    means = {name: [share.mean for share in table.estimates.values()] for name, table in tables.items()}
    assert means["accuracy"] == pytest.approx([(0 + 1 / 4 + 1) / 3, (1 / 2 + 1 / 2 + 3 / 4) / 3])
    # 1 - C(n - c, 2) / C(4, 2): 0, 3/6, 1 and 5/6, 5/6, 1
    assert means["pass@2"] == pytest.approx([1.5 / 3, (5 / 6 + 5 / 6 + 1) / 3])
    assert means["pass@4"] == pytest.approx([2 / 3, 1.0])
    # of all samples either holds or not: right or wrong again
    assert tables["pass@4"].estimates["a"].method == "Wilson"
    assert tables["accuracy"].pairs[0].result.test == "permutation"
    assert [table.measure for table in compare_runs(runs, pass_at=[3]).tables] == ["accuracy", "pass@3"]
    assert [table.measure for table in compare_runs(runs, pass_at=[]).tables] == ["accuracy"]


def test_whole_clusters(tmp_path):
    """MMBench's circular evaluation: full marks where all rolls are right."""
    sources = [*"aaabbbcccd"]
    first = [1, 1, 1, 1, 1, 0, 0, 0, 0, 1]
    second = [1, 1, 1, 1, 1, 1, 1, 1, 0, 0]
    for name, scores in (("a", first), ("b", second)):
        write_run(tmp_path / name, "mmbench", [float(score) for score in scores], clusters=sources)
    (table,) = compare_runs([tmp_path / "a", tmp_path / "b"], whole_clusters=True).tables
    assert [share.mean for share in table.estimates.values()] == [0.5, 0.5]
    result = table.pairs[0].result
    assert (result.num_items, result.gained, result.lost, result.test) == (4, 1, 1, "exact McNemar")
    by_item = compare_runs([tmp_path / "a", tmp_path / "b"])
    assert by_item.tables[0].pairs[0].result.test == "clustered t"
    assert by_item.notes == ("mmbench: intervals and p-values from 4 sources are rough",)


def test_one_source(tmp_path):
    for name, scores in (("a", [1.0, 0.0]), ("b", [1.0, 1.0])):
        write_run(tmp_path / name, "emma", scores, clusters=["q", "q"])
    comparison = compare_runs([tmp_path / "a", tmp_path / "b"])
    assert comparison.notes == ("emma: all items come from one source, so there is neither an interval nor a p-value",)
    text = str(comparison)
    assert "b - a       +50.0   1       0     -  -     clustered t  -" in text
    draw_forest(comparison, tmp_path / "forest.png")
    assert json.loads(json.dumps(to_json(comparison), allow_nan=False))["tables"][0]["pairs"][0]["holm"] is None


def test_the_plot_of_many(runs, tmp_path):
    comparison = compare_runs(runs, names=["base", "a name that is so long that it needs a wider picture " * 3 + "$x"])
    draw_forest(comparison, tmp_path / "forest.svg")
    text = (tmp_path / "forest.svg").read_text()
    # letters are drawn, and named in comments
    for part in ("0.0736", "20 (10)", "mathvista"):
        assert f"<!-- {part} -->" in text
    with pytest.raises(ValueError, match="No 'pass@2' was compared: set the measure to one of accuracy"):
        draw_forest(comparison, tmp_path / "forest.png", "pass@2")


def test_items_with_strange_names(tmp_path):
    index = 'a "quoted", line\nwith é'
    runs = [write_run(tmp_path / name, "emma", [1.0, 0.0], indexes=[index, "2"]) for name in "ab"]
    rows = list(csv.DictReader(items_to_csv(compare_runs(runs)).splitlines(keepends=True)))
    assert rows[0]["index"] == index


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{a}"], "error: 1 run can't be compared"),
        (["{a}", "{a}/nothing"], "error: There is no folder"),
        (["{a}", "{b}", "--test", "mcnemar"], "error: dynamath, accuracy: McNemar refused: the 20 items come from 10"),
        (["{a}", "{b}", "--benchmarks", "emma"], "error: Not every run has emma"),
    ],
)
def test_mistakes_are_one_line(runs, words, message, capsys):
    assert main([word.format(a=runs[0], b=runs[1]) for word in words]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(message) and captured.err.count("\n") == 1
    assert captured.out == ""


def test_without_statsmodels(runs, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "statsmodels", None)
    assert main(runs) == 2
    assert "pip install 'open_r1_vision[eval]'" in capsys.readouterr().err


def test_the_commands_of_the_documents(tmp_path, monkeypatch, capsys):
    root = Path(__file__).parents[2]
    text, readme = ((root / path).read_text(encoding="utf-8") for path in ("docs/comparing.md", "README.md"))
    commands = [words.split() for words in re.findall(r"python -m open_r1_vision.compare (\S.*)", text + readme)]
    assert len(commands) >= 5
    monkeypatch.chdir(tmp_path)
    for words in commands:
        first_option = next((place for place, word in enumerate(words) if word.startswith("--")), len(words))
        for run in words[:first_option]:
            write_run(tmp_path / run, "emma", [[1.0, 0.0], [0.0, 0.0]])
        assert main(words) == 0, words
    assert (tmp_path / "runs" / "comparison" / "forest.png").exists()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(code, {})
    assert "emma, accuracy: 2 items" in capsys.readouterr().out
    assert (tmp_path / "forest.png").exists()
