# SPDX-License-Identifier: Apache-2.0
import base64
import logging
import subprocess
import sys

import numpy as np
import pytest
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as PILImage
from trl.data_utils import prepare_multimodal_messages

from open_r1_vision.data import rows
from open_r1_vision.data.rows import add_prompts, count_images, normalise_rows, rows_from_list, to_messages


def text(value):
    return {"type": "text", "text": value}


def user_content(problem, num_images):
    (message,) = to_messages({"id": "r", "problem": problem, "images": [None] * num_images})
    return message["content"]


def colours(dataset):
    return [[image.convert("RGB").getpixel((0, 0)) for image in row["images"]] for row in dataset]


def test_imports_neither_torch_nor_transformers():
    code = (
        "import sys\n"
        "from open_r1_vision.data import checks, loading, rows\n"
        "heavy = {'torch', 'transformers', 'vllm', 'trl'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_rows_from_list_fills_the_schema(caplog):
    dataset = rows_from_list(
        [
            {"problem": "How many?", "solution": 7, "image": PILImage.new("RGB", (30, 30), "red"), "level": 1},
            {"problem": "Where?", "solution": r"\boxed{Paris}", "id": 5, "source": "geo", "level": "hard"},
            {"problem": "Why?", "solution": "rain", "problem_type": "free_form", "visual_facts": ["wet"]},
        ],
        source="mine",
    )
    assert dataset.features["images"] == List(Image())
    table = dataset.remove_columns("images").to_dict()
    assert table == {
        "id": ["mine-0", "5", "mine-2"],
        "problem": ["How many?", "Where?", "Why?"],
        "solution": ["7", "Paris", "rain"],
        "problem_type": ["number", "text", "free_form"],
        "source": ["mine", "geo", "mine"],
        "visual_facts": [[], [], ["wet"]],
        "level": [1, "hard", None],
    }
    assert colours(dataset) == [[(255, 0, 0)], [], []]
    assert "2 rows have no `problem_type`; inferred from the gold: number 1, text 1" in caplog.text


def test_every_form_of_an_image(tmp_path, png):
    (tmp_path / "red.png").write_bytes(png())
    forms = [
        png(),
        {"bytes": png(), "path": "elsewhere.png"},
        {"bytes": None, "path": "red.png"},
        "red.png",
        tmp_path / "red.png",
        "data:image/png;base64," + base64.b64encode(png()).decode(),
        np.full((30, 30, 3), (255, 0, 0), dtype=np.uint8),
        PILImage.new("RGB", (30, 30), "red"),
    ]
    dataset = rows_from_list([{"problem": "q", "solution": "1", "images": forms}], folder=tmp_path)
    assert colours(dataset) == [[(255, 0, 0)] * len(forms)]


def test_the_path_beside_bytes_is_not_read(tmp_path, png, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "0.png").write_bytes(png(colour="blue"))
    dataset = rows_from_list([{"problem": "q", "solution": "1", "image": {"bytes": png(), "path": "0.png"}}])
    assert colours(dataset) == [[(255, 0, 0)]]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"images": [7]}, "given as '7', a int"),
        ({"images": [{"url": "x"}]}, "a dict"),
        ({"images": ["clip.MP4"]}, "is a video"),
        ({"images": ["data:image/png,abc"]}, "it is not base64"),
        ({"images": ["data:image/png;base64,%%"]}, "`data:` URL"),
        ({"video": "clip.mp4"}, "Row 0 has a video in column 'video'"),
        ({"image": "a.png", "images": ["b.png"]}, "both `image` and `images`"),
        ({"solution": ["7", "8"]}, "Row 0: `solution` is"),
    ],
)
def test_rows_that_cannot_be(row, message):
    with pytest.raises(ValueError, match=message):
        rows_from_list([{"problem": "q", "solution": "1", **row}])


@pytest.mark.parametrize("missing", ["problem", "solution"])
def test_missing_column(missing):
    row = {"question": "q", "problem": "p", "solution": "s"}
    del row[missing]
    with pytest.raises(ValueError, match=f"has the columns .*question.*, but no '{missing}'"):
        rows_from_list([row])
    with pytest.raises(ValueError, match=f"but no '{missing}'"):
        normalise_rows(Dataset.from_list([row]))


def test_no_rows():
    with pytest.raises(ValueError, match="holds no rows"):
        rows_from_list([])
    with pytest.raises(ValueError, match="holds no rows"):
        normalise_rows(Dataset.from_dict({"problem": [], "solution": []}))


def raw(images, feature, column="images"):
    features = Features({"problem": Value("string"), "solution": Value("string"), column: feature})
    rows = {"problem": ["q"] * len(images), "solution": ["1"] * len(images), column: images}
    return Dataset.from_dict(rows, features=features)


def test_normalise_rows_from_other_columns(tmp_path, png, caplog):
    (tmp_path / "red.png").write_bytes(png())
    image = {"bytes": png(), "path": None}
    red = (255, 0, 0)
    single = raw([image, None], Image(), "image")
    cases = [
        (single, [[red], []]),
        (single.select([1, 0]), [[], [red]]),
        (raw([[image, image, image], None, []], List(Image())), [[red] * 3, [], []]),
        (raw([[image], [None]], List(Image())), [[red], []]),
        (raw([[image]], List(Image(decode=False))), [[red]]),
        (raw([[image]], List({"bytes": Value("binary"), "path": Value("string")})), [[red]]),
        (raw(["red.png"], Value("string"), "image"), [[red]]),
        (raw([["red.png", "red.png"]], List(Value("string"))), [[red, red]]),
        (raw([png()], Value("binary"), "image"), [[red]]),
        (raw([None], Value("null"), "image"), [[]]),
        (Dataset.from_dict({"problem": ["q"], "solution": ["1"]}), [[]]),
    ]
    for dataset, expected in cases:
        normal = normalise_rows(dataset, folder=tmp_path)
        assert normal.column_names == ["id", "images", "problem", "solution", "problem_type", "source"]
        assert normal.features["images"] == List(Image())
        assert colours(normal) == expected


def test_normalise_rows_is_idempotent_and_keeps_other_columns(png):
    row = {"problem": "q", "solution": "1", "images": [png()], "level": 3, "key_words": ["a"], "problem_type": "text"}
    dataset = rows_from_list([row, {**row, "id": "x"}])
    again = normalise_rows(dataset, source="other")
    assert again.features == dataset.features
    assert again.remove_columns("images").to_dict() == dataset.remove_columns("images").to_dict()
    # a list of images is handed on, not rewritten
    assert again.data.column("images").chunk(0).equals(dataset.data.column("images").chunk(0))


def test_a_broken_image_passes_through():
    dataset = normalise_rows(raw([[{"bytes": b"junk", "path": None}]], List(Image())))
    assert to_messages({**dataset.select_columns(["id", "problem"])[0], "images": [None]})
    assert add_prompts(dataset).num_rows == 1


def test_videos_are_refused_and_an_empty_video_column_is_dropped(caplog):
    base = {"problem": ["q", "q"], "solution": ["1", "1"]}
    with pytest.raises(ValueError, match="Row 1 has a video in column 'videos'"):
        normalise_rows(Dataset.from_dict({**base, "videos": [[], ["clip.mp4"]]}))
    assert "video" not in normalise_rows(Dataset.from_dict({**base, "video": [None, None]})).column_names


def test_image_and_images_columns_together():
    dataset = Dataset.from_dict({"problem": ["q"], "solution": ["1"], "image": ["a.png"], "images": [["b.png"]]})
    with pytest.raises(ValueError, match="both the columns `image` and `images`"):
        normalise_rows(dataset)


@pytest.mark.parametrize(
    ("problem", "num_images", "content"),
    [
        ("Why?", 0, [text("Why?")]),
        ("Why?", 2, [{"type": "image"}, {"type": "image"}, text("Why?")]),
        ("<image>\nWhy?", 1, [{"type": "image"}, text("\nWhy?")]),
        ("Is <image> in <image>?", 2, [text("Is "), {"type": "image"}, text(" in "), {"type": "image"}, text("?")]),
        ("<image><image>", 2, [{"type": "image"}, {"type": "image"}]),
    ],
)
def test_to_messages_places_the_images(problem, num_images, content):
    assert user_content(problem, num_images) == content


@pytest.mark.parametrize(("problem", "num_images"), [("<image>", 0), ("<image> <image> q", 1), ("<image> q", 3)])
def test_to_messages_counts_the_markers(problem, num_images):
    with pytest.raises(ValueError, match=rf"Row 'r'.* {problem.count('<image>')} <image> .* {num_images} images"):
        user_content(problem, num_images)


TEMPLATE = "Look.\n{problem}\nUse a box: \\boxed{}."


@pytest.mark.parametrize(
    ("problem", "num_images", "content"),
    [
        ("Why?", 0, [text("Look.\nWhy?\nUse a box: \\boxed{}.")]),
        ("Why?", 1, [{"type": "image"}, text("Look.\nWhy?\nUse a box: \\boxed{}.")]),
        ("<image> Why?", 1, [text("Look.\n"), {"type": "image"}, text(" Why?\nUse a box: \\boxed{}.")]),
        # once, and as it is
        ("What is {problem}?", 0, [text("Look.\nWhat is {problem}?\nUse a box: \\boxed{}.")]),
        (r"\1 \g<0>", 0, [text("Look.\n\\1 \\g<0>\nUse a box: \\boxed{}.")]),
    ],
)
def test_templates_of_the_user_message(problem, num_images, content):
    row = {"id": "r", "problem": problem, "images": [None] * num_images}
    system, user = to_messages(row, "Be brief.", TEMPLATE)
    assert (system["content"], user["content"]) == ([text("Be brief.")], content)
    dataset = rows_from_list(
        [{"problem": problem, "solution": "1", "images": [PILImage.new("RGB", (30, 30))] * num_images}]
    )
    (filled,) = add_prompts(dataset, "Be brief.", TEMPLATE)["prompt"]
    kept = [{name: value for name, value in part.items() if value is not None} for part in filled[-1]["content"]]
    assert kept == content


def test_a_marker_may_stand_in_the_template():
    (message,) = to_messages({"problem": "Why?", "images": [None]}, user_prompt="{problem} <image>")
    assert message["content"] == [text("Why? "), {"type": "image"}]
    with pytest.raises(ValueError, match="2 <image> markers, but `images` holds 1 images"):
        to_messages({"problem": "<image> Why?", "images": [None]}, user_prompt="{problem} <image>")


def test_a_template_without_the_problem():
    with pytest.raises(ValueError, match="'Look.' has no {problem}: write it in where that text goes"):
        to_messages({"problem": "Why?", "images": []}, user_prompt="Look.")


def test_to_messages_refuses_videos():
    with pytest.raises(ValueError, match="Row 'r'.*<video> marker"):
        user_content("<video> Why?", 0)


@pytest.mark.parametrize("system_prompt", [None, "Look first."])
def test_prompts_are_what_trl_fills(png, system_prompt):
    dataset = rows_from_list(
        [
            {"problem": "a", "solution": "1", "images": []},
            {"problem": "b", "solution": "1", "images": [png()]},
            {"problem": "c<image>d<image>e<image>", "solution": "1", "images": [png(), png(), png(colour="blue")]},
        ]
    )
    with_prompts = add_prompts(add_prompts(dataset.select([2, 0, 1]), "replaced"), system_prompt)
    assert count_images(with_prompts) == [3, 0, 1]
    for row in with_prompts:
        filled = prepare_multimodal_messages(row["prompt"], row["images"])
        assert [message["role"] for message in filled] == ["system"] * bool(system_prompt) + ["user"]
        placed = [part["image"] for part in filled[-1]["content"] if part["type"] == "image"]
        assert [image.getpixel((0, 0)) for image in placed] == colours([row])[0]
        texts = [part["text"] for part in filled[-1]["content"] if part["type"] == "text"]
        assert "".join(texts) == row["problem"].replace("<image>", "")


def test_the_schema_names_its_columns():
    assert tuple(rows.features()) == rows.COLUMNS
    assert "key_words" not in rows.features([])


def test_given_problem_types_are_not_reported(caplog):
    with caplog.at_level(logging.WARNING):
        rows_from_list([{"problem": "q", "solution": "1", "problem_type": "math"}])
    assert not caplog.text


@pytest.mark.parametrize("value", ["First this, then that.", ["One.", 3], [None]])
def test_steps_that_are_no_list_of_texts(value):
    """One text in place of a list would be a single step, and its row without any hint."""
    row = {"problem": "q", "solution": "1", "problem_type": "number"}
    with pytest.raises(ValueError, match="Row 'rows-0': `reasoning_steps` is .* must be a list of texts. Split it"):
        rows_from_list([{**row, "reasoning_steps": value}])
    filled = rows_from_list([{**row, "reasoning_steps": ["One."]}, {**row, "reasoning_steps": None}])
    assert filled["reasoning_steps"][:] == [["One."], []]
