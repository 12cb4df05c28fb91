# SPDX-License-Identifier: Apache-2.0
import json
import logging

import pytest

from open_r1_vision import checkpoints
from open_r1_vision.checkpoints import MARKER, find_damage, find_last_whole, list_checkpoints, mark_complete, rotate


def save(output_dir, step, whole=True):
    folder = output_dir / f"checkpoint-{step}"
    (folder / "global_step").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "global_step" / "optim.pt").write_bytes(b"state of the optimizer")
    if whole:
        mark_complete(folder)
    return folder


def names(paths):
    return [path.name for path in paths]


def test_the_marker_lists_every_file_with_its_size(tmp_path):
    folder = save(tmp_path, 3)
    assert json.loads((folder / MARKER).read_text()) == {"global_step/optim.pt": 22, "model.safetensors": 7}
    assert find_damage(folder) is None
    assert sorted(names(folder.iterdir())) == sorted([MARKER, "global_step", "model.safetensors"])


def test_marking_again(tmp_path):
    folder = save(tmp_path, 3)
    (folder / "extra.json").write_text("{}")
    mark_complete(folder)
    assert json.loads((folder / MARKER).read_text())["extra.json"] == 2
    assert find_damage(folder) is None


def lose(folder):
    (folder / "model.safetensors").unlink()


def shorten(folder):
    (folder / "global_step" / "optim.pt").write_bytes(b"state")


def tear_marker(folder):
    (folder / MARKER).write_text('{"model.safe')


def unmark(folder):
    (folder / MARKER).unlink()


@pytest.mark.parametrize(
    ("tear", "damage"),
    [
        (lose, "model.safetensors is missing"),
        (shorten, "global_step/optim.pt has 5 bytes instead of 22"),
        (tear_marker, "COMPLETE.json can't be read"),
        (unmark, "the run ended while it was being saved"),
    ],
)
def test_a_torn_checkpoint_is_named_and_skipped(tmp_path, caplog, tear, damage):
    save(tmp_path, 2)
    torn = save(tmp_path, 10)
    tear(torn)
    assert find_damage(torn) == damage
    with caplog.at_level(logging.WARNING):
        assert find_last_whole(tmp_path) == tmp_path / "checkpoint-2"
    assert caplog.messages == [f"Skipping the torn checkpoint {torn}: {damage}."]


def test_a_kill_while_marking_leaves_a_torn_checkpoint(tmp_path, monkeypatch):
    def kill(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "_flush", kill)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 1)
    assert find_damage(tmp_path / "checkpoint-1") is not None


def test_only_the_main_process_warns(tmp_path, caplog, monkeypatch):
    save(tmp_path, 1, whole=False)
    monkeypatch.setenv("RANK", "1")
    assert find_last_whole(tmp_path) is None
    assert not caplog.messages


def test_steps_are_numbers(tmp_path):
    for step in (9, 100, 20):
        save(tmp_path, step)
    for other in ("checkpoint-best", "checkpoint-1.tmp", "old-checkpoint-5"):
        (tmp_path / other).mkdir()
    assert names(list_checkpoints(tmp_path)) == ["checkpoint-9", "checkpoint-20", "checkpoint-100"]
    assert find_last_whole(tmp_path) == tmp_path / "checkpoint-100"


def test_nothing_to_find(tmp_path):
    assert list_checkpoints(tmp_path / "not there") == []
    assert find_last_whole(tmp_path) is None


@pytest.mark.parametrize(
    ("limit", "best", "left"),
    [
        (None, None, [1, 2, 3, 4]),
        (0, None, [1, 2, 3, 4]),
        (1, None, [4]),
        (2, None, [2, 4]),
        (3, None, [1, 2, 4]),
        (9, None, [1, 2, 4]),
        (1, 1, [1, 4]),
        (2, 1, [1, 4]),
        (2, 2, [2, 4]),
        (1, 4, [4]),
        # a torn one is no use, even as the best
        (1, 3, [4]),
    ],
)
def test_rotation(tmp_path, limit, best, left):
    for step in (1, 2, 3, 4):
        save(tmp_path, step, whole=step != 3)
    (tmp_path / "final").mkdir()
    rotate(tmp_path, limit, tmp_path / f"checkpoint-{best}" if best else None)
    assert names(list_checkpoints(tmp_path)) == [f"checkpoint-{step}" for step in left]
    assert (tmp_path / "final").is_dir()
