# SPDX-License-Identifier: Apache-2.0
"""Real runs of the starter's shipped policy over its held-out pages: exact, killed, interrupted, calibrated."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from open_r1_vision.decoding import CalibratedGenerator, Calibration
from open_r1_vision.evaluate.__main__ import main
from open_r1_vision.evaluate.options import read_training_recipe
from open_r1_vision.evaluate.records import read_records, read_run
from open_r1_vision.generation import GreedyGenerator, encode_chats
from open_r1_vision.prompts import load_prompt
from open_r1_vision.rewards.answers import extract_answer, score_answer
from open_r1_vision.starter import digits

POLICY = "open_r1_vision.starter.model.policy"


def words(output, count, *others, **settings):
    settings = {"benchmark": "starter_digits", "data": count, "model": POLICY, "max_tokens": 60, **settings}
    pairs = [str(word) for name, value in settings.items() for word in (f"--{name}", value)]
    return ["run", *pairs, "--output", str(output), *others]


def samples(output):
    return output / "starter_digits" / "samples.jsonl"


@pytest.fixture(scope="module")
def policy():
    return GreedyGenerator(POLICY)


def chats(count):
    system = {"role": "system", "content": [{"type": "text", "text": load_prompt("starter")}]}
    return [
        [
            system,
            {
                "role": "user",
                "content": [{"type": "image", "image": row["images"][0]}, {"type": "text", "text": row["problem"]}],
            },
        ]
        for row in digits.rows("test", count)
    ]


def test_greedy_replies_are_those_of_generate_and_scores_those_of_the_reward(tmp_path, policy, capsys):
    assert main(words(tmp_path, 6, batch_size=4)) == 0
    records = read_records(samples(tmp_path))
    for record, chat, row in zip(records, chats(6), digits.rows("test", 6), strict=True):
        # each alone, by transformers itself
        inputs = encode_chats(policy.processor, [chat], "cpu")
        ids = policy.model.generate(**inputs, max_new_tokens=60, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        text = policy.processor.tokenizer.decode(ids, skip_special_tokens=True)
        assert (record.raw, record.tokens, record.index) == (text, len(ids), row["id"])
        expected = score_answer(extract_answer(text), row["solution"], row["problem_type"], problem=row["problem"])
        assert (record.score, record.status, record.seed) == (expected, "ok", None)
    right = sum(record.score for record in records)
    said = capsys.readouterr().out
    assert f"starter_digits_accuracy  {100 * right / 6:5.1f} %" in said and "ok 6 of 6 samples" in said
    assert said.endswith(f"written {tmp_path}/starter_digits\n")
    settings = read_run(tmp_path / "starter_digits")
    assert (settings["num_items"], settings["num_samples"], settings["temperature"]) == (6, 1, 0.0)
    assert settings["versions"]["torch"] and len(settings["weights"]) == 64


def test_a_short_limit_truncates(tmp_path, capsys):
    assert main(words(tmp_path, 3, max_tokens=5)) == 0
    assert {(record.status, record.score, record.tokens) for record in read_records(samples(tmp_path))} == {
        ("truncated", 0.0, 5)
    }
    assert "truncated 3: the limit of tokens cut them; wrong in every metric" in capsys.readouterr().out


def test_samples_do_not_depend_on_the_batch(tmp_path):
    drawn = {"samples": 3, "temperature": 1.0, "seed": 5}
    assert main(words(tmp_path / "a", 5, batch_size=5, **drawn)) == 0
    assert main(words(tmp_path / "b", 5, batch_size=2, **drawn)) == 0
    text = samples(tmp_path / "a").read_text()
    assert samples(tmp_path / "b").read_text() == text
    records = read_records(samples(tmp_path / "a"))
    assert [(record.sample, record.seed) for record in records] == [(0, 5), (1, 5), (2, 5)] * 5
    assert len({(record.index, record.raw) for record in records}) > 5
    assert main(words(tmp_path / "c", 5, **{**drawn, "seed": 6})) == 0
    assert samples(tmp_path / "c").read_text().replace('"seed": 6', '"seed": 5') != text


def test_calibrated_replies_are_those_of_the_generator(tmp_path, policy, capsys):
    how = {"calibration": 0.8, "calibration_span": "info"}
    assert main(words(tmp_path, 4, batch_size=2, **how)) == 0
    generate = CalibratedGenerator(policy.model, policy.processor, Calibration(0.8, span="info"))
    assert [record.raw for record in read_records(samples(tmp_path))] == generate(chats(4), 60)
    settings = read_run(tmp_path / "starter_digits")
    assert (settings["calibration"], settings["calibration_span"]) == (0.8, "info")
    assert main(words(tmp_path, 4, calibration=-1)) == 2
    assert "scale is -1.0, but the weight" in capsys.readouterr().err
    # sampled, whatever the batch
    drawn = {**how, "samples": 2, "temperature": 1.0}
    for name, size in (("a", 3), ("b", 1)):
        assert main(words(tmp_path / name, 3, batch_size=size, **drawn)) == 0
    assert samples(tmp_path / "a").read_text() == samples(tmp_path / "b").read_text()


def start(arguments):
    command = [sys.executable, "-m", "open_r1_vision.evaluate", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ})


def wait_for_samples(path, process, count=1):
    end = time.monotonic() + 180
    while not path.is_file() or path.read_bytes().count(b"\n") < count:
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.005)


def test_killed_and_interrupted_runs_lose_nothing_and_double_nothing(tmp_path, capsys):
    drawn = {"samples": 2, "temperature": 1.0, "batch_size": 1}
    assert main(words(tmp_path / "whole", 60, **drawn)) == 0
    arguments = words(tmp_path / "stopped", 60, **drawn)
    path = samples(tmp_path / "stopped")
    with start(arguments) as process:
        wait_for_samples(path, process)
        process.kill()
    after_kill = path.read_bytes().count(b"\n")
    assert 2 <= after_kill < 120
    before = after_kill
    for number in (signal.SIGINT, signal.SIGTERM):
        with start(arguments) as process:
            wait_for_samples(path, process, before + 2)
            process.send_signal(number)
            _, said = process.communicate()
        kept = path.read_bytes().count(b"\n")
        assert process.returncode == 130 and before < kept < 120
        assert f"Stopped. {kept} samples are kept in {path.parent}; give the same command to go on." in said
        assert "Traceback" not in said
        before = kept
    assert main(arguments) == 0
    assert path.read_bytes() == samples(tmp_path / "whole").read_bytes()
    summaries = [json.loads((folder / "starter_digits/summary.json").read_text()) for folder in tmp_path.iterdir()]
    assert summaries[0]["metrics"] == summaries[1]["metrics"]


def test_three_steps_of_the_policy(tmp_path, capsys):
    prompt = tmp_path / "reader.txt"
    prompt.write_text("{problem}\n<info> {caption}</info>")
    steps = {"tentative": False, "caption_system_prompt": "starter", "caption_prompt": "", "caption_section": "info"}
    steps |= {"caption_max_tokens": 60, "reasoner_system_prompt": "starter_reader", "reasoner_prompt": str(prompt)}
    steps |= {"answer_form": "tags"}
    arguments = ["run", "--benchmark", "starter_digits", "--data", "8", "--model", POLICY, "--backend", "three_step"]
    arguments += ["--reasoner", '{"kind": "policy", "max_tokens": 48}', "--steps", json.dumps(steps)]
    arguments += ["--prompt_style", "method", "--output", str(tmp_path / "out"), "--batch_size", "5"]
    assert main(arguments) == 0
    records = read_records(tmp_path / "out" / "starter_digits" / "samples.jsonl")
    # the reader answers from a caption, and describes nothing itself
    assert [record.status for record in records] == ["ok"] * 8
    assert all("<info>" not in record.raw for record in records)
    assert sum(record.score for record in records) >= 2
    settings = read_run(tmp_path / "out" / "starter_digits")
    assert (settings["steps.caption_section"], settings["reasoner.kind"], settings["num_samples"]) == (
        "info",
        "policy",
        1,
    )
    arguments[arguments.index("--steps") + 1] = '{"caption_sction": "info"}'
    assert main(arguments) == 2
    assert "--steps has 'caption_sction', but the steps have tentative" in capsys.readouterr().err


def test_a_recipe_says_how_its_model_is_asked(tmp_path):
    recipe = str(Path(__file__).parents[2] / "recipes" / "starter" / "visionary_r1.yaml")
    arguments = ["run", "--benchmark", "starter_digits", "--data", "4", "--model", POLICY, "--recipe", recipe]
    assert main([*arguments, "--output", str(tmp_path / "recipe")]) == 0
    settings = read_run(tmp_path / "recipe" / "starter_digits")
    assert (settings["prompt_style"], settings["max_tokens"]) == ("method", 60)
    assert settings["system_prompt"] == load_prompt("starter")
    assert read_training_recipe(recipe, "three_step") == {"prompt_style": "method", "system_prompt": "starter"}
    with_stop = tmp_path / "recipe.yaml"
    with_stop.write_text("stop_token: '<|im_end|>'\nmax_pixels: 3136\n")
    same = {"prompt_style": "method", "max_pixels": 3136}
    assert read_training_recipe(str(with_stop), "endpoint") == same
    assert read_training_recipe(str(with_stop), "vllm") == {**same, "stop_token": "<|im_end|>"}
    # the starter's own benchmark asks in the same words
    assert main(words(tmp_path / "own", 4)) == 0
    texts = [samples(tmp_path / name).read_text() for name in ("recipe", "own")]
    assert texts[0].replace('"method"', '"benchmark"') == texts[1]
