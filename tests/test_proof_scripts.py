# SPDX-License-Identifier: Apache-2.0
"""The scripts in eval/ that measure perception, and read captions once more."""

import json

import pytest
import yaml
from test_eval_scripts import load

from open_r1_vision.held_out import Sample, write_samples
from open_r1_vision.prompts import load_prompt
from open_r1_vision.reasoners import Reply
from open_r1_vision.reasoners.interface import Deferred, Failure
from open_r1_vision.statistics import mean_interval

SOLUTIONS = ["1", "2", "3", "4"]


def write_facts(folder, before, after, ids=None):
    """A run with these shares of facts in its two evaluations."""
    for step, shares in ((0, before), (5, after)):
        names = ids or [f"row-{index}" for index in range(len(shares))]
        samples = [
            Sample(row, "text", None, None, None, None, None, share) for row, share in zip(names, shares, strict=True)
        ]
        write_samples(folder, step, samples)
    return str(folder)


@pytest.fixture
def perceiving(tmp_path):
    """Two seeds of each; the third row of the first seed's has no facts."""
    return {
        "a0": write_facts(tmp_path / "a0", [0.0, 0.5, None, 1.0], [0.5, 0.5, None, 1.0]),
        "a1": write_facts(tmp_path / "a1", [0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]),
        "b0": write_facts(tmp_path / "b0", [0.0, 0.5, None, 1.0], [1.0, 1.0, None, 0.0]),
        "b1": write_facts(tmp_path / "b1", [0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]),
    }


def cells(text):
    """The cells of each line of a table but its head."""
    return [line.strip("| ").split(" | ") for line in text.splitlines()[2:]]


def test_perception(perceiving, capsys):
    runs = perceiving
    words = ["--first", runs["a0"], runs["a1"], "--second", runs["b0"], runs["b1"], "--draws", "0"]
    load("perception").main(words)
    lines = cells(capsys.readouterr().out)
    # name, rows, lost and gained, p. It is 2 / 2^n where n changes all go one way, 1 for one change and 2 against 1,
    # 2 (1 + 6) / 2^6 = 0.22 for 5 against 1, 2 (1 + 7) / 2^7 = 0.13 for 6 against 1
    assert [(line[0], line[1], *line[4:]) for line in lines] == [
        ("a0: before, after", "3 (1 without facts left out)", "0", "0", "1"),
        ("a1: before, after", "4", "0", "1", "1"),
        ("b0: before, after", "3 (1 without facts left out)", "1", "2", "1"),
        ("b1: before, after", "4", "0", "4", "0.1"),
        ("all a*: before, after", "7 (1 without facts left out)", "0", "1", "1"),
        ("all b*: before, after", "7 (1 without facts left out)", "1", "6", "0.1"),
        ("a0, b0", "3 (1 without facts left out)", "1", "2", "1"),
        ("a1, b1", "4", "0", "3", "0.2"),
        ("all a*, b*", "7 (1 without facts left out)", "1", "5", "0.2"),
    ]
    # facts stated by a0 before: (0 + 0.5 + 1) / 3; all of them in one row of three
    assert lines[0][2].startswith("50.0 % [") and " → 66.7 % [" in lines[0][2]
    assert lines[0][3] == "33.3 % [6.1, 79.2] → 33.3 % [6.1, 79.2]"
    assert lines[8][2].split(" → ")[0] == str(mean_interval([0.5, 0.5, 1.0, 1.0, 0.0, 0.0, 0.0]))


def test_rows_of_perception_are_paired_by_id(tmp_path, capsys):
    first = write_facts(tmp_path / "one", [0.0, 0.0], [1.0, 0.0], ids=["x", "y"])
    second = write_facts(tmp_path / "two", [0.0, 0.0], [0.0, 1.0], ids=["y", "x"])
    load("perception").main(["--first", first, "--second", second, "--draws", "0"])
    assert cells(capsys.readouterr().out)[2][4:6] == ["0", "0"]


def test_perception_of_samples(tmp_path, capsys):
    # all 8 rows change, so 8 of 8 give p = 2 / 2^8 and each sample of five gives 2 / 2^5 = 0.06
    run = write_facts(tmp_path / "one", [0.0] * 8 + [None], [1.0] * 8 + [None])
    main = load("perception").main
    main(["--first", run, "--rows", "5", "--draws", "3"])
    assert capsys.readouterr().out.endswith("one: p < 0.05 in 0.0 % of 3 samples of 5 rows\n")
    main(["--first", run, "--draws", "3"])
    assert capsys.readouterr().out.endswith("one: p < 0.05 in 100.0 % of 3 samples of 8 rows\n")


def test_names_of_runs_taken_together(tmp_path, capsys):
    folders = [tmp_path / kind / name for kind in "xy" for name in ("seed0", "seed1")]
    runs = [write_facts(folder, [0.0, 0.0], [1.0, 0.0]) for folder in folders]
    load("perception").main(["--first", *runs[:2], "--second", *runs[2:], "--draws", "0"])
    names = [line[0] for line in cells(capsys.readouterr().out)]
    assert names[4:6] == ["all first: before, after", "all second: before, after"]
    assert names[-1] == "all first, second"


def test_perception_refuses(perceiving, tmp_path, capsys):
    main, run = load("perception").main, perceiving["a0"]
    shares = [0.0] * 4
    other = write_facts(tmp_path / "other", shares, shares, ids=["row-0", "row-1", "row-2", "row-9"])
    with pytest.raises(SystemExit, match="a0 and .*other were evaluated on different rows"):
        main(["--first", run, "--second", other])
    write_samples(tmp_path / "other", 5, [Sample("row-0", "", None, None, None, None, None, 0.0)])
    with pytest.raises(SystemExit, match="the start and the end of .*other were evaluated on different rows"):
        main(["--first", other])
    with pytest.raises(SystemExit, match="nothing has no `facts_stated`: name visual_facts_reward"):
        main(["--first", write_facts(tmp_path / "nothing", [None] * 4, [None] * 4)])
    with pytest.raises(SystemExit, match="share fewer than two rows with facts"):
        main(["--first", write_facts(tmp_path / "one", [None, 1.0], [None, 1.0])])
    with pytest.raises(SystemExit, match="holds no evaluations"):
        main(["--first", str(tmp_path / "missing")])
    with pytest.raises(SystemExit):
        main(["--first", run, "--rows", "0"])
    assert "set at least 1 row" in capsys.readouterr().err


class Scripted:
    """A reasoner that answers a chat by what its caption says: `model: 1, other: 2`, or `2/3` for two replies."""

    in_step = False

    def __init__(self, config):
        self.config, self.chats, self.closed = config, [], False

    def submit(self, chats, *, read=None, tags=None):
        self.chats += chats
        return Deferred(lambda: [self.reply(chat[-1]["content"][0]["text"]) for chat in chats])

    def reply(self, text):
        answers = dict(part.split(": ") for part in text.split("<info> ")[1].removesuffix("</info>").split(", "))
        answer = answers[self.config.model.rpartition("/")[2]]
        return [Failure("timeout", "too slow") if one == "none" else Reply(one) for one in answer.split("/")]

    def close(self):
        self.closed = True


@pytest.fixture
def scripted(monkeypatch):
    """The reasoners that the script has built."""
    made = []

    def build(config):
        made.append(Scripted(config))
        return made[-1]

    monkeypatch.setattr("open_r1_vision.reasoners.build_reasoner", build)
    return made


@pytest.fixture
def write_run(tmp_path):
    """`write_run(name, before, after)`: a run on four rows with these captions, as report.py writes it."""
    rows = [
        {"id": f"row-{index}", "images": [], "problem": "How many?", "solution": solution, "problem_type": "number"}
        for index, solution in enumerate(SOLUTIONS)
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))

    def write(name, before, after, ids=("row-0", "row-1", "row-2", "row-3"), **settings):
        for step, captions in ((0, before), (5, after)):
            samples = [
                Sample(row, "", None, caption, None, None, None) for row, caption in zip(ids, captions, strict=True)
            ]
            write_samples(tmp_path / name, step, samples)
        settings = {"dataset": "train.json", "eval_dataset": str(tmp_path / "rows.json"), **settings}
        (tmp_path / name / "results.json").write_text(json.dumps({"settings": settings}))
        return str(tmp_path / name)

    return write


def captions(weak, strong):
    """Captions from which these answers are read, one character each."""
    return [f"weak: {a}, strong: {b}" for a, b in zip(weak, strong, strict=True)]


def block(model, **settings):
    return json.dumps({"kind": "local", "model": model, **settings})


def test_reread(write_run, scripted, capsys, tmp_path):
    # right: weak 1 then 2 of 4, strong 2 then 4
    one = write_run("one", captions("1000", "1200"), captions("1030", "1234"))
    # weak 0 then 4, strong 0 then 2; a missing caption is a wrong one
    two = write_run("two", [*captions("000", "000"), None], captions("1234", "1200"))
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump({"seed": 0, "reasoner": {"kind": "local", "model": "models/strong"}}))
    load("reread").main(["--run", one, two, "--reasoner", block("some/models/weak"), str(file)])
    # p of n changes that all go one way is 2 / 2^n
    assert capsys.readouterr().out.splitlines() == [
        "| run | reasoner | before | after | points | p |",
        "|---|---|---|---|---|---|",
        "| one | models/weak | 25.0 % [4.6, 69.9] | 50.0 % [15.0, 85.0] | +25.0 | 1 |",
        "| two | models/weak | 0.0 % [0.0, 49.0] | 100.0 % [51.0, 100.0] | +100.0 | 0.1 |",
        "| all | models/weak | 12.5 % [2.2, 47.1] | 75.0 % [40.9, 92.9] | +62.5 | 0.06 |",
        "| one | models/strong | 50.0 % [15.0, 85.0] | 100.0 % [51.0, 100.0] | +50.0 | 0.5 |",
        "| two | models/strong | 0.0 % [0.0, 49.0] | 50.0 % [15.0, 85.0] | +50.0 | 0.5 |",
        "| all | models/strong | 25.0 % [7.1, 59.1] | 75.0 % [40.9, 92.9] | +50.0 | 0.1 |",
        "",
        "| run | reasoners, after | first | second | points | p |",
        "|---|---|---|---|---|---|",
        "| one | models/weak, models/strong | 50.0 % [15.0, 85.0] | 100.0 % [51.0, 100.0] | +50.0 | 0.5 |",
        "| two | models/weak, models/strong | 100.0 % [51.0, 100.0] | 50.0 % [15.0, 85.0] | -50.0 | 0.5 |",
        "| all | models/weak, models/strong | 75.0 % [40.9, 92.9] | 75.0 % [40.9, 92.9] | +0.0 | 1 |",
    ]
    assert [(len(reasoner.chats), reasoner.closed) for reasoner in scripted] == [(15, True), (15, True)]
    # the recipe left the reader's prompt to the default
    assert scripted[0].chats[0][0]["content"][0]["text"] == load_prompt("caption_reader")


def test_several_readings_of_a_caption(write_run, scripted, capsys):
    # means of the readings before: 1, 1/2, 0, 0 and after: 1, 1, 1/2, 1; one that failed is left out
    before = ["weak: 1/1", "weak: 2/0", "weak: 0/0", "weak: 0/0"]
    after = ["weak: 1/1", "weak: 2/2", "weak: 0/3", "weak: none/4"]
    run = write_run("one", before, after)
    load("reread").main(["--run", run, "--reasoner", block("weak", n=2, temperature=1.0)])
    first, second = mean_interval([1.0, 0.5, 0.0, 0.0]), mean_interval([1.0, 1.0, 0.5, 1.0])
    assert capsys.readouterr().out.splitlines()[2:] == [
        "| one | weak, all readings right | 25.0 % [4.6, 69.9] | 75.0 % [30.1, 95.4] | +50.0 | 0.5 |",
        f"| one | weak, mean of the readings | {first} | {second} | +50.0 | |",
    ]
    assert (first.mean, second.mean) == (0.375, 0.875)


def test_the_reader_is_the_runs_own(write_run, scripted, capsys):
    boxed = [f"weak: \\boxed{{{answer}}}" for answer in SOLUTIONS]
    options = {"eval_dataset": "test_proof_scripts.rows_of_a_function", "eval_dataset_options": '{"count": 4}'}
    reader = {"reader_prompt": "starter_reader", "reader_answer": "boxed"}
    run = write_run("one", captions("1234", "0000"), boxed, **options, **reader)
    load("reread").main(["--run", run, "--reasoner", block("weak")])
    assert "| 0.0 % [0.0, 49.0] | 100.0 % [51.0, 100.0] |" in capsys.readouterr().out
    assert scripted[0].chats[0][0]["content"][0]["text"] == load_prompt("starter_reader")


def rows_of_a_function(split, count):
    assert split == "test"  # the default of eval_dataset_split
    columns = {"images": [], "problem": "How many?", "problem_type": "number"}
    return [{"id": f"row-{index}", "solution": SOLUTIONS[index], **columns} for index in range(count)]


def test_a_real_reasoner(write_run, tmp_path, capsys):
    lessons = {
        "What is the sum of the digits?": "17",
        "How many digits are greater than 2?": "1",
        "What is the largest digit minus the smallest digit?": "8",
    }
    rows = [
        {"id": f"row-{index}", "images": [], "problem": problem, "solution": solution, "problem_type": "number"}
        for index, (problem, solution) in enumerate(lessons.items())
    ]
    (tmp_path / "lessons.json").write_text(json.dumps(rows))
    settings = {"reader_prompt": "starter_reader", "reader_answer": "boxed"}
    texts, ids = ["4 8 ; 5", "1 3 ; 2", "9 9 9 ; 1"], ["row-0", "row-1", "row-2"]
    before = [None, "1 3 ; 2", "9 9 9 ; 9"]
    run = write_run("one", before, texts, ids, eval_dataset=str(tmp_path / "lessons.json"), **settings)
    load("reread").main(["--run", run, "--reasoner", block("open_r1_vision.starter.reasoner.reader", max_tokens=64)])
    (line,) = capsys.readouterr().out.splitlines()[2:]
    assert line == "| one | reader | 33.3 % [6.1, 79.2] | 100.0 % [43.9, 100.0] | +66.7 | 0.5 |"


@pytest.mark.parametrize(
    ("models", "names"),
    [
        (["a.b.reader", "runs/better/final/", "Qwen/Qwen2.5-7B"], ["reader", "better/final", "Qwen/Qwen2.5-7B"]),
        (["x/a/final", "y/a/final", "judge"], ["a/final (1)", "a/final (2)", "judge"]),
    ],
)
def test_names_of_reasoners(models, names):
    assert load("reread")._name_reasoners(models) == names


def test_nothing_is_read_for_other_rows(write_run, scripted):
    good = write_run("good", captions("1234", "1234"), captions("1234", "1234"))
    ids = ["row-0", "row-1", "row-3", "row-2"]
    other = write_run("other", captions("1234", "1234"), captions("1234", "1234"), ids=ids)
    with pytest.raises(SystemExit, match="error: .*other was evaluated on other rows than .*rows.json gives now"):
        load("reread").main(["--run", good, other, "--reasoner", block("weak")])
    assert scripted == []


def test_failed_readings(write_run, scripted):
    run = write_run("one", ["weak: 1"] * 4, ["weak: 1", "weak: none", "weak: none", "weak: 1"])
    with pytest.raises(SystemExit, match="error: 2 of 4 readings of .*one failed.*too slow"):
        load("reread").main(["--run", run, "--reasoner", block("weak")])
    assert scripted[0].closed


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ('{"kind": "local", model', "neither JSON nor YAML"),
        ("missing.yaml", "no file that can be read"),
        ('{"kind": "local"}', "there is no model"),
        ('{"kind": "local", "modle": "x"}', "Did you mean `model`"),
        ('{"kind": "policy"}', "no policy is live here"),
        ('{"kind": "local", "model": "no/such/folder"}', "No model and tokenizer could be loaded"),
    ],
)
def test_a_bad_reasoner_is_one_line(given, message, write_run):
    run = write_run("one", captions("1234", "1234"), captions("1234", "1234"))
    with pytest.raises(SystemExit, match=message) as error:
        load("reread").main(["--run", run, "--reasoner", given])
    assert str(error.value).startswith("error: ")
    assert "\n" not in str(error.value)


def test_runs_that_can_not_be_read(write_run, scripted, tmp_path):
    main = load("reread").main
    texts = captions("1234", "1234")
    with pytest.raises(SystemExit, match="holds no results.json"):
        main(["--run", str(tmp_path / "missing"), "--reasoner", block("weak")])
    for name, settings, message in (
        ("options", {"eval_dataset_options": "{count"}, "eval_dataset_options is .* which is not JSON"),
        ("rows", {"eval_dataset": "missing.json"}, "There is no such file"),
        ("none", {"eval_dataset": None}, "holds no evaluations"),
        ("prompt", {"reader_prompt": "missing.txt"}, "There is no prompt"),
    ):
        with pytest.raises(SystemExit, match=f"error: .*{message}"):
            main(["--run", write_run(name, texts, texts, **settings), "--reasoner", block("weak")])
    with pytest.raises(SystemExit, match="holds no captions"):
        main(["--run", write_run("bare", [None] * 4, [None] * 4), "--reasoner", block("weak")])
    assert all(reasoner.closed and not reasoner.chats for reasoner in scripted)
