# SPDX-License-Identifier: Apache-2.0
"""What training writes for the gallery: columns, thumbnails, the log; and a gallery of such a run."""

import json
import re
from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tiny_models import make_trainer, options, rows

from open_r1_vision.gallery import write_gallery
from open_r1_vision.run_log import LOG_FILE, read_log
from open_r1_vision.trainers import VisionGRPOTrainer
from open_r1_vision.trainers.rollout_log import LogFile, RolloutLog, Thumbnails, encode_thumbnail


def kept(folder):
    """Keys and files of the thumbnails on disk, in the order of writing."""
    tables = [pq.read_table(path).to_pylist() for path in sorted(folder.glob("images_*.parquet"))]
    return [(row["key"], row["image"]) for table in tables for row in table]


def opened(content):
    return Image.open(BytesIO(content)).convert("RGB")


def close_to(image, place, colour):
    return max(abs(a - b) for a, b in zip(image.getpixel(place), colour, strict=True)) < 12


# ---- thumbnails


def test_each_image_is_kept_once(tmp_path):
    red, blue = Image.new("RGB", (30, 30), "red"), Image.new("RGB", (30, 30), "blue")
    thumbnails = Thumbnails(tmp_path / "images", 100)
    batch = [{"id": "a", "images": [red, blue]}] * 2 + [
        {"id": "b", "images": [blue.copy()]},
        {"id": "c", "images": []},
    ]
    first, again, second, none = thumbnails.add(batch)
    thumbnails.flush()
    assert first == again == [first[0], second[0]]
    assert none == []
    assert [key for key, _ in kept(tmp_path / "images")] == first
    thumbnails.add([{"images": [red]}])
    thumbnails.flush()
    assert len(list((tmp_path / "images").iterdir())) == 1


def test_rows_without_id_are_told_apart(tmp_path):
    images = [Image.new("RGB", (30, 30), colour) for colour in ("red", "blue")]
    keys = Thumbnails(tmp_path, 100).add([{"images": [image]} for image in images])
    assert keys[0] != keys[1]


def test_a_run_that_goes_on_adds_only_what_is_new(tmp_path):
    colours = ("red", "green", "blue")
    images = {colour: Image.new("RGB", (30, 30), colour) for colour in colours}
    for seen in (("red", "green"), ("green", "blue")):
        thumbnails = Thumbnails(tmp_path, 100)
        thumbnails.add([{"images": [images[colour]]} for colour in seen])
        thumbnails.flush()
    shown = [opened(content) for _, content in kept(tmp_path)]
    for image, colour in zip(shown, colours, strict=True):
        assert close_to(image, (15, 15), images[colour].getpixel((0, 0)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images_00000.parquet", "images_00001.parquet"]


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "CMYK", "I;16"])
def test_images_of_any_kind(mode):
    image = opened(encode_thumbnail(Image.new(mode, (60, 20)), 30))
    assert image.size == (30, 10)


def test_transparent_parts_are_white():
    image = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 20, 10))
    for given in (image, image.quantize()):
        shown = opened(encode_thumbnail(given, 64))
        assert close_to(shown, (10, 2), (0, 0, 255))
        assert close_to(shown, (10, 18), (255, 255, 255))


def test_arrays_paths_and_what_is_no_image(tmp_path, caplog):
    array = np.full((10, 20, 3), 128, dtype=np.uint8)
    assert opened(encode_thumbnail(array, 64)).size == (20, 10)
    Image.new("RGB", (12, 8)).save(tmp_path / "page.png")
    assert opened(encode_thumbnail(str(tmp_path / "page.png"), 64)).size == (12, 8)
    (tmp_path / "torn.png").write_bytes((tmp_path / "page.png").read_bytes()[:40])
    for wrong in (str(tmp_path / "torn.png"), "https://example.org/page.png", {"no": "image"}):
        assert encode_thumbnail(wrong, 64) is None
    assert "No thumbnail of" in caplog.text
    thumbnails = Thumbnails(tmp_path / "images", 64)
    assert len(thumbnails.add([{"images": [str(tmp_path / "torn.png")]}])[0]) == 1
    thumbnails.flush()
    assert kept(tmp_path / "images") == []


# ---- columns


def test_columns(tmp_path):
    log = RolloutLog(tmp_path, pixels=0)
    fact_rows = [{"source": "s", "solution": 4, "visual_facts": ["a", "b", "a."], "problem": "Is it b?"}] * 3
    columns = log.describe(fact_rows, first=3, group_size=4)
    assert columns["source"] == ["s"] * 3
    assert columns["solution"] == ["4"] * 3
    assert columns["group"] == [0, 1, 1]  # places 3, 4, 5 of groups of 4
    assert columns["facts"] == [["a"]] * 3  # b stands in the question
    assert "image_keys" not in columns
    assert RolloutLog(tmp_path, 0, leave_out_question=False).describe(fact_rows, 0, 4)["facts"] == [["a", "b"]] * 3
    assert "facts" not in log.describe([{"images": []}], 0, 1)


# ---- the log


def test_the_log_goes_on_from_a_checkpoint(tmp_path):
    def state(step, **entry):
        history = [{"step": step, **entry}] if entry else []
        return SimpleNamespace(is_world_process_zero=True, global_step=step, log_history=history)

    args, log = SimpleNamespace(output_dir=tmp_path / "run"), LogFile()
    log.on_train_begin(args, state(0), None)
    for step in (1, 2, 3):
        log.on_log(args, state(step, loss=step / 10 if step != 3 else float("nan")), None)
    assert read_log(tmp_path / "run" / LOG_FILE) == [
        {"step": 1, "loss": 0.1},
        {"step": 2, "loss": 0.2},
        {"step": 3, "loss": None},
    ]
    log.on_train_begin(args, state(2), None)  # the process was killed in step 4, the checkpoint is of step 2
    log.on_log(args, state(3, loss=0.5), None)
    assert [entry["loss"] for entry in read_log(tmp_path / "run" / LOG_FILE)] == [0.1, 0.2, 0.5]
    log.on_train_begin(args, state(0), None)
    assert read_log(tmp_path / "run" / LOG_FILE) == []
    other = SimpleNamespace(is_world_process_zero=False, global_step=1, log_history=[{"step": 1}])
    log.on_log(args, other, None)
    assert read_log(tmp_path / "run" / LOG_FILE) == []


# ---- training


def noting_reward(completions, log_extra, **columns):
    log_extra("solution", ["of the reward"] * len(completions))
    return [float(index % 2) for index in range(len(completions))]


def test_a_gallery_of_a_run(tiny_model, tmp_path):
    args = options(tmp_path, log_completions=True)
    make_trainer(VisionGRPOTrainer, tiny_model, args, rows(1, 0, 3, 1), noting_reward).train()
    table = pq.read_table(tmp_path / "completions" / "completions_00001.parquet").to_pylist()
    size = args.num_generations
    assert [row["group"] for row in table] == [index // size for index in range(len(table))]
    assert [row["id"] for row in table[:size]] == [table[0]["id"]] * size
    assert {row["solution"] for row in table} == {"of the reward"}  # a reward's own column stays
    assert [entry["step"] for entry in read_log(tmp_path / LOG_FILE) if "reward" in entry] == [1, 2]
    gallery = write_gallery(tmp_path)
    assert gallery.num_steps == 2
    assert gallery.notes == ()
    data = json.loads(re.search(r'id="data">(.*?)</script>', gallery.path.read_text(), re.DOTALL)[1])
    counts = {group["id"]: len(group["images"]) for group in data["groups"]}
    assert sum(counts.values()) == len({key for group in data["groups"] for key in group["images"]})
    assert gallery.num_images == sum(counts.values()) > 0


@pytest.mark.parametrize("with_facts", ["training", "evaluation", "neither"])
def test_an_evaluation_has_tables_of_its_own(tiny_model, tmp_path, with_facts):
    """In TRL they stand among training's rows in training's file, and other columns stop the run or go astray."""
    train, held_out = rows(1, 0, 3, 1), rows(1, 1, 1).map(lambda row: {"id": "held-out-" + row["id"]})
    facts = [["There is a cat."]]
    if with_facts == "training":
        train = train.add_column("visual_facts", facts * 4)
    elif with_facts == "evaluation":
        held_out = held_out.add_column("visual_facts", facts * 3)
    settings = {"per_device_train_batch_size": 8, "per_device_eval_batch_size": 4}
    args = options(tmp_path, log_completions=True, eval_strategy="steps", eval_steps=1, **settings)
    trainer = make_trainer(VisionGRPOTrainer, tiny_model, args, train, eval_dataset=held_out)
    for run in (trainer.train, trainer.evaluate):
        run()
        for step in (1, 2):
            name = f"{step:05d}.parquet"
            of_training = pq.read_table(tmp_path / "completions" / f"completions_{name}").to_pylist()
            assert sorted(row["id"] for row in of_training) == [f"row-{index // 2}" for index in range(8)]
            of_evaluation = pq.read_table(tmp_path / "completions" / f"evaluation_{name}").to_pylist()
            assert sorted(row["id"] for row in of_evaluation) == [f"held-out-row-{index // 2}" for index in range(6)]
            assert {"facts" in row for row in of_training} == {with_facts == "training"}
            assert {"facts" in row for row in of_evaluation} == {with_facts == "evaluation"}
    assert len(list((tmp_path / "completions").iterdir())) == 4
    assert write_gallery(tmp_path).num_steps == 2


def test_images_can_be_left_out(tiny_model, tmp_path):
    args = options(tmp_path, log_completions=True, max_steps=1, log_image_size=0)
    make_trainer(VisionGRPOTrainer, tiny_model, args, rows(1, 1)).train()
    assert not (tmp_path / "rollout_images").exists()
    assert "kept no images" in write_gallery(tmp_path).notes[0]
    with pytest.raises(ValueError, match="log_image_size is -1"):
        options(tmp_path, log_image_size=-1)


def test_nothing_is_kept_without_log_completions(tiny_model, tmp_path):
    make_trainer(VisionGRPOTrainer, tiny_model, options(tmp_path, max_steps=1), rows(1, 1)).train()
    assert not (tmp_path / "rollout_images").exists()
    assert (tmp_path / LOG_FILE).is_file()
