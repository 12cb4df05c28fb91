# SPDX-License-Identifier: Apache-2.0
import json
import sys

import pytest
from datasets import Dataset, DatasetDict

from open_r1_vision.data.loading import load_rows
from open_r1_vision.data.rows import rows_from_list

ROW = {"problem": "How many?", "solution": "7", "problem_type": "number"}


def make_rows(png, count=3):
    """Rows with 0, 1, 2, ... images."""
    return rows_from_list([{**ROW, "id": f"r{index}", "images": [png()] * index} for index in range(count)])


def write_json(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(row) for row in rows) if path.suffix == ".jsonl" else json.dumps(rows))
    return str(path)


def ids(dataset):
    return list(dataset["id"])


def num_images(dataset):
    return [len(images) for images in dataset["images"]]


def test_parquet_file(tmp_path, png):
    make_rows(png).to_parquet(tmp_path / "a.parquet")
    dataset = load_rows(str(tmp_path / "a.parquet"))
    assert ids(dataset) == ["r0", "r1", "r2"]
    assert num_images(dataset) == [0, 1, 2]
    assert dataset[2]["images"][1].size == (56, 56)


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
def test_json_with_paths_relative_to_the_file(tmp_path, png, name, monkeypatch):
    monkeypatch.chdir("/")
    (tmp_path / "images").mkdir()
    for colour in ("red", "blue"):
        (tmp_path / "images" / f"{colour}.png").write_bytes(png(colour=colour))
    rows = [
        {**ROW, "solution": 7, "images": ["images/red.png", "images/blue.png"], "level": 1},
        {**ROW, "solution": "7", "image": "images/blue.png", "level": "hard"},
        {**ROW, "note": "no image"},
    ]
    dataset = load_rows(write_json(tmp_path / name, rows))
    assert ids(dataset) == ["rows-0", "rows-1", "rows-2"]
    assert list(dataset["source"]) == ["rows"] * 3
    assert list(dataset["level"]) == [1, "hard", None]
    colours = [[image.convert("RGB").getpixel((0, 0)) for image in images] for images in dataset["images"]]
    assert colours == [[(255, 0, 0), (0, 0, 255)], [(0, 0, 255)], []]


def test_json_lines_in_a_json_file(tmp_path):
    (tmp_path / "a.json").write_text("\n".join(json.dumps({**ROW, "id": row_id}) for row_id in "ab") + "\n\n")
    assert ids(load_rows(str(tmp_path / "a.json"))) == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"problem": "q"}\n{"problem": \n', "line 2: this is not JSON"),
        ('[\n{"problem": "q"},\n', "line 3: this is not JSON"),
        ('["q"]', "holds 'q' where an object"),
        ("", "holds no rows"),
    ],
)
def test_bad_json(tmp_path, text, message):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_rows(str(tmp_path / "a.json"))


def test_folder_with_splits(tmp_path):
    for name in ("train-00000.jsonl", "train-00001.jsonl", "test.jsonl", "validation/a.jsonl"):
        write_json(tmp_path / name, [{**ROW, "id": name}])
    assert ids(load_rows(str(tmp_path))) == ["train-00000.jsonl", "train-00001.jsonl"]
    assert ids(load_rows(str(tmp_path), "test")) == ["test.jsonl"]
    assert ids(load_rows(str(tmp_path), "validation")) == ["validation/a.jsonl"]
    with pytest.raises(ValueError, match="belongs to the split 'dev': it holds test.jsonl, train-00000.jsonl"):
        load_rows(str(tmp_path), "dev")


def test_folder_without_splits_is_train(tmp_path, png):
    make_rows(png, 1).to_parquet(tmp_path / "chartqa.parquet")
    make_rows(png, 2).to_parquet(tmp_path / "trained.parquet")
    assert num_images(load_rows(str(tmp_path))) == [0, 0, 1]
    with pytest.raises(ValueError, match="No file of the folder .* belongs to the split 'test'"):
        load_rows(str(tmp_path), "test")


def test_folder_that_holds_no_rows_or_a_mixture(tmp_path, png):
    with pytest.raises(ValueError, match="neither a data set written by `save_to_disk` nor files ending in .parquet"):
        load_rows(str(tmp_path))
    make_rows(png).to_parquet(tmp_path / "a.parquet")
    write_json(tmp_path / "b.jsonl", [ROW])
    with pytest.raises(ValueError, match="a.parquet, b.jsonl can't be read together"):
        load_rows(str(tmp_path))


def test_file_of_another_kind(tmp_path):
    (tmp_path / "a.csv").write_text("problem,solution")
    with pytest.raises(ValueError, match="a.csv can't be read together"):
        load_rows(str(tmp_path / "a.csv"))


def test_save_to_disk_folder(tmp_path, png):
    make_rows(png).save_to_disk(tmp_path / "one")
    DatasetDict({"train": make_rows(png, 1), "test": make_rows(png, 2)}).save_to_disk(tmp_path / "two")
    assert num_images(load_rows(str(tmp_path / "one"))) == [0, 1, 2]
    assert num_images(load_rows(str(tmp_path / "two"), "test")) == [0, 1]
    with pytest.raises(ValueError, match="has no split 'dev': choose one of 'train', 'test'"):
        load_rows(str(tmp_path / "two"), "dev")


def test_slices(tmp_path, png):
    make_rows(png, 10).save_to_disk(tmp_path / "a")
    assert ids(load_rows(str(tmp_path / "a"), "train[2:4]")) == ["r2", "r3"]
    assert ids(load_rows(str(tmp_path / "a"), "train[:20%]")) == ["r0", "r1"]
    assert ids(load_rows(str(tmp_path / "a"), "train[-1:]")) == ["r9"]


@pytest.fixture
def callables(tmp_path, monkeypatch):
    (tmp_path / "my_rows_module.py").write_text(
        "def rows(split, count=1):\n"
        "    return [{'problem': split, 'solution': str(i), 'problem_type': 'number'} for i in range(count)]\n"
        "def nothing(split):\n"
        "    return None\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("my_rows_module", None)


@pytest.mark.usefixtures("callables")
def test_callable():
    dataset = load_rows("my_rows_module.rows", "warm_up", count=2)
    assert list(dataset["problem"]) == ["warm_up", "warm_up"]
    assert ids(dataset) == ["my_rows_module.rows-0", "my_rows_module.rows-1"]
    with pytest.raises(ValueError, match="'my_rows_module.nothing' returned a NoneType"):
        load_rows("my_rows_module.nothing")
    with pytest.raises(ValueError, match="has no 'row'"):
        load_rows("my_rows_module.row")


@pytest.mark.parametrize(
    "name", ["./data", "/no/such", "~/none", "a/b/c", "rows.parquet", "data/rows.jsonl", "here/x"]
)
def test_missing_path_is_not_looked_for_on_the_hub(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    with pytest.raises(FileNotFoundError, match="There is no such file or folder"):
        load_rows(name)


def test_hub_id_without_network(monkeypatch):
    def load_dataset(name, **kwargs):
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setattr("open_r1_vision.data.loading.load_dataset", load_dataset)
    with pytest.raises(FileNotFoundError, match="'owner/name' is neither a local file .*Couldn't reach the Hub"):
        load_rows("owner/name")


def test_hub_id(png, monkeypatch):
    asked = []

    def load_dataset(name, **kwargs):
        asked.append((name, kwargs))
        return make_rows(png)

    monkeypatch.setattr("open_r1_vision.data.loading.load_dataset", load_dataset)
    assert len(load_rows("owner/name", "test[:2]", revision="v1")) == 2
    assert asked == [("owner/name", {"split": "test", "revision": "v1"})]


def test_options_have_no_effect_on_local_paths(tmp_path):
    with pytest.raises(ValueError, match="{'count': 3} have no effect on the local path.* --dataset_options {}"):
        load_rows(str(tmp_path), count=3)


def test_unknown_options_of_a_callable_are_named():
    with pytest.raises(ValueError, match=r"options \{'number': 3\}.*signature is \(split: str = 'train', count: int"):
        load_rows("open_r1_vision.starter.digits.rows", number=3)


def test_broken_parquet_files_are_named(tmp_path, png):
    folder = tmp_path / "rows"
    folder.mkdir()
    make_rows(png).to_parquet(folder / "train-0.parquet")
    broken = folder / "train-1.parquet"
    whole = (folder / "train-0.parquet").read_bytes()
    for content in (b"", b"PA", whole[:-20], b"x" * 500):
        broken.write_bytes(content)
        for name in (folder, broken):
            with pytest.raises(ValueError, match="is no whole parquet file") as caught:
                load_rows(str(name))
            assert str(caught.value).startswith(repr(str(broken)))
            assert "Fetch or write it anew" in str(caught.value)


def test_parquet_files_that_do_not_fit_together(tmp_path):
    Dataset.from_list([{"problem": "a"}]).to_parquet(tmp_path / "train-0.parquet")
    Dataset.from_list([{"question": 1.0}]).to_parquet(tmp_path / "train-1.parquet")
    with pytest.raises(ValueError, match="train-1.parquet can't be read as parquet .* must have the same columns"):
        load_rows(str(tmp_path))
