# SPDX-License-Identifier: Apache-2.0
"""The starter's dual encoder: what ships tells right descriptions from wrong ones, and it can be trained."""

import json
import math
import random
import sys
from pathlib import Path
from statistics import fmean

import pytest
import torch
from safetensors.torch import load_file
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from open_r1_vision.dual_encoder import load_dual_encoder
from open_r1_vision.importing import import_callable
from open_r1_vision.rewards import clip_reward
from open_r1_vision.starter import digits, dual_encoder, model, train_dual_encoder
from open_r1_vision.starter.dual_encoder import corrupt, draw_foreign
from open_r1_vision.starter.train_dual_encoder import (
    DescriptionCollator,
    Reader,
    contrastive_loss,
    count_errors,
    error_loss,
    list_cells,
)

ENCODER = "open_r1_vision.starter.dual_encoder.dual_encoder"
ROOT = Path(__file__).parent.parent.parent


def replace_digits(caption, count, rng):
    """The caption with `count` other digits."""
    words = caption.split()
    for place in rng.sample([place for place, word in enumerate(words) if word != ";"], count):
        words[place] = rng.choice([digit for digit in "0123456789" if digit != words[place]])
    return " ".join(words)


@pytest.fixture(scope="module", params=["train", "test"])
def pages(request):
    """Pages and captions by writers that the encoder has never seen."""
    rows = digits.rows(request.param, 128, 5, objects=(4, 8))
    return [row["images"][0] for row in rows], list(rows["caption"])


@pytest.fixture(scope="module")
def shipped():
    return load_dual_encoder(ENCODER, "cpu", "float32")


def share(wins):
    return sum(wins) / len(wins)


def test_it_prefers_right_descriptions_of_unseen_writers(pages, shipped):
    images, captions = pages
    rng = random.Random(0)
    cosines = [
        shipped.cosines([(image, replace_digits(caption, count, rng)) for image, caption in zip(*pages, strict=True)])
        for count in range(4)
    ]
    means = [fmean(values) for values in cosines]
    assert means == sorted(means, reverse=True)
    assert means[0] - means[1] > 0.03 and means[0] - means[3] > 0.12
    assert share([right > wrong for right, wrong in zip(cosines[0], cosines[1], strict=True)]) > 0.72
    others = shipped.cosines(list(zip(images, captions[1:] + captions[:1], strict=True)))
    assert share([right > wrong for right, wrong in zip(cosines[0], others, strict=True)]) > 0.95


def test_it_rewards_descriptions(pages):
    images, captions = pages
    rewards = {}
    for kind, texts in {
        "right": captions,
        "wrong": [replace_digits(caption, 2, random.Random(0)) for caption in captions],
        "list": ["0 1 2 3 4 5 6 7 8 9"] * len(captions),
        "empty": [""] * len(captions),
    }.items():
        completions = [f"### Image Description: {text}\n### Rationales: the sum\n" for text in texts]
        values = clip_reward(completions, [[image] for image in images], encoder=ENCODER, scale=1.0, device="cpu")
        rewards[kind] = fmean(values)
    assert rewards["right"] > rewards["wrong"] + 0.06
    assert rewards["wrong"] > max(rewards["list"], rewards["empty"])


def test_what_ships_is_small_and_whole(shipped):
    folder = Path(import_callable(ENCODER)())
    weights = load_file(folder / "model.safetensors")
    assert (folder / "model.safetensors").stat().st_size < 4e6
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    expected = dual_encoder.new_dual_encoder()[0].state_dict()
    assert {name: tensor.shape for name, tensor in weights.items()} == {
        name: tensor.shape for name, tensor in expected.items()
    }
    assert shipped.max_tokens == dual_encoder.MAX_TOKENS


def test_a_missing_encoder_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(model.resources, "files", lambda package: tmp_path)
    with pytest.raises(FileNotFoundError, match="Make it with `python -m open_r1_vision.starter.train_dual_encoder"):
        dual_encoder.dual_encoder()


def test_texts_end_where_clip_pools_and_begin_with_or_without_a_blank(shipped):
    for tokenizer in (dual_encoder.build_description_tokenizer(), shipped.tokenizer):
        stripped, whole, short = tokenizer(["4 3 ; 7", " 4 3 ; 7", "4"], padding=True)["input_ids"]
        assert stripped == whole
        assert len(stripped) == 5 and stripped[-1] == tokenizer.eos_token_id
        assert short[1:] == [tokenizer.eos_token_id] * 4  # padded on the right
        assert short[0] == stripped[0]
        long = tokenizer("7 " * 100, truncation=True)["input_ids"]
        assert len(long) == dual_encoder.MAX_TOKENS and long[-1] == tokenizer.eos_token_id
    assert shipped.model.config.text_config.eos_token_id == shipped.tokenizer.eos_token_id != 2


@pytest.mark.parametrize("edits", [1, 2, 4])
def test_corrupted_descriptions_are_wrong(edits):
    rng = random.Random(0)
    for caption in (*digits.rows("warm_up", 50, 3, objects=(2, 8))["caption"], "7", "7 7", "1 ; 1"):
        for _ in range(20):
            wrong = corrupt(caption, rng, edits)
            assert wrong != caption
            # moving a line break or swapping two digits changes two places
            assert 1 <= count_errors(wrong, caption) <= 2 * edits


def test_corruptions_are_of_every_kind():
    rng = random.Random(0)
    caption = "1 2 3 ; 4 5"
    wrong = {corrupt(caption, rng) for _ in range(2000)}
    assert wrong >= {"1 2 4 ; 4 5", "1 2 ; 4 5", "1 1 2 3 ; 4 5", "2 1 3 ; 4 5", "1 2 3 4 5", "1 2 ; 3 4 5"}
    foreign = [draw_foreign(rng) for _ in range(200)]
    assert {"0 1 2 3 4 5 6 7 8 9", ""} <= set(foreign)
    assert len(set(foreign)) > 80


@pytest.mark.parametrize(("caption", "edits"), [("", 1), (" ; ", 1), ("1 2", 0)])
def test_what_cannot_be_corrupted(caption, edits):
    with pytest.raises(ValueError, match="pass one with a digit, and at least 1 edit"):
        corrupt(caption, random.Random(0), edits)


def test_batches():
    _, image_processor, tokenizer = dual_encoder.new_dual_encoder()
    rows = list(digits.rows("warm_up", 6, objects=(2, 8)))
    rows.append(rows[0])
    first, again, other = (DescriptionCollator(image_processor, tokenizer, 4, seed)(rows) for seed in (0, 0, 1))
    assert first["pixel_values"].shape == (7, 3, 112, 112)
    assert first["input_ids"].shape[0] == 35
    assert torch.equal(first["input_ids"], again["input_ids"])
    assert first["input_ids"].shape != other["input_ids"].shape or not torch.equal(
        first["input_ids"], other["input_ids"]
    )
    right = first["is_right"][:, :7].float()
    assert right.sum() == 9 and right[0, 6] == right[6, 0] == 1  # the page that came twice
    assert torch.all(first["errors"][:, 0] == 0) and torch.all(first["errors"][:, 1:] >= 1)
    shipped_processor = AutoImageProcessor.from_pretrained(dual_encoder.dual_encoder())
    pixels = shipped_processor(images=[row["images"][0] for row in rows], return_tensors="pt")["pixel_values"]
    assert torch.equal(pixels, first["pixel_values"])


def test_cells_are_those_of_the_page():
    for row in digits.rows("warm_up", 20, 4, objects=(2, 8)):
        cells = list_cells(row["caption"])
        page = torch.tensor([255.0]) - torch.tensor(list(row["images"][0].convert("L").getdata())).reshape(112, 112)
        for place, digit in enumerate(cells):
            top, left = 28 * (place // 4), 28 * (place % 4)
            assert (page[top : top + 28, left : left + 28].max() > 50) == (digit != 10)
        assert [str(digit) for digit in cells if digit != 10] == row["key_words"]


def test_the_reading_loss_reaches_both_encoders():
    clip, image_processor, tokenizer = dual_encoder.new_dual_encoder()
    reader = Reader(clip)
    batch = DescriptionCollator(image_processor, tokenizer, 1)(list(digits.rows("warm_up", 3, objects=(2, 8))))
    inputs = {name: batch[name] for name in ("pixel_values", "input_ids", "attention_mask")}
    loss = reader.reading_loss(reader(**inputs), batch["cells"])
    assert loss.item() == pytest.approx(3 * math.log(11), rel=0.2)  # three guesses
    loss.backward()
    for part in (clip.visual_projection, clip.text_projection, reader.patch_head, reader.page_head):
        assert part.weight.grad.abs().sum() > 0


def test_losses():
    # two pages, one wrong text each; the second page's wrong text is right for the first
    logits = torch.tensor([[2.0, 0.0, 1.0, 5.0], [0.0, 2.0, 0.0, 1.0]])
    is_right = torch.tensor([[True, False, False, True], [False, True, False, False]])
    to_texts = fmean([math.log(1 + math.exp(-2) + math.exp(-1)), math.log(1 + 2 * math.exp(-2) + math.exp(-1))])
    expected = (to_texts + math.log(1 + math.exp(-2))) / 2
    assert contrastive_loss(logits, is_right).item() == pytest.approx(expected, rel=1e-5)
    cosines = torch.tensor([[0.9, 9.0, 0.8, 9.0], [9.0, 1.0, 9.0, 0.5]])
    errors = torch.tensor([[0.0, 1.0], [0.0, 10.0]])
    assert error_loss(cosines, errors, 0.2).item() == pytest.approx((0.1**2 + 0 + 0 + 0.5**2) / 4, rel=1e-5)


def train(folder, **options):
    words = ["--config", str(ROOT / "recipes" / "starter" / "dual_encoder.yaml")]
    settings = {
        "output_dir": folder,
        "num_pages": 64,
        "max_steps": 6,
        "per_device_train_batch_size": 16,
        "warmup_steps": 1,
        "logging_steps": 1,
        "save_strategy": "steps",
        "save_steps": 6,
        "disable_tqdm": "true",
        **options,
    }
    for key, value in settings.items():
        words += [f"--{key}", str(value)]
    return train_dual_encoder.main(words)


def test_training_lowers_the_loss_and_depends_on_the_seed_alone(tmp_path):
    first, again, other = (
        Path(train(tmp_path / name, seed=seed)) for name, seed in (("first", 0), ("again", 0), ("other", 1))
    )
    log = json.loads((tmp_path / "first" / "checkpoint-6" / "trainer_state.json").read_text())["log_history"]
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert len(losses) == 6
    assert fmean(losses[-2:]) < fmean(losses[:2]) - 0.1
    weights, same, different = (load_file(folder / "model.safetensors") for folder in (first, again, other))
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    assert not torch.equal(weights["visual_projection.weight"], different["visual_projection.weight"])
    encoder = load_dual_encoder(str(first), "cpu", "float32")
    (page,) = digits.rows("train", 1)["images"]
    assert -1 <= encoder.cosines([(page[0], "1 2")])[0] <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_pages": 0}, "num_pages is 0: set at least 1"),
        ({"num_wrong": 0}, "num_wrong is 0: set at least 1"),
        ({"max_logit_scale": 0.5}, "max_logit_scale is 0.5, which makes all cosines look alike"),
        ({"error_cost": 0}, "error_cost is 0.0, but cosines go from 1 to 0"),
        ({"error_weight": -1}, "error_weight is -1.0, which rewards errors"),
        ({"reading_weight": -1}, "reading_weight is -1.0, which rewards errors"),
        ({"num_page": 3}, "Unknown key `num_page`.*Did you mean `num_pages`"),
    ],
)
def test_bad_options_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        train(tmp_path, **options)


def test_the_command_line_refuses_without_a_traceback(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train_dual_encoder", "--config", str(tmp_path / "none.yaml")])
    with pytest.raises(SystemExit) as end:
        train_dual_encoder.run_command_line()
    assert end.value.code == 2
    assert "error: There is no recipe" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["train_dual_encoder", "--help"])
    train_dual_encoder.run_command_line()
    assert "--reading_weight" in capsys.readouterr().out
