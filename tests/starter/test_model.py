# SPDX-License-Identifier: Apache-2.0
"""The starter's policy: tokenizer, size, the shipped checkpoint."""

from pathlib import Path

import pytest
from transformers import AutoModelForImageTextToText, GenerationConfig

from open_r1_vision.models import load_processor
from open_r1_vision.starter import digits, figures, model


@pytest.fixture(scope="module")
def tokenizer():
    return model.build_tokenizer()


def test_the_tokenizer_gives_text_back_and_takes_one_token_for_each_number_and_tag(tokenizer):
    text = "<info> 3 1 ; 4</info> <think> 3 + 1 = 4 + 4 = 8</think> <answer> 8</answer>"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    pieces = [tokenizer.decode(token) for token in ids]
    assert pieces[:6] == ["<info>", " 3", " 1", " ;", " 4", "</info>"]
    for number in range(100):
        assert len(tokenizer(f" {number}")["input_ids"]) == 1


def test_any_text_can_be_written(tokenizer):
    text = "Wörter, 漢字 and 𝛼\n"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_the_tokenizer_is_the_same_each_time(tokenizer):
    assert model.build_tokenizer().get_vocab() == tokenizer.get_vocab()
    assert [tokenizer.convert_tokens_to_ids(token) for token in model.SPECIAL_TOKENS] == list(range(7))


def test_a_new_policy_follows_its_seed(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        model.save_new_policy(str(tmp_path / name), seed)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in "abc"]
    assert weights[0] == weights[1] != weights[2]
    assert model.describe_size(str(tmp_path / "a")) == "2.23M parameters, 8.9 MB"


def test_the_checkpoint_is_whole_and_small_enough_for_a_package():
    folder = Path(model.policy())
    assert (folder / "model.safetensors").stat().st_size <= 8e6
    policy, info = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert policy.config.model_type == "qwen2_5_vl"
    assert set(GenerationConfig.from_pretrained(folder).eos_token_id) == {0, 2}
    processor = load_processor(str(folder))
    assert processor.tokenizer.get_vocab() == model.build_tokenizer().get_vocab()


def test_pages_take_16_visual_tokens_and_white_paper_is_zero():
    processor = load_processor(model.policy())
    page = digits.rows("test", 1)[0]["images"][0]
    inputs = processor.image_processor(images=[page], return_tensors="pt")
    assert inputs["image_grid_thw"].tolist() == [[1, 8, 8]]
    assert inputs["pixel_values"].max() == 0
    assert inputs["pixel_values"].min() >= -2


@pytest.mark.parametrize("task", [digits, figures])
def test_the_checkpoint_reads_easy_pages_of_its_own_split(task):
    """Far from chance, and not perfect: see README for the measured accuracy on hard pages."""
    from open_r1_vision.data.rows import add_prompts
    from open_r1_vision.generation import GreedyGenerator
    from open_r1_vision.held_out import evaluate
    from open_r1_vision.prompts import load_prompt

    rows = add_prompts(task.rows("warm_up", 64, seed=99), load_prompt("starter"))
    samples = evaluate(GreedyGenerator(model.policy()), rows, max_new_tokens=72)
    assert sum(sample.accuracy for sample in samples) / 64 >= 0.6
    assert sum(sample.caption_exact for sample in samples) / 64 >= 0.5


def test_a_missing_checkpoint_says_how_to_make_it(monkeypatch, tmp_path):
    monkeypatch.setattr(model.resources, "files", lambda name: tmp_path)
    with pytest.raises(FileNotFoundError, match="warm_up.yaml"):
        model.policy()
