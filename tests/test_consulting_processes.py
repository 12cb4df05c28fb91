# SPDX-License-Identifier: Apache-2.0
"""Two processes under torchrun whose reader is a server that fails: the same rewards as in one, and a clean stop."""

import random
import re

import pyarrow.parquet
import pytest
from processes import run_train, write_recipe
from scripted_server import ScriptedServer, asked, fault, reply


def recipe(folder, model, server):
    """3 prompts with 4 completions a step: the second prompt's lie on both processes. Completions are captions."""
    limits = {"retries": 0, "backoff_seconds": 0.01, "batch_seconds": 30, "request_seconds": 10}
    limits |= {"max_failure_rate": 0.6, "failure_window": 12}
    return write_recipe(
        folder,
        model,
        trainer="open_r1_vision.trainers.CaptionGRPOTrainer",
        caption_section=None,
        reasoner={"kind": "endpoint", "model": "judge", "base_url": server.url, **limits},
        reward_funcs=["processes.text_reward", "open_r1_vision.rewards.caption_reward"],
        dataset_options={"count": 6, "texts": list(range(6))},
        prompts_per_step=3,
        max_completions_per_device=6,
        max_steps=3,
        log_completions=True,
        save_strategy="no",
    )


def said(body):
    return asked(body).partition("<info> ")[2].removesuffix("</info>")


def is_lost(caption):
    return random.Random(f"lost {caption}").random() < 0.4


def answer(caption):
    """Right in most cases: golds are 0, 1 and 2."""
    return str(random.Random(caption).randrange(3))


def flaky(body, number):
    """Fails now and then for the first step's rows, and always for the second's."""
    row = int(re.search(r"How many of (\d)", asked(body))[1])
    return fault(404) if row >= 3 or is_lost(said(body)) else reply(answer(said(body)))


def mean(values):
    return sum(values) / len(values)


@pytest.fixture(scope="module")
def run(tiny_model, tmp_path_factory):
    """Outcome and folder of a run that its second step stops, and what the server was asked."""
    folder = tmp_path_factory.mktemp("consulting")
    with ScriptedServer(flaky) as server:
        outcome = run_train(recipe(folder, tiny_model, server), timeout=90)
    return outcome, folder / "run", server.requests


def test_filled_rewards_are_those_of_one_table(run):
    """By hand, from all completions of both processes."""
    _, folder, requests = run
    path = folder / "completions" / "completions_00001.parquet"
    table = pyarrow.parquet.read_table(path).to_pydict()
    captions = table["caption"]
    assert captions == [(completion[-1]["content"].strip() or None) for completion in table["completion"]]
    lost = [caption is not None and is_lost(caption) for caption in captions]
    own = [float(caption is not None and answer(caption) == str(index // 4)) for index, caption in enumerate(captions)]
    judged = [value for value, failed in zip(own, lost, strict=True) if not failed]
    expected = []
    for index, failed in enumerate(lost):
        group = range(index // 4 * 4, index // 4 * 4 + 4)
        others = [own[place] for place in group if not lost[place]] or judged
        expected.append(mean(others) if failed else own[index])
    assert 0 < sum(lost) < 12
    assert table["caption_reward"] == pytest.approx(expected)
    # captions by the server, questions and captions of one row together
    questions = {(asked(body).partition("\n")[0], said(body)) for body in requests}
    problems = [prompt[-1]["content"][-1]["text"] for prompt in table["prompt"]]
    assert {pair for pair in zip(problems, captions, strict=True) if pair[1]} <= questions


def test_too_many_failures_stop_both_processes(run):
    outcome, folder, _ = run
    assert outcome.code != 0
    assert re.search(r"TooManyFailures: \d+ of the last \d+ verdicts of the reasoner failed, more than", outcome.log)
    assert "max_failure_rate 0.6 of failure_window 12" in outcome.log
    assert "start the same command again to resume" in outcome.log
    assert not (folder / "completions" / "completions_00002.parquet").exists()
    assert not (folder / "results.json").exists()
