# SPDX-License-Identifier: Apache-2.0
"""Seeds of training runs as samples of held-out rows: `eval/pairs.py --records`, then compare."""

import importlib.util
from pathlib import Path

import pytest

from open_r1_vision.compare import compare_runs
from open_r1_vision.held_out import Sample, write_samples

SCRIPT = Path(__file__).parents[2] / "eval" / "pairs.py"


def load_main():
    spec = importlib.util.spec_from_file_location("eval_pairs", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def write_seed(folder, scores, ids=None):
    names = ids or [f"row-{place}" for place in range(len(scores))]
    samples = [Sample(name, "text", score, None, None, None, None) for name, score in zip(names, scores, strict=True)]
    write_samples(folder, 5, samples)
    return str(folder)


@pytest.fixture
def words(tmp_path):
    """Two seeds of each on four rows."""
    first = [write_seed(tmp_path / f"a{seed}", scores) for seed, scores in enumerate([[1, 0, 0, 0], [1, 1, 0, 0]])]
    second = [write_seed(tmp_path / f"b{seed}", scores) for seed, scores in enumerate([[1, 1, 1, 0], [1, 1, 0, 0]])]
    records = str(tmp_path / "records")
    return ["--first", *first, "--second", *second, "--measure", "accuracy", "--records", records]


def test_a_row_counts_once(words, tmp_path):
    load_main()(words)
    comparison = compare_runs([tmp_path / "records" / "first", tmp_path / "records" / "second"], pass_at=[])
    # records of a training run don't hold its prompts
    (note,) = comparison.notes
    assert "how first and second put the items is not known" in note
    (table,) = comparison.tables
    result = table.pairs[0].result
    # means over seeds: 1, 1/2, 0, 0, then 1, 1, 1/2, 0; of the signs of two halves half give as much
    assert (table.benchmark, result.num_items, result.difference) == ("held_out_accuracy", 4, 0.25)
    assert (result.test, result.p_value) == ("permutation", pytest.approx(0.5))


def test_records_are_not_replaced(words):
    load_main()(words)
    with pytest.raises(SystemExit, match="held_out_accuracy holds records already: name another folder"):
        load_main()(words)


def test_seeds_on_different_rows(words, tmp_path):
    write_seed(tmp_path / "a1", [1, 1, 0, 0], ids=[*"wxyz"])
    with pytest.raises(SystemExit, match="The seeds of .*a0 were evaluated on different rows"):
        load_main()(words)
