# SPDX-License-Identifier: Apache-2.0
"""The folder of samples: locks, torn lines, other settings, and one file at the end."""

import json

import pytest

from open_r1_vision.sampling.draws import Draw
from open_r1_vision.sampling.records import SampleFolder, read_refused, read_samples

SETTINGS = {"temperature": 1.2, "seed": 0}
IDS = ["b", "a", "c"]


def draws(*keys):
    return [Draw(row_id, sample, f'{row_id}\u2028{sample}, "refused": "\n', 7) for row_id, sample in keys]


def begin(folder, rank=0, **options):
    mine = SampleFolder(folder)
    torn = mine.open({**SETTINGS, **options.pop("settings", {})}, **options)
    mine.join(rank)
    return mine, torn


def test_what_processes_wrote_becomes_one_file_in_the_order_of_the_rows(tmp_path):
    mine, torn = begin(tmp_path / "samples")
    assert torn == []
    mine.add(draws(("a", 1), ("c", 0)))
    other = SampleFolder(mine.folder)
    other.join(1)
    other.add(draws(("c", 1), ("a", 0)))
    assert not mine.merge(IDS, 2)
    other.add([], {"b": "prompt too long: 7 tokens"})
    seen: dict = {}
    assert mine.num_rows_done(seen, 2) == 3
    assert mine.merge(IDS, 2)
    assert mine.num_rows_done({}, 2) == 3
    assert sorted(path.name for path in mine.folder.iterdir()) == [".lock", "samples.jsonl", "settings.json"]
    lines = (mine.folder / "samples.jsonl").read_bytes().splitlines(keepends=True)
    assert json.loads(lines[0]) == {"id": "b", "refused": "prompt too long: 7 tokens"}
    assert list(read_samples(lines)) == draws(("a", 0), ("a", 1), ("c", 0), ("c", 1))
    held = mine.held()
    assert list(held.lines(IDS, 2)) == lines
    assert read_refused(held, IDS) == {"b": "prompt too long: 7 tokens"}
    assert [held.missing(row_id, 3) for row_id in IDS] == [[], [2], [2]]


def test_a_run_that_ended_between_merge_and_deletion_holds_nothing_twice(tmp_path):
    mine, _ = begin(tmp_path / "samples")
    mine.add(draws(("a", 0), ("c", 0), ("b", 0)))
    shard = (mine.folder / "shard-00000.jsonl").read_bytes()
    assert mine.merge(IDS, 1)
    whole = (mine.folder / "samples.jsonl").read_bytes()
    mine.close()
    (mine.folder / "shard-00000.jsonl").write_bytes(shard)
    mine, _ = begin(mine.folder)
    assert mine.merge(IDS, 1)
    assert (mine.folder / "samples.jsonl").read_bytes() == whole
    assert not (mine.folder / "shard-00000.jsonl").exists()


def test_a_torn_line_is_dropped_and_another_is_not_believed(tmp_path):
    mine, _ = begin(tmp_path / "samples")
    mine.add(draws(("a", 0), ("a", 1)))
    mine.close()
    shard = mine.folder / "shard-00000.jsonl"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-9])
    assert set(mine.held().samples) == {("a", 0)}
    mine, torn = begin(mine.folder)
    assert torn == ["shard-00000.jsonl"]
    mine.add(draws(("a", 1)))
    assert shard.read_bytes() == whole
    mine.close()
    # the merged file is read too
    (mine.folder / "samples.jsonl").write_bytes(whole[:-9])
    mine, torn = begin(mine.folder)
    assert torn == ["samples.jsonl"]
    mine.close()
    shard.write_bytes(whole.replace(b'"sample": 0', b'"sam'))
    with pytest.raises(ValueError, match="Line 1 of .*shard-00000.* is no sample .* delete that line"):
        mine.held()


def test_two_runs_do_not_share_a_folder(tmp_path):
    mine, _ = begin(tmp_path / "samples")
    with pytest.raises(ValueError, match="Another run is writing to .*: wait for it to end"):
        begin(mine.folder)
    # a process of it that outlived the main one keeps the next run out too
    other = SampleFolder(mine.folder)
    other.join(1)
    mine.close()
    with pytest.raises(ValueError, match="Another run is writing"):
        begin(mine.folder)
    other.close()
    begin(mine.folder)[0].close()


def test_other_settings_are_refused_with_what_differs(tmp_path):
    mine, _ = begin(tmp_path / "samples")
    mine.add(draws(("a", 0)))
    mine.close()
    with pytest.raises(ValueError, match=r"other settings: min_pixels: 'unset' -> 3; temperature: 1.2 -> 1.0. Go"):
        begin(mine.folder, settings={"temperature": 1.0, "min_pixels": 3})
    mine, _ = begin(mine.folder, settings={"temperature": 1.0}, overwrite=True)
    assert mine.held().samples == {}
    mine.close()
    with pytest.raises(ValueError, match=r"temperature: 1.0 -> 1.2"):
        begin(mine.folder)


def test_folders_of_others_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match="is no folder of samples, it holds thesis.tex"):
        begin(tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
