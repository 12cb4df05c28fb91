# SPDX-License-Identifier: Apache-2.0
"""VLMEvalKit's tables: what stands in a cell comes back as it was; what can't be used is refused with its place."""

import base64
import csv
import hashlib
import json
from io import BytesIO

import pytest
from PIL import Image

from open_r1_vision.evaluate.tsv import read_cells, read_list, read_table, table_images, write_table

HARD_CELLS = [
    "None",
    "",
    "nan",
    "N/A",
    "null",
    "a\ttab",
    "two\nlines",
    "carriage\rreturn\r\n",
    'a "quote" and ""two""',
    "'",
    " blanks around ",
    "答案是三角形，面积为 12 平方厘米。",
    "emoji 😀 and 𝔸",
    "\\n \\t \\",
    "007",
    "1e3",
    "[1, 2]",
    "x" * 40_000,
    "汉\t字\n" * 15_000,
    "#comment",
    "=1+1",
]


def test_cells_survive_a_round_trip(tmp_path):
    rows = [{"index": str(number), "answer": cell, "twice": cell} for number, cell in enumerate(HARD_CELLS)]
    write_table(tmp_path / "t.tsv", ["index", "answer", "twice"], rows)
    table = read_table(tmp_path / "t.tsv")
    assert table.columns == ("index", "answer", "twice")
    assert table.rows == rows


def test_cells_are_as_long_as_images_and_the_limit_of_csv_is_put_back(tmp_path):
    limit = csv.field_size_limit()
    write_table(tmp_path / "t.tsv", ["index", "a"], [{"index": 1, "a": "x" * 2_000_000}])
    assert len(read_table(tmp_path / "t.tsv").rows[0]["a"]) == 2_000_000
    assert csv.field_size_limit() == limit


def test_pandas_reads_what_we_write_and_we_read_what_it_writes(tmp_path):
    pandas = pytest.importorskip("pandas")
    rows = [{"index": number, "answer": cell} for number, cell in enumerate(HARD_CELLS)]
    write_table(tmp_path / "ours.tsv", ["index", "answer"], rows)
    frame = pandas.read_csv(tmp_path / "ours.tsv", sep="\t", dtype=str, keep_default_na=False)
    assert list(frame["answer"]) == HARD_CELLS
    # pandas leaves a lone carriage return bare, where no reader can tell it from a new row
    kept = [row for row in rows if "\r" not in row["answer"]]
    pandas.DataFrame(kept).to_csv(tmp_path / "theirs.tsv", sep="\t", index=False)
    assert [row["answer"] for row in read_table(tmp_path / "theirs.tsv").rows] == [row["answer"] for row in kept]


def test_what_no_table_can_hold_is_replaced(tmp_path):
    write_table(tmp_path / "t.tsv", ["index", "a"], [{"index": 1, "a": "x\0y\ud800z"}, {"index": 2, "a": None}])
    assert [row["a"] for row in read_table(tmp_path / "t.tsv").rows] == ["x\ufffdy\ufffdz", ""]
    assert [path.name for path in tmp_path.iterdir()] == ["t.tsv"]


def test_images_lists_references_and_paths(tmp_path, write, encoded, picture):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "7.png").write_bytes(picture(7))
    rows = [
        {"index": 0, "image": encoded(0)},
        {"index": 1, "image": "0"},
        {"index": 2, "image": str([encoded(1), encoded(2)])},
        {"index": 3, "image": "2"},
        {"index": 4, "image": "3"},
        {"index": 5, "image": "", "image_path": "images/7.png"},
        {"index": 6, "image": "", "image_path": "['images/7.png', 'images/7.png']"},
        {"index": 7, "image": ""},
        {"index": 8, "image": "data:image/png;base64," + encoded(3)},
    ]
    table = read_table(write("t.tsv", rows))
    images = table_images(table)
    widths = [[image().width for image in row] for row in images]
    assert widths == [[30], [30], [31, 32], [31, 32], [31, 32], [37], [37, 37], [], [33]]
    assert images[1] == images[0]
    assert images[0][0].digest() == hashlib.sha256(picture(0)).hexdigest()
    assert "image" not in table.rows[0] and "image_path" not in table.rows[0]


def test_an_index_is_a_text_and_whole_numbers_have_one_form(write):
    rows = [{"index": "007", "q": "a"}, {"index": "8.0", "q": "b"}]
    assert [row["index"] for row in read_table(write("t.tsv", rows, images=False)).rows] == ["7", "8"]
    rows = [{"index": "007", "q": "a"}, {"index": "b-8.0", "q": "b"}]
    assert [row["index"] for row in read_table(write("t.tsv", rows, images=False)).rows] == ["007", "b-8.0"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": 1, "question": "a"}], r"t\.tsv' has the columns id, question, but no 'index'"),
        ([{"index": 1}, {"index": 2}, {"index": 1}], r"t\.tsv', row 3 \(index 1\): row 1 has this index too"),
        ([{"index": 1}, {"index": "01.0"}], r"row 2 \(index 1\): row 1 has this index too"),
        ([{"index": 1, "q": "a"}, {"index": "", "q": "b"}], r"row 2: the index is empty"),
    ],
)
def test_bad_indices_are_refused(write, rows, message):
    with pytest.raises(ValueError, match=message):
        read_table(write("t.tsv", rows, images=False))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "header of an empty file"),
        ("index\tindex\n1\t2\n", "must name each column once"),
        ("index\tq\n", "a header but no rows"),
        ("index\tq\n1\ta\n2\ta\tb\n", "row 2: 3 cells under 2 columns"),
        ("index\tq\n1\n", "row 1: 1 cells under 2 columns"),
        ('index\tq\n1\t"cut off', r"near line 2: this can't be read as a table \(unexpected end of data\)"),
        (b"index\tq\n1\t\xff\xfe\n", "near line .*can't be read as a table"),
    ],
)
def test_broken_tables_are_refused(tmp_path, content, message):
    path = tmp_path / "t.tsv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        read_table(path)


def test_a_missing_table_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file .*none.tsv"):
        read_table(tmp_path / "none.tsv")


def test_the_sum_is_checked_where_one_is_given(write):
    path = write("t.tsv", [{"index": 1, "q": "a"}])
    right = hashlib.md5(path.read_bytes()).hexdigest()
    assert len(read_table(path, md5=right.upper()).rows) == 1
    with pytest.raises(ValueError, match=f"the MD5 sum {right}, but 0123 is expected"):
        read_table(path, md5="0123")
    beside = path.with_name("t.tsv.md5")
    beside.write_text(f"{right}  t.tsv\n")
    assert len(read_table(path).rows) == 1
    beside.write_text("0123  t.tsv\n")
    with pytest.raises(ValueError, match=r"another version, or was cut off\. Fetch it anew; .*remove 't\.tsv\.md5'"):
        read_table(path)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (["not base64 !" * 10], r"row 1 \(index 0\): the image 'not base64 !.*' is not base64"),
        (
            [base64.b64encode(b"hello world" * 10).decode()],
            r"row 1 \(index 0\): this is no image that can be opened, it starts with b'hello w",
        ),
        (["9"], r"row 1 \(index 0\): the image is '9', which is too short for an image and not the index of another"),
        (["1", "0"], r"row 1 \(index 0\): the image refers to itself"),
        (["0"], r"row 1 \(index 0\): the image refers to itself"),
        (["1", ""], r"row 1 \(index 0\): the image refers to '1', a row without image"),
        (["[1, 2"], r"row 1 \(index 0\): '\[1, 2' should be a Python list, but can't be read"),
    ],
)
def test_what_is_no_image_is_refused(write, images, message):
    rows = [{"index": number, "image": image} for number, image in enumerate(images)]
    if images[0] == "[1, 2":
        rows[0]["image"] += " " * 80
        message = message.replace(r"2'", r"2 .*")
    with pytest.raises(ValueError, match=message):
        table_images(read_table(write("t.tsv", rows)))


def test_a_missing_image_file_is_refused(write):
    table = read_table(write("t.tsv", [{"index": 1, "image_path": "images/1.png"}], images=False))
    with pytest.raises(ValueError, match=r"row 1 \(index 1\): there is no image .*images/1.png'\. Put it there"):
        table_images(table)


def test_an_image_that_breaks_off_is_refused_when_it_is_decoded(write, picture):
    big = Image.effect_noise((300, 300), 50)
    buffer = BytesIO()
    big.save(buffer, "PNG")
    torn = base64.b64encode(buffer.getvalue()[:2000]).decode()
    ((image,),) = table_images(read_table(write("t.tsv", [{"index": 5, "image": torn}])))
    with pytest.raises(ValueError, match=r"row 1 \(index 5\): the image is broken"):
        image()


def test_lists_are_read_and_never_evaluated():
    assert read_list("['a', \"b\"]", "here") == ["a", "b"]
    for text in ("__import__('os').getcwd()", "{1: 2}", "7"):
        with pytest.raises(ValueError, match="here: .* should be a Python list"):
            read_list(text, "here")


def test_comma_separated_tables_need_no_index(tmp_path):
    (tmp_path / "t.csv").write_text('a,b\n1,"2,3"\n', encoding="utf-8-sig")
    assert read_cells(tmp_path / "t.csv").rows == [{"a": "1", "b": "2,3"}]
    assert json.dumps(read_cells(tmp_path / "t.csv").columns) == '["a", "b"]'
