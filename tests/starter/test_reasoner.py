# SPDX-License-Identifier: Apache-2.0
"""The starter's text reasoner: right lessons, the policy's tokenizer and language part, and that it can be taught."""

import json
import re

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

from open_r1_vision import sft
from open_r1_vision.models import is_text_only, load_processor
from open_r1_vision.prompts import load_prompt
from open_r1_vision.rewards.boxes import extract_boxed
from open_r1_vision.starter import model, reading, reasoner


@pytest.fixture(scope="module")
def lessons():
    return list(reading.rows("train", 500))


def parts(lesson):
    """Caption, question and reply."""
    system, user = lesson["prompt"]
    assert (system["role"], system["content"]) == ("system", load_prompt("starter_reader"))
    problem, _, rest = user["content"].partition("\n<info> ")
    caption, _, response = rest.partition("</info>")
    assert response == "" or response.startswith("\n<info> ")
    return caption, problem, lesson["completion"][0]["content"]


def work_out(caption, problem):
    """The answer by other code than that of the tasks."""
    words = caption.replace(";", " ").split()
    if "digit" in problem:
        digits = [int(word) for word in words]
        if "sum" in problem:
            return str(sum(digits))
        if "greater" in problem:
            bound = int(re.search(r"greater than (\d)", problem)[1])
            return str(len([digit for digit in digits if digit > bound]))
        assert "largest digit minus the smallest" in problem
        return str(sorted(digits)[-1] - sorted(digits)[0])
    counted = re.fullmatch(r"How many (\w+?)s?(?: shapes)? are there\?", problem)
    if counted:
        return str(words.count(counted[1]))
    first, second = re.fullmatch(r"Which are more\? A\. (\w+)s B\. (\w+)s C\. equal", problem).groups()
    ahead = words.count(first) - words.count(second)
    return "C" if not ahead else "A" if ahead > 0 else "B"


def test_each_answer_follows_from_its_caption(lessons):
    kinds = {"sum": 0, "greater": 0, "largest": 0, "How many": 0, "Which": 0}
    for lesson in lessons:
        caption, problem, reply = parts(lesson)
        assert extract_boxed(reply) == work_out(caption, problem)
        for kind in kinds:
            kinds[kind] += kind in problem
    assert min(kinds.values()) >= 20


def test_the_thinking_of_a_sum_adds_up(lessons):
    for lesson in lessons:
        caption, problem, reply = parts(lesson)
        assert re.fullmatch(r"<think> .*</think> \\boxed\{ \w+\}", reply)
        if "sum of the digits" in problem:
            total = 0
            for digit, said in re.findall(r"(?:^<think>|\+) (\d)(?: = (\d+))?", reply):
                total += int(digit)
                assert not said or int(said) == total
            assert str(total) == extract_boxed(reply)


def test_tentative_responses_are_right_or_about_another_page(lessons):
    answers = [
        (re.search(r"<answer> (\w+)</answer>", lesson["prompt"][1]["content"]), extract_boxed(parts(lesson)[2]))
        for lesson in lessons
    ]
    given = [(found[1], answer) for found, answer in answers if found]
    assert 70 <= len(given) <= 130  # 20 % of 500
    misleading = sum(found != answer for found, answer in given)
    assert 0.2 * len(given) < misleading < 0.7 * len(given)


def test_lessons_of_a_split_are_its_own():
    first, again, test = (reading.rows(split, 5)[:] for split in ("train", "train", "test"))
    assert first == again
    assert first != test
    assert first != reading.rows("train", 5, seed=1)[:]
    with pytest.raises(ValueError, match="Unknown split 'dev' of the reading lessons: choose train or test"):
        reading.rows("dev")


@pytest.fixture(scope="module")
def folder():
    return reasoner.from_policy()


def test_the_tokenizer_loses_nothing_and_is_the_policys(folder, lessons):
    tokenizer, policys = AutoTokenizer.from_pretrained(folder), load_processor(model.policy()).tokenizer
    assert len(tokenizer) == len(policys) <= model.VOCABULARY_SIZE
    replies = [lesson["completion"][0]["content"] for lesson in lessons[:50]]
    for text in (*replies, *(parts(lesson)[0] for lesson in lessons[:50]), "Ünknown wörds 漢字 12345\n"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
        assert ids == policys(text, add_special_tokens=False)["input_ids"]
    for token in ("<think>", "</think>", " 7", " 42"):
        assert len(tokenizer(token, add_special_tokens=False)["input_ids"]) == 1
    chat = tokenizer.apply_chat_template(lessons[0]["prompt"], tokenize=False, add_generation_prompt=True)
    assert chat.endswith("<|im_start|>assistant\n")


def test_it_is_the_language_part_of_the_policy(folder, lessons):
    text, policy = (
        kind.from_pretrained(path, dtype=torch.float32).eval()
        for kind, path in ((AutoModelForCausalLM, folder), (AutoModelForImageTextToText, model.policy()))
    )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert text.generation_config.eos_token_id == tokenizer.eos_token_id
    assert sum(parameter.numel() for parameter in policy.model.visual.parameters()) > 0
    assert text.num_parameters() < policy.num_parameters() < 4e6
    inputs = tokenizer([parts(lesson)[2] for lesson in lessons[:4]], padding=True, return_tensors="pt")
    inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    with torch.inference_mode():
        logits, expected = text(**inputs).logits, policy(**inputs).logits
    seen = inputs["attention_mask"].bool()
    assert torch.allclose(logits[seen], expected[seen], atol=1e-4)
    assert logits[seen].std() > 0.5


def test_is_text_only(folder, tiny_model):
    assert is_text_only(folder)
    assert not is_text_only(tiny_model)


def test_a_reasoner_is_taught(tmp_path):
    words = ["--dataset", "open_r1_vision.starter.reading.rows", "--dataset_options", '{"count": 16}']
    settings = {
        "model_name_or_path": "open_r1_vision.starter.reasoner.from_policy",
        "dtype": "float32",
        "output_dir": tmp_path,
        "max_steps": 2,
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-3,
        "gradient_checkpointing": "false",
        "logging_steps": 1,
        "report_to": "none",
        "save_steps": 2,
        "disable_tqdm": "true",
    }
    for key, value in settings.items():
        words += [f"--{key}", str(value)]
    final = sft.main(words)
    log = json.loads((tmp_path / "checkpoint-2" / "trainer_state.json").read_text())["log_history"]
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert 0 < losses[0] < 6.2  # log(512) without a clue, but the policy has one
    assert losses[1] < losses[0]
    _, info = AutoModelForCausalLM.from_pretrained(final, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert is_text_only(final)
    assert AutoTokenizer.from_pretrained(final).chat_template == model.CHAT_TEMPLATE
