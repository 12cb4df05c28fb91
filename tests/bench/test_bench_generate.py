# SPDX-License-Identifier: Apache-2.0
"""The benchmark of generation at its smallest size."""

import json

from open_r1_vision.bench.__main__ import main


def test_the_smallest_run(tmp_path, capsys):
    path = tmp_path / "rows.json"
    sizes = ["--shape", "tiny", "--pixels", "56", "--prompts", "2", "--generations", "2", "--tokens", "6"]
    main(["generate", *sizes, "--ending-share", "0.2", "--repeats", "1", "--device", "cpu", "--json", str(path)])
    written = json.loads(path.read_text())
    assert [(row["activity"], row["trainer"]) for row in written["rows"]] == [
        ("generate", "stock"),
        ("generate", "ours"),
        ("process", "stock"),
        ("process", "ours"),
    ]
    assert [row["equal"] for row in written["rows"]] == [1.0, 1.0, None, None]
    assert all(row["seconds"] > 0 for row in written["rows"])
    assert written["versions"].keys() == {"torch", "transformers", "trl"}
    assert len(capsys.readouterr().out.splitlines()) == 6
