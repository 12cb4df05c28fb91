# SPDX-License-Identifier: Apache-2.0
"""Which runs can be compared, and what is said of those that differ in more than the model."""

import re

import pytest
from run_folders import write_run

from open_r1_vision.compare import compare_runs


@pytest.fixture
def write(tmp_path):
    """`write(name, scores, ...)`: a run of mathvista; gives its folder."""

    def write(name, scores, benchmark="mathvista", **options):
        return write_run(tmp_path / name, benchmark, scores, **options)

    return write


def test_different_items(write):
    a = write("a", [1.0] * 6)
    b = write("b", [1.0, 0.0, 1.0], indexes=["0", "1", "x"])
    message = (
        "a and b were not evaluated on the same items of mathvista: not in b: 4 of the 6 items of a (2, 3, 4, …); not "
        "in a: 1 of the 3 items of b (x). Evaluate both on the same data, or set --intersect to compare the 2 that "
        "they share."
    )
    with pytest.raises(ValueError) as error:
        compare_runs([a, b])
    assert str(error.value) == message
    comparison = compare_runs([a, b], intersect=True)
    (table,) = comparison.tables
    assert table.pairs[0].result.num_items == 2
    assert comparison.notes == (
        "mathvista: only the 2 items that all runs have finished are compared; left out: 4 of a's 6, 1 of b's 3",
    )


def test_items_are_paired_by_index(write):
    a = write("a", [1.0, 0.0, 0.0], indexes=["x", "y", "z"])
    b = write("b", [0.0, 0.0, 1.0], indexes=["z", "y", "x"])
    result = compare_runs([a, b]).tables[0].pairs[0].result
    assert (result.gained, result.lost) == (0, 0)


def test_another_gold_answer_is_another_item(write):
    a = write("a", [1.0, 0.0, 1.0], golds=["1", "2", "3"])
    b = write("b", [1.0, 1.0, 1.0], golds=["1", "2", "4"])
    with pytest.raises(ValueError, match=r"with another gold answer: 1 \(2\).*the 2 that they share"):
        compare_runs([a, b])
    assert compare_runs([a, b], intersect=True).tables[0].pairs[0].result.gained == 1


def test_nothing_in_common(write):
    a, b = write("a", [1.0]), write("b", [1.0], indexes=["x"])
    with pytest.raises(ValueError, match="Evaluate both on the same data.$"):
        compare_runs([a, b])
    with pytest.raises(ValueError, match="The runs share no item of mathvista .* were a and b evaluated on the same"):
        compare_runs([a, b], intersect=True)


def test_unfinished(write):
    a = write("a", [[1.0, 0.0]] * 4)
    b = write("b", [[1.0, 0.0], [1.0], [1.0, 1.0]], settings={"num_items": 4, "num_samples": 2})
    message = (
        "b is unfinished on mathvista: 5 of 8 samples are there, too few of 1 of the items (1). Give its "
        "evaluation command again, or set --intersect to compare the items that are finished."
    )
    with pytest.raises(ValueError) as error:
        compare_runs([a, b])
    assert str(error.value) == message
    comparison = compare_runs([a, b], intersect=True)
    assert comparison.tables[0].pairs[0].result.num_items == 2
    assert "left out: 2 of a's 4, 1 of b's 3" in comparison.notes[0]


def test_different_benchmarks(write):
    a = [write("a", [1.0, 0.0], benchmark) for benchmark in ("mathvista", "mmstar")][0]
    b = write("b", [1.0, 0.0])
    c = write("c", [1.0, 0.0], "emma")
    with pytest.raises(
        ValueError, match="a has mathvista, mmstar; b has mathvista. Set --benchmarks mathvista, or --int"
    ):
        compare_runs([a, b])
    for options in ({"intersect": True}, {"benchmarks": ["mathvista"]}):
        assert [table.benchmark for table in compare_runs([a, b], **options).tables] == ["mathvista"]
    with pytest.raises(ValueError, match="no benchmark in common: b has mathvista; c has emma. Evaluate the same one"):
        compare_runs([b, c], intersect=True)
    with pytest.raises(ValueError, match="Not every run has mmstar: a has mmstar; b has none of them"):
        compare_runs([a, b], benchmarks=["mmstar"])


def test_what_was_not_asked_for_may_be_broken(write):
    folders = [write(name, [1.0, 0.0]) for name in "ab"]
    write("a", [], "mmstar")
    with pytest.raises(ValueError, match="mmstar/samples.jsonl holds no samples"):
        compare_runs(folders)
    assert len(compare_runs(folders, benchmarks=["mathvista"]).tables) == 1


def test_clusters_that_contradict(write):
    a, b = write("a", [1.0, 0.0], clusters=["q", "q"]), write("b", [1.0, 0.0], clusters=["q", "r"])
    with pytest.raises(ValueError, match="Item 1 of mathvista has the clusters q, r in different runs"):
        compare_runs([a, b])
    # imported predictions may know of none
    c = write("c", [1.0, 1.0])
    assert compare_runs([a, c]).tables[0].pairs[0].result.num_clusters == 1


def test_groups_of_one_source(write):
    # two questions in two turns about one image, and one about another
    clusters = ["image 0 / q", "image 0 / q", "image 0 / r", "image 0 / r", "s", "s"]
    a = write("a", [1.0, 1.0, 0.0, 1.0, 1.0, 1.0], clusters=clusters)
    b = write("b", [1.0, 0.0, 1.0, 1.0, 0.0, 1.0], clusters=clusters)
    result = compare_runs([a, b]).tables[0].pairs[0].result
    assert (result.num_items, result.num_clusters) == (6, 2)
    # q, r and s are wholes: right 1, 0, 1 and 0, 1, 0; q and r are still about one image
    whole = compare_runs([a, b], whole_clusters=True).tables[0].pairs[0].result
    assert (whole.num_items, whole.num_clusters, whole.gained, whole.lost) == (3, 2, 1, 2)
    # the image of r was not known to be another question's where r was evaluated alone
    c = write("c", [1.0] * 6, clusters=["q", "q", "r", "r", "s", "s"])
    assert compare_runs([c, b]).tables[0].pairs[0].result.num_clusters == 2


@pytest.mark.parametrize(
    ("settings", "changes", "note"),
    [
        (False, {}, "b has no run.json: whether it is finished, and on which data, is not known"),
        ({"data": {"md5": "f" * 32}}, {}, r"a and b read different data files \(md5 00000000, ffffffff\)"),
        ({"data_md5": "f" * 32, "data": "here"}, {}, r"different data files \(md5 00000000, ffffffff\)"),
        (
            {},
            {"prompt_style": "method"},
            "other prompt styles: a in benchmark, b in method style; part of a difference",
        ),
        (
            {},
            {"prompt_sha": lambda place, _: f"sha of {max(place, 1)}"},
            r"a and b put 1 of 2 items differently \(other text or images\)",
        ),
        (
            {"prompt_style": None},
            {"prompt_sha": ""},
            "^mathvista: how b put the items is not known, as always of imported runs and of training's own",
        ),
        ({}, {"judged_by": "llm"}, "a model judged 2 of 2 samples of b, none of a"),
        (
            {"judge": {"model": "gpt", "seed": 0}},
            {"judged_by": lambda place, _: ("rule", "none")[place]},
            r"^mathvista: 1 answer of b has no verdict \(the judge failed\) and keeps the rule's score",
        ),
        (
            {},
            {"judged_by": "none", "status": lambda place, _: ("ok", "no_answer")[place]},
            "^mathvista: 2 answers of b have no verdict .* and keep the rule's score: give its evaluation command ag",
        ),
        ({"reasoner.model": "r1"}, {}, r"a and b differ in reasoner.model \(qwq, r1\)$"),
        ({"extra_body": {"seed": 7}}, {}, r"a and b differ in extra_body.seed \(3, 7\)$"),
        ({"max_tokens": 512, "model": "other"}, {}, r"a and b differ in max_tokens \(2048, 512\)$"),
        ({"system_prompt": "x" * 99}, {}, r"differ in system_prompt \(none, x{39}…\)"),
    ],
)
def test_what_else_differs_is_said(write, settings, changes, note):
    known = {"max_tokens": 2048, "system_prompt": "none", "reasoner.model": "qwq", "extra_body": {"seed": 3}}
    a = write("a", [1.0, 0.0], settings=known)
    b = write("b", [1.0, 0.0], settings=settings, **changes)
    (found,) = compare_runs([a, b]).notes
    assert re.search(note, found)


@pytest.mark.parametrize(
    ("judge", "note"),
    [
        (
            {"model": "gpt", "max_tokens": 512},
            "a and b were judged by qwen and gpt: part of a difference may be the j",
        ),
        ({"model": "qwen", "max_tokens": 64}, r"the judges of a and b differ in max_tokens \(512, 64\)$"),
        (None, "which model judged b is not known: part of a difference may be the judge"),
    ],
)
def test_other_judges_are_said(write, judge, note):
    a = write("a", [1.0, 0.0], settings={"judge": {"model": "qwen", "max_tokens": 512}}, judged_by="llm")
    b = write("b", [1.0, 0.0], settings={"judge": judge}, judged_by="llm")
    (found,) = compare_runs([a, b]).notes
    assert re.search(note, found)
    c = write("c", [1.0, 0.0], settings={"judge": {"model": "qwen", "max_tokens": 512}}, judged_by="llm")
    assert compare_runs([a, c]).notes == ()


def test_equal_settings_are_not_mentioned(write):
    assert compare_runs([write("a", [1.0, 0.0]), write("b", [0.0, 0.0])]).notes == ()


def test_items_without_gold_are_said(write):
    runs = [write(name, [1.0, None], golds=["1", None]) for name in "ab"]
    assert "mathvista: without gold answer and left out: 1 of the items of a" in compare_runs(runs).notes


def test_different_numbers_of_samples_are_said(write):
    a, b = write("a", [1.0, 0.0]), write("b", [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    comparison = compare_runs([a, b])
    assert comparison.notes == (
        "mathvista: a has 1 sample of an item, b 3 samples: each item counts as the mean of its samples",
    )
    (table,) = comparison.tables
    assert table.pairs[0].result.difference == pytest.approx((2 / 3 - 1) / 2)


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        ("a", {}, "1 run can't be compared: give the folders of at least two"),
        ("", {}, "0 runs can't be compared"),
        ("aa", {}, "a is given twice: a run compared with itself says nothing"),
        ("ab", {"names": ["one"]}, "The names one don't fit 2 runs"),
        ("ab", {"names": ["one", "one"]}, "The names one, one don't fit 2 runs"),
        ("ab", {"pairs": "some"}, "There are no pairs 'some': set one of first, all"),
        ("ab", {"pass_at": [4]}, "a on mathvista: pass@4 needs at least 4 sample.s. of each item"),
        ("ab", {"whole_clusters": True}, "No items of mathvista share a source, so it has no whole clusters"),
        ("ab", {"test": "clustered"}, "mathvista, accuracy: No two items share a source"),
    ],
)
def test_bad_calls(write, names, options, message):
    folders = [write(name, [1.0, 0.0]) for name in names]
    with pytest.raises(ValueError, match=message):
        compare_runs(folders, **options)


def test_a_benchmark_twice_in_a_run(write):
    a, b = write("a", [1.0]), write("b", [1.0])
    (a / "mathvista").rename(a / "first")
    write("a", [1.0])
    with pytest.raises(ValueError, match="first and .*mathvista are both mathvista: give one of them"):
        compare_runs([a, b])
