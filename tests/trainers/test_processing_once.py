# SPDX-License-Identifier: Apache-2.0
"""How often a step reads rows, renders chats, tokenizes texts and processes images: once for each distinct one."""

from collections import Counter

import pytest
import torch
import transformers
from text_model import TEMPLATE, save_text_model
from tiny_models import END, build_tokenizer, image, make_trainer, options, recording, rows, step_logs
from transformers import processing_utils, tokenization_utils_base
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from trl import GRPOConfig, GRPOTrainer

from open_r1_vision.models import load_processor
from open_r1_vision.trainers import HintGRPOConfig, HintGRPOTrainer, VisionGRPOTrainer
from open_r1_vision.trainers.fetching_once import RowsOnce
from open_r1_vision.trainers.processing_once import remembering

#: Four prompts of four completions in four micro-batches.
SETTINGS = {
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 4,
    "num_generations": 4,
    "max_steps": 1,
}


@pytest.fixture
def counts(monkeypatch):
    """What was done since: rows read, chats rendered, texts tokenized, images processed."""
    seen = Counter()

    def counted(place, name, what, size):
        before = getattr(place, name)

        def counting(*args, **kwargs):
            seen[what] += size(*args, **kwargs)
            return before(*args, **kwargs)

        monkeypatch.setattr(place, name, counting)

    for module in (processing_utils, tokenization_utils_base):
        counted(module, "render_jinja_template", "rendered", lambda conversations, **_: len(conversations))
    fast = transformers.PreTrainedTokenizerFast
    counted(fast, "_encode_plus", "tokenized", lambda self, text, **_: 1 if isinstance(text, str) else len(text))
    counted(Qwen2VLImageProcessorPil, "_preprocess", "processed", lambda self, images, *_, **__: len(images))
    return seen


def counting_rows(dataset, counts):
    """The data set, counting the rows that are read."""

    class Counting(type(dataset)):
        def __getitems__(self, keys):
            counts["read"] += len(keys)
            return super().__getitems__(keys)

    dataset.__class__ = Counting
    return dataset


def text_rows():
    dataset = rows(0, 0, 0, 0).remove_columns(["images", "prompt"])
    return dataset.add_column("prompt", [[{"role": "user", "content": text}] for text in dataset["problem"]])


def train(trainer_class, model, folder, dataset, counts, config_class=None, processor=None, **kwargs):
    settings = {**SETTINGS, **kwargs.pop("settings", {})}
    if config_class is GRPOConfig:
        settings |= {"use_cpu": True, "bf16": False}
    args = options(folder, config_class, **settings)
    dataset = counting_rows(dataset, counts)
    trainer = make_trainer(recording(trainer_class), model, args, dataset, processing_class=processor, **kwargs)
    counts.clear()
    trainer.train()
    return trainer


# ---- a step


def test_a_step_with_images(any_model, tmp_path, counts):
    train(VisionGRPOTrainer, any_model, tmp_path, rows(1, 0, 2, 1), counts)
    assert counts == {"read": 4, "rendered": 4, "tokenized": 4, "processed": 4}


def test_a_step_of_stock_trl_with_images(tiny_model, tmp_path, counts):
    """Each row once for each completion and micro-batch, and twice through template, tokenizer and processor."""
    train(GRPOTrainer, tiny_model, tmp_path, rows(1, 1, 1, 1), counts, GRPOConfig)
    assert counts == {"read": 4 * 16, "rendered": 2 * 16, "tokenized": 2 * 16, "processed": 2 * 16}


@pytest.mark.parametrize(("trainer_class", "times"), [(VisionGRPOTrainer, 1), (GRPOTrainer, 4)])
def test_a_step_of_a_text_model(tmp_path, counts, trainer_class, times):
    model = save_text_model(tmp_path / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    config_class = GRPOConfig if trainer_class is GRPOTrainer else None
    trainer = train(trainer_class, model, tmp_path, text_rows(), counts, config_class, tokenizer)
    assert counts == {"read": 4 * times**2, "rendered": 4 * times, "tokenized": 4 * times}
    assert trainer.processing_class is tokenizer


def test_several_steps_of_a_sampling(tiny_model, tmp_path, counts):
    settings = {"steps_per_generation": 8, "num_iterations": 2, "max_steps": 5}
    train(VisionGRPOTrainer, tiny_model, tmp_path, rows(*[1] * 8), counts, settings=settings)
    # steps 1 to 4 are of the first sampling of eight rows, step 5 of the second
    assert counts == {"read": 8, "rendered": 16, "tokenized": 16, "processed": 16}


@pytest.mark.parametrize("mode", ["escalate", "parallel"])
def test_hints(tiny_model, tmp_path, counts, mode):
    dataset = rows(1, 0, 2, 1).add_column("reasoning_steps", [["One.", "Two.", "Three."]] * 4)
    never = lambda completions, **columns: [0.0] * len(completions)  # noqa: E731
    settings = {"hint_mode": mode}
    train(HintGRPOTrainer, tiny_model, tmp_path, dataset, counts, HintGRPOConfig, gate=never, settings=settings)
    # and the texts of two levels' hints
    assert counts == {"read": 4, "rendered": 4, "tokenized": 4 + 2, "processed": 4}


@pytest.mark.parametrize(("trainer_class", "extra"), [(VisionGRPOTrainer, 0), (HintGRPOTrainer, 8)])
def test_completions_are_decoded_once(tiny_model, tmp_path, monkeypatch, trainer_class, extra):
    """A gate that lets half of the groups pass sees what is trained on; the others are sampled twice more."""
    decoded = []
    fast = transformers.PreTrainedTokenizerFast
    before = fast._decode

    def counting(self, token_ids, **kwargs):
        decoded.append(tuple(token_ids))
        return before(self, token_ids, **kwargs)

    monkeypatch.setattr(fast, "_decode", counting)
    dataset = rows(1, 0, 2, 1).add_column("reasoning_steps", [["One.", "Two.", "Three."]] * 4)
    hints = trainer_class is HintGRPOTrainer
    gate = {"gate": lambda completions, id, **columns: [float(name[-1] in "02") for name in id]} if hints else {}
    args = options(tmp_path, HintGRPOConfig if hints else None, **SETTINGS)
    trainer = make_trainer(recording(trainer_class), tiny_model, args, dataset, **gate)
    trainer.train()
    assert len(decoded) == len(set(decoded)) >= 12 + extra


def test_what_is_decoded_is_the_same():
    plain = build_tokenizer()
    ours = remembering(plain)
    text = plain("Hi")["input_ids"]
    ids = [[*text, END], text, [*text, END]]
    for sequences in (ids, [], torch.tensor(ids[::2])):
        for skip in (False, True):
            assert ours.batch_decode(sequences, skip_special_tokens=skip) == plain.batch_decode(
                sequences, skip_special_tokens=skip
            )
    assert ours.batch_decode(ids) == ["Hi<|im_end|>", "Hi", "Hi<|im_end|>"]
    assert ours.batch_decode(ids, skip_special_tokens=True) == ["Hi"] * 3


def test_an_evaluation(tiny_model, tmp_path, counts):
    args = options(tmp_path, **{**SETTINGS, "per_device_eval_batch_size": 8})
    dataset = counting_rows(rows(1, 1, 1), counts)
    trainer = make_trainer(VisionGRPOTrainer, tiny_model, args, rows(1, 1, 1, 1), eval_dataset=dataset)
    trainer.evaluate()
    # batches of two rows and of one
    assert counts == {"read": 3, "rendered": 3, "tokenized": 3, "processed": 3}


def test_the_losses_are_the_same(tiny_model, tmp_path, counts, monkeypatch):
    logs = []
    for remembers in (True, False):
        if not remembers:
            monkeypatch.setattr("open_r1_vision.trainers.processing_once.remembering", lambda processor, _: processor)
            monkeypatch.setattr("open_r1_vision.trainers.fetching_once.RowsOnce", lambda dataset: dataset)
        settings = {"max_steps": 3, "beta": 0.04}
        trainer = train(VisionGRPOTrainer, tiny_model, tmp_path, rows(1, 0, 2, 1, 1), counts, settings=settings)
        logs.append((step_logs(trainer, "loss", "grad_norm", "reward", "kl"), trainer.outputs, dict(counts)))
    (ours, outputs, few), (wanted, expected, many) = logs
    assert ours == wanted
    for batch, other in zip(outputs, expected, strict=True):
        for name, value in other.items():
            assert torch.equal(batch[name], value) if isinstance(value, torch.Tensor) else batch[name] == value
    assert all(few[name] * 4 <= many[name] for name in few)


# ---- tokenizers and processors


def chats(*texts):
    return [[{"role": "user", "content": text}] for text in texts]


def test_what_the_tokenizer_returns_is_the_same(counts):
    tokenizer = build_tokenizer()
    tokenizer.chat_template = TEMPLATE
    other = remembering(tokenizer)
    assert type(other).__name__ == type(tokenizer).__name__
    assert isinstance(other, type(tokenizer))
    many = chats("How?", "Why not?", "How?", "How?")
    for call in (
        lambda it: it.apply_chat_template(many, add_generation_prompt=True, tokenize=True, return_dict=True),
        lambda it: it.apply_chat_template(many, add_generation_prompt=True, tokenize=True, return_dict=False),
        lambda it: it.apply_chat_template(many, add_generation_prompt=True),
        lambda it: it.apply_chat_template(many, tokenize=False),
        lambda it: it.apply_chat_template(many[1], add_generation_prompt=True, tokenize=False),
        lambda it: it.apply_chat_template(many[1], tokenize=True, return_dict=False),
        lambda it: it.apply_chat_template(many[2:], tokenize=False, shout=True),
        lambda it: it.apply_chat_template(many, tokenize=True, padding=True, return_tensors="pt", return_dict=True),
        lambda it: it(["a", "bb", "a"]),
        lambda it: it(text=["a", "bb", "a"]),
        lambda it: it(["a", "bb"], padding=True, return_tensors="pt"),
        lambda it: it("a"),
    ):
        for _ in range(2):
            expected, found = call(tokenizer), call(other)
            assert type(found) is type(expected)
            if isinstance(expected, transformers.BatchEncoding):
                assert found.keys() == expected.keys()
                for name, value in expected.items():
                    assert torch.equal(found[name], value) if torch.is_tensor(value) else found[name] == value
            else:
                assert found == expected
    counts.clear()
    other.apply_chat_template(many, add_generation_prompt=True, tokenize=True, return_dict=True)
    assert not counts


def test_templates_with_other_settings_are_rendered_again(counts):
    tokenizer = build_tokenizer()
    tokenizer.chat_template = TEMPLATE
    other = remembering(tokenizer)
    plain, loud = (
        other.apply_chat_template(chats("Why?"), tokenize=False, add_generation_prompt=True, **more)
        for more in ({}, {"shout": True})
    )
    assert plain != loud
    assert counts["rendered"] == 2
    assert other.apply_chat_template(chats("Why?"), tokenize=False, add_generation_prompt=True, tools=None) == plain
    assert counts["rendered"] == 2


def test_results_are_nobody_elses(tiny_model):
    """What a caller does to its tokens, others don't see."""
    processor = load_processor(tiny_model)
    for other in (remembering(processor.tokenizer), remembering(processor)):
        first = other(text=["a", "a"])["input_ids"]
        first[0].append(1)
        assert first[1] == other(text=["a"])["input_ids"][0] == [64]


def test_chats_differ_by_their_images(tiny_model, counts):
    other = remembering(load_processor(tiny_model))

    def chat(picture):
        return [{"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": "Why?"}]}]

    settings = {"tokenize": True, "return_dict": True}
    found = other.apply_chat_template([chat(image(1)), chat(image(2)), chat(image(1))], **settings)
    assert counts == {"rendered": 2, "tokenized": 2, "processed": 2}
    again = other.apply_chat_template([chat(image(2)), chat(image(2))], **settings)
    assert counts == {"rendered": 2, "tokenized": 2, "processed": 2}
    assert (again["pixel_values"][:16] == found["pixel_values"][16:32]).all()
    assert (found["pixel_values"][:16] != found["pixel_values"][16:32]).any()


class Resizing:
    """An image processor of another kind, which may fit images to one another."""

    def __init__(self, patcher):
        self.patcher, self.seen = patcher, []

    def __getattr__(self, name):
        return getattr(self.patcher, name)

    def __call__(self, images, **kwargs):
        self.seen.append(len(images))
        return self.patcher(images, **kwargs)


def test_an_image_processor_of_another_kind_sees_every_image(tiny_model, counts):
    """Chats are rendered once all the same."""
    processor = load_processor(tiny_model)
    processor.image_processor = Resizing(processor.image_processor)
    chat = [{"role": "user", "content": [{"type": "image", "image": image(1)}, {"type": "text", "text": "Why?"}]}]
    settings = {"tokenize": True, "return_dict": True}
    expected = processor.apply_chat_template([chat] * 3, **settings)
    counts.clear()
    found = remembering(processor).apply_chat_template([chat] * 3, **settings)
    assert processor.image_processor.seen == [3, 3]
    assert counts == {"rendered": 1, "tokenized": 3, "processed": 3}
    assert found.keys() == expected.keys()
    assert found["input_ids"] == expected["input_ids"]
    assert (found["pixel_values"] == expected["pixel_values"]).all()


# ---- rows


def test_rows_are_read_once_for_a_sampling():
    counts = Counter()
    dataset = RowsOnce(counting_rows(rows(1, 1, 0), counts))
    assert len(dataset) == 3
    first = dataset.__getitems__([2, 0, 0])
    assert [row["id"] for row in first] == ["row-2", "row-0", "row-0"]
    assert counts["read"] == 2
    assert first[1]["images"][0] is first[2]["images"][0]
    first[1]["prompt"][0]["content"].clear()
    first[1]["images"].clear()
    again = dataset.__getitems__([0, 1])
    assert counts["read"] == 3
    assert again[0] == rows(1, 1, 0)[0]
    assert dataset.__getitems__([2])[0]["id"] == "row-2"
    assert counts["read"] == 4
    assert dataset[1]["id"] == "row-1"


def test_a_data_set_with_a_transform_is_read_as_trl_does(tiny_model, tmp_path):
    """It may draw at random, for each completion anew."""
    dataset = rows(1, 1, 1, 1)
    calls = []

    def transform(batch):
        calls.append(len(batch["id"]))
        return dataset.features.decode_batch(batch)

    args = options(tmp_path, **SETTINGS)
    trainer = make_trainer(VisionGRPOTrainer, tiny_model, args, dataset.with_transform(transform))
    trainer.train()
    assert sum(calls) == 4 * 16


def test_workers_of_the_loader(tiny_model, tmp_path):
    """Each reads batches of its own, and the run is the same."""
    logs = []
    for workers in (0, 2):
        args = options(tmp_path, **{**SETTINGS, "max_steps": 3}, dataloader_num_workers=workers)
        trainer = make_trainer(VisionGRPOTrainer, tiny_model, args, rows(1, 0, 2, 1, 1))
        trainer.train()
        logs.append(step_logs(trainer, "loss", "grad_norm", "reward"))
    assert logs[0] == logs[1]
    assert len(logs[0]) == 3
