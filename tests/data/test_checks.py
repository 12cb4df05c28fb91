# SPDX-License-Identifier: Apache-2.0
import io
import struct
import zlib

import pytest
from datasets import Dataset
from PIL import Image

from open_r1_vision.data.checks import (
    ImageLimits,
    check_columns,
    check_rows,
    count_prompt_tokens,
    inspect_rows,
)
from open_r1_vision.data.rows import features, rows_from_list, to_messages

ROW = {"problem": "How many?", "solution": "7", "problem_type": "number"}


def bomb_png(width, height):
    """A valid header that claims a huge image, in under 100 bytes."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def noise_jpeg():
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 80).save(buffer, "JPEG")
    return buffer.getvalue()


def flipped_png(png):
    data = bytearray(png())
    data[len(data) // 2] ^= 0xFF
    return bytes(data)


def found(rows, **options):
    """(row id, check) of every problem."""
    return [(problem.row_id, problem.check) for problem in check_rows(rows_from_list(rows), **options)]


def test_good_rows_with_0_1_and_3_images(png, processor):
    rows = [{**ROW, "id": str(count), "images": [png()] * count} for count in (0, 1, 3)]
    inspection = inspect_rows(rows_from_list(rows), processor=processor, max_prompt_tokens=200)
    assert inspection.problems == []
    assert inspection.num_rows == 3
    assert inspection.good_rows() == [0, 1, 2]
    assert inspection.images_per_row == [0, 1, 3]
    # an image of 56 x 56 is 4 tokens between 2 markers
    without = inspection.prompt_tokens[0]
    assert inspection.prompt_tokens == [without, without + 6, without + 18]


def test_prompt_tokens_are_counted_as_the_template_writes_them(processor):
    messages = to_messages({"problem": "hi", "images": []}, "s")
    # 3 special tokens open a turn, 2 close one, the rest are bytes: "system\ns\n", "user\nhi\n", "assistant\n"
    assert count_prompt_tokens(messages, [], processor) == 3 + 2 + len("system\ns\n" + "user\nhi\n" + "assistant\n")


@pytest.mark.parametrize(
    ("make", "check", "message"),
    [
        (lambda png: b"junk", "image unreadable", "UnidentifiedImageError"),
        (lambda png: b"", "image unreadable", "UnidentifiedImageError"),
        (flipped_png, "image unreadable", ""),
        (lambda png: png()[:60], "image unreadable", ""),
        (lambda png: noise_jpeg()[:-300], "image unreadable", "truncated"),
        (lambda png: png(1, 1), "image too small", "1 x 1 has a side under 28"),
        (lambda png: png(27, 200), "image too small", "27 x 200"),
        (lambda png: png(28, 5601), "image too narrow", "28 x 5601"),
        (lambda png: bomb_png(100_000, 100_000), "image too large", ""),
        (lambda png: bomb_png(10_000, 9_000), "image too large", "10000 x 9000 is more than 89478485"),
        (lambda png: "/no/such.png", "image unreadable", "No such file"),
        (lambda png: "https://example.org/a.png", "image unreadable", "download it"),
    ],
)
def test_bad_image_is_a_finding_of_its_row(png, processor, make, check, message):
    rows = [{**ROW, "id": "a"}, {**ROW, "id": "b", "images": [png(), make(png)]}, {**ROW, "id": "c", "image": png()}]
    inspection = inspect_rows(rows_from_list(rows), processor=processor)
    (problem,) = inspection.problems
    assert (problem.row_id, problem.check, problem.index) == ("b", check, 1)
    assert "image 2 of 2" in problem.message
    assert message in problem.message
    assert inspection.good_rows() == [0, 2]
    assert len(inspection.prompt_tokens) == 2


def test_null_image_in_a_list():
    dataset = Dataset.from_dict(
        {"id": ["a"], "images": [[None]], "source": ["s"], **{name: [value] for name, value in ROW.items()}},
        features=features([]),
    )
    assert [problem.check for problem in check_rows(dataset)] == ["image unreadable"]


def test_image_limits(png):
    rows = [{**ROW, "image": png(20, 20)}]
    assert found(rows, limits=ImageLimits(min_side=20)) == []
    assert found(rows, limits=ImageLimits(min_side=1, max_pixels=399)) == [("rows-0", "image too large")]


@pytest.mark.parametrize(
    ("change", "checks"),
    [
        ({"problem": " "}, ["empty column"]),
        ({"problem": None}, ["empty column"]),
        ({"solution": None}, ["empty column"]),
        ({"problem": "<image> what?"}, ["image markers"]),
        ({"problem": "<video> what?"}, ["image markers"]),
        ({"problem_type": "OCR"}, ["problem type"]),
        ({"solution": "<answer>7</answer>"}, ["gold markup"]),
        ({"solution": r"it is \boxed{7}"}, ["gold markup"]),
        ({"solution": "E", "problem_type": "choice", "problem": "Which? (A) cat (B) dog"}, ["gold fails itself"]),
        ({"solution": "B", "problem_type": "choice", "problem": "Which? (A) cat (B) dog"}, []),
        (
            {"problem": "<image> what?", "solution": "", "problem_type": "OCR"},
            ["empty column", "problem type", "image markers"],
        ),
    ],
)
def test_row_checks(change, checks):
    assert found([{**ROW, **change}]) == [("rows-0", check) for check in checks]


def test_duplicate_ids_name_the_first_row():
    problems = check_rows(rows_from_list([{**ROW, "id": row_id} for row_id in "abaa"]))
    assert [(problem.row_id, problem.index, problem.message) for problem in problems] == [
        ("a", 2, "row 0 has this id too"),
        ("a", 3, "row 0 has this id too"),
    ]


def test_columns_of_the_recipe_must_hold_something():
    rows = [{**ROW, "visual_facts": ["x"], "level": 0}, {**ROW, "level": 1}, {**ROW, "visual_facts": ["y"]}]
    assert found(rows) == []
    # but for images and the lists of the schema: a row without facts is one that a reward leaves out
    assert found(rows, required_columns=["visual_facts", "level", "images"]) == [("rows-2", "empty column")]


def test_missing_column_names_who_needs_it():
    dataset = rows_from_list([ROW])
    check_columns(dataset, {"accuracy_reward": ["solution", "problem_type"], "nothing": []})
    with pytest.raises(
        ValueError, match=r"facts_reward needs 'visual_facts', 'weight'\. It has 'id', 'images', 'problem'"
    ):
        check_columns(dataset, {"accuracy_reward": ["solution"], "facts_reward": ["id", "visual_facts", "weight"]})
    with pytest.raises(ValueError, match="the recipe needs 'visual_facts'"):
        check_rows(dataset, required_columns=["visual_facts"])
    with pytest.raises(ValueError, match="needs 'problem_type'"):
        check_rows(dataset.remove_columns("problem_type"))


def test_prompt_too_long_after_the_processor(png, processor):
    rows = [
        {**ROW, "id": "text"},
        {**ROW, "id": "small", "image": png()},
        {**ROW, "id": "large", "image": png(560, 560)},
    ]
    dataset = rows_from_list(rows)
    text, small, large = inspect_rows(dataset, processor=processor).prompt_tokens
    assert large - text == 2 + 20 * 20
    (problem,) = check_rows(dataset, processor=processor, max_prompt_tokens=small)
    assert (problem.row_id, problem.check) == ("large", "prompt too long")
    assert f"{large} tokens" in problem.message


def test_the_system_prompt_counts(processor):
    dataset = rows_from_list([ROW])
    (short,) = inspect_rows(dataset, processor=processor, system_prompt="s").prompt_tokens
    (long,) = inspect_rows(dataset, processor=processor, system_prompt="s" * 11).prompt_tokens
    assert long == short + 10


@pytest.mark.parametrize("num_images", [0, 1])
def test_an_image_token_in_the_text(png, processor, num_images):
    # on stock transformers 5.17 it raises StopIteration beside an image, and passes unseen in a row of text
    rows = [{**ROW, "problem": "<|image_pad|> what?", "images": [png()] * num_images}, ROW]
    assert found(rows, processor=processor) == [("rows-0", "image token")]


def test_a_prompt_that_the_processor_refuses(png, processor):
    # Qwen's processors refuse a ratio of over 200
    rows = [{**ROW, "image": png(28, 5700)}, ROW]
    limits = ImageLimits(max_aspect_ratio=1000)
    problems = check_rows(rows_from_list(rows), processor=processor, limits=limits)
    assert [(problem.row_id, problem.check) for problem in problems] == [("rows-0", "prompt refused")]
    assert "ValueError: absolute aspect ratio" in problems[0].message


def test_a_column_that_no_row_fills_is_like_a_missing_one():
    empty = rows_from_list([{**ROW, "key_words": []}, {**ROW, "id": "b", "key_words": []}])
    with pytest.raises(ValueError, match="key_words_reward needs 'key_words', which is empty in each of the 2 rows"):
        check_columns(empty, {"key_words_reward": ["key_words"]})
    check_columns(empty, {"accuracy_reward": ["images", "solution"]})
    check_columns(
        rows_from_list([{**ROW, "key_words": []}, {**ROW, "id": "b", "key_words": ["x"]}]), {"a": ["key_words"]}
    )
