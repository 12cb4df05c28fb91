# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from open_r1_vision.bench.__main__ import main

SIZES = ["--shape", "tiny", "--pixels", "112", "--generations", "4", "--tokens", "8", "--repeats", "1"]


def test_the_table_of_what_is_left_out(tmp_path, capsys):
    main(["waste", *SIZES, "--prompts", "4", "--json", str(tmp_path / "rows.json")])
    assert capsys.readouterr().out.startswith("| work | trainer | seconds |")
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    trainers = ["stock", "ours, nothing left out", "ours"]
    assert [(row["work"], row["trainer"]) for row in rows] == [
        (work, trainer) for work in ("update", "loading") for trainer in trainers
    ]
    assert all(0 < row["least"] <= row["seconds"] <= row["most"] for row in rows)
    # 4 rows are read once and not 4 x 4 times
    assert rows[5]["times as fast"] > 2


def test_one_group_has_no_half(tmp_path):
    with pytest.raises(ValueError, match="--prompts is 1, but half of the groups"):
        main(["waste", *SIZES, "--prompts", "1"])
