# SPDX-License-Identifier: Apache-2.0
"""Files that outlive a kill."""

import hashlib

import pytest

from open_r1_vision.files import drop_torn_line, short, write_whole


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    assert write_whole(path, "é\n") == hashlib.sha256("é\n".encode()).hexdigest()
    assert path.read_text(encoding="utf-8") == "é\n"

    def parts():
        yield b"half"
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        write_whole(path, parts())
    assert path.read_text(encoding="utf-8") == "é\n"
    write_whole(path, (part for part in (b"ab", b"c")))
    assert [one.name for one in tmp_path.iterdir() if not one.name.startswith(".")] == ["a.json"]
    assert path.read_bytes() == b"abc"


@pytest.mark.parametrize(
    ("data", "kept"), [(b"", b""), (b"a\nb\n", b"a\nb\n"), (b"a\nb", b"a\n"), (b"torn", b""), (b"\n\xe2\x80", b"\n")]
)
def test_a_torn_last_line_is_cut_off(tmp_path, data, kept):
    path = tmp_path / "lines"
    path.write_bytes(data)
    assert drop_torn_line(path) == (data != kept)
    assert path.read_bytes() == kept


def test_a_value_in_a_message():
    assert short("x" * 78) == repr("x" * 78)
    assert short("x" * 79) == "'" + "x" * 76 + "..."
