# SPDX-License-Identifier: Apache-2.0
"""What a recipe's block may say about a reasoner, and what it is told when it can't be."""

import dataclasses
import json
import logging

import pytest

from open_r1_vision.reasoners import ReasonerConfig, build_reasoner
from open_r1_vision.reasoners.config import DECIDING, read_block

ENDPOINT = {"kind": "endpoint", "model": "judge", "base_url": "http://127.0.0.1:8000/v1"}
LOCAL = {"kind": "local", "model": "folder"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "remote"}, "kind is 'remote': set one of policy, local, endpoint"),
        ({**LOCAL, "backend": "gguf"}, "backend is 'gguf': set one of transformers, vllm"),
        ({**LOCAL, "dtype": "bf16"}, "dtype is 'bf16': set one of float32, bfloat16, float16"),
        ({"on_failure": "ignore"}, "on_failure is 'ignore': set one of group_mean, drop_group, zero, abort"),
        ({"kind": "local"}, "kind is local, but there is no model"),
        ({"kind": "endpoint", "model": "m"}, "base_url is missing"),
        ({"kind": "endpoint", "base_url": "http://h/v1"}, "model is missing"),
        ({**ENDPOINT, "base_url": "127.0.0.1:8000"}, "give an address such as"),
        ({**ENDPOINT, "base_url": "ftp://h/v1"}, "give an address such as"),
        ({**ENDPOINT, "temperature": -1}, "temperature is -1: set a number of at least 0 and at most 2"),
        ({**ENDPOINT, "temperature": "nan"}, "temperature is 'nan'"),
        ({**ENDPOINT, "temperature": True}, "temperature is True"),
        ({**ENDPOINT, "top_p": 0}, "top_p is 0"),
        ({**ENDPOINT, "max_tokens": 1.5}, "max_tokens is 1.5: set a whole number of at least 1"),
        ({**ENDPOINT, "concurrency": 0}, "concurrency is 0"),
        ({**ENDPOINT, "retries": None}, "retries is None"),
        ({**ENDPOINT, "seed": "x"}, "seed is 'x'"),
        ({**ENDPOINT, "batch_seconds": float("inf")}, "batch_seconds is inf"),
        ({**ENDPOINT, "n": 4}, "n is 4, but at temperature 0 all 4 replies are the same"),
        ({**ENDPOINT, "request_seconds": 700}, "request_seconds is 700, but a whole batch has only batch_seconds 600"),
        ({**ENDPOINT, "response_schema": "object"}, "response_schema is a str: give a mapping"),
        ({**ENDPOINT, "extra_body": {"api_key": "x"}}, "extra_body has 'api_key', which looks like a key"),
        ({"temperature": 0.5}, "the live policy reads greedily and once"),
        ({"cache": "c.sqlite"}, "the live policy replies differently after each step"),
    ],
)
def test_settings_that_cannot_work(settings, message):
    with pytest.raises(ValueError, match=message):
        ReasonerConfig(**settings)


def test_a_misspelt_key_is_named_with_the_nearest_right_one():
    with pytest.raises(ValueError, match="no `temprature`. Did you mean `temperature`?"):
        ReasonerConfig.from_mapping({**ENDPOINT, "temprature": 1})
    with pytest.raises(ValueError, match="It has: kind, model"):
        ReasonerConfig.from_mapping({"qqqq": 1})


@pytest.mark.parametrize(
    "settings",
    [
        {"api_key": "sk-0123456789"},
        {"api_key_env": "sk-0123456789"},
        {"base_url": "http://me:sk-0123456789@host/v1"},
        {"base_url": "http://host/v1?key=sk-0123456789"},
        {"extra_body": {"auth_token": "sk-0123456789"}},
    ],
)
def test_a_key_in_the_wrong_place_is_refused_and_not_repeated(settings):
    with pytest.raises(ValueError, match=r"api_key_env|environment variable") as refusal:
        ReasonerConfig.from_mapping({**ENDPOINT, **settings})
    assert "0123456789" not in str(refusal.value)


def test_numbers_are_numbers_however_yaml_read_them():
    config = ReasonerConfig.from_mapping({**ENDPOINT, "temperature": "1e-1", "max_tokens": 7.0, "seed": "3"})
    assert (config.temperature, config.max_tokens, config.seed) == (0.1, 7, 3)
    assert isinstance(config.max_tokens, int)


def test_fields_that_only_sound_like_keys_are_allowed():
    ReasonerConfig(**ENDPOINT, extra_body={"stop_token_ids": [1], "min_tokens": 1, "keyword": "x"})


def test_an_address_loses_its_last_slash():
    assert ReasonerConfig(**{**ENDPOINT, "base_url": "http://host:1/v1/"}).base_url == "http://host:1/v1"


def test_settings_without_effect_are_said(caplog):
    with caplog.at_level(logging.WARNING):
        ReasonerConfig(**LOCAL, base_url="http://host/v1", api_key_env="KEY")
        ReasonerConfig(**ENDPOINT, cache="c", temperature=1)
    assert "base_url, api_key_env has no effect on a reasoner of kind local" in caplog.text
    assert "The cache c has no effect at temperature 1" in caplog.text


@pytest.mark.parametrize(
    ("settings", "caches"),
    [
        ({}, False),
        ({"cache": "c"}, True),
        ({"cache": "c", "temperature": 1}, False),
        ({"cache": "c", "temperature": 1, "cache_sampled": True}, True),
    ],
)
def test_sampled_replies_are_cached_only_when_asked_for(settings, caches):
    assert ReasonerConfig(**ENDPOINT, **settings).caches == caches


def test_every_setting_has_its_help_and_survives_a_round_trip():
    assert all(len(item.metadata["help"]) > 10 for item in dataclasses.fields(ReasonerConfig))
    config = ReasonerConfig(**ENDPOINT, n=2, temperature=1, response_schema={"type": "object"})
    assert ReasonerConfig.from_mapping(dataclasses.asdict(config)) == config


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        ({}, {}, "kind is policy, but there is no live policy here"),
        (ENDPOINT, {"ddp_timeout": 600}, "batch_seconds is 600, but ddp_timeout is 600"),
        ({**ENDPOINT, "api_key_env": "NOT_SET_ANYWHERE"}, {}, "NOT_SET_ANYWHERE, but this environment variable"),
        ({**ENDPOINT, "log": "/proc/none/log"}, {}, "The log '/proc/none/log' can't be written"),
        ({**ENDPOINT, "cache": "/proc/none/cache"}, {}, "The cache '/proc/none/cache' can't be used"),
    ],
)
def test_what_cannot_be_built(settings, options, message):
    with pytest.raises(ValueError, match=message):
        build_reasoner(ReasonerConfig(**settings), check=False, **options)


def test_without_openai_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("open_r1_vision.reasoners.build.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install open_r1_vision\[reasoners\]"):
        build_reasoner(ReasonerConfig(**ENDPOINT))


def test_what_decides_a_reply_are_settings():
    names = [item.name for item in dataclasses.fields(ReasonerConfig)]
    assert set(DECIDING) < set(names) and "base_url" not in DECIDING


# ---- blocks of a command line


BLOCK = {"kind": "local", "model": "folder", "extra_body": {"tiny": 1e-5}}


@pytest.mark.parametrize("text", [json.dumps(BLOCK), f" \n{json.dumps(BLOCK)} ", json.dumps({"reasoner": BLOCK})])
def test_a_block_as_json(text):
    # YAML would read 1e-05 as a string
    assert read_block(text) == BLOCK


def test_a_block_in_the_short_form_of_yaml():
    assert read_block("{kind: local, model: folder}") == {"kind": "local", "model": "folder"}


@pytest.mark.parametrize("name", ["block.yaml", "block.json", "block"])
@pytest.mark.parametrize(
    "text",
    [
        json.dumps(BLOCK),
        "kind: local\nmodel: folder\nextra_body: {tiny: 1.0e-5}\n",
        json.dumps({"model_name_or_path": "policy", "reasoner": BLOCK, "fact_judge": {"kind": "policy"}}),
        "model_name_or_path: policy\nreasoner:\n  kind: local\n  model: folder\n  extra_body: {tiny: 1.0e-5}\n",
        f"model_name_or_path: policy\nreasoner: '{json.dumps(BLOCK)}'\n",
    ],
)
def test_a_block_in_a_file_of_its_own_or_in_a_recipe(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert read_block(str(tmp_path / name)) == BLOCK


def test_a_judge_of_a_recipe():
    recipe = json.dumps({"reasoner": BLOCK, "fact_judge": {"kind": "policy"}})
    assert read_block(recipe, "fact_judge") == {"kind": "policy"}
    assert read_block(recipe) == BLOCK


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"reasoner is no JSON object, and no file that can be read \(No such file or directory\): give a JSON"),
        ("sk-secret", "reasoner: the file holds no mapping: give a JSON object, or the path of a YAML or JSON file"),
        ("- sk-secret", "holds no mapping"),
        ("reasoner: sk-secret", "holds no mapping"),
        ("reasoner: null", "holds no mapping"),
        ("", "holds no mapping"),
        ("a: b\nkey: [sk-secret", r"reasoner: the file is neither JSON nor YAML \(line 2, column 16\): give"),
        ("key: sk-secret: x", "neither JSON nor YAML"),
        ("!!sk-secret x", "neither JSON nor YAML"),
        ("key: sk-secret\x00", "neither JSON nor YAML"),
        ("reasoner: '{sk-secret'", "neither JSON nor YAML"),
        (b"key: sk-secret\xff", r"no file that can be read \(it is no text\)"),
        ("[" * 2_000 + "sk-secret", "neither JSON nor YAML"),
    ],
)
def test_what_is_no_block_is_refused_in_one_line_that_repeats_nothing(tmp_path, content, message):
    path = tmp_path / "sk-secret.yaml"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for text in [str(path)] + (["{" + content] if isinstance(content, str) and content else []):
        with pytest.raises(ValueError, match=message if text == str(path) else "give a JSON object") as refusal:
            read_block(text)
        assert "secret" not in str(refusal.value) and "\n" not in str(refusal.value)
        # nor does the traceback
        assert refusal.value.__suppress_context__ or refusal.value.__context__ is None


@pytest.mark.parametrize("text", ["", "sk-secret", "sk-\x00secret", "secret" * 1000, ".", "[1]"])
def test_what_is_neither_json_nor_a_path(text):
    with pytest.raises(ValueError, match="reasoner is no JSON object, and no file that can be read") as refusal:
        read_block(text)
    assert "secret" not in str(refusal.value) and "\n" not in str(refusal.value)
