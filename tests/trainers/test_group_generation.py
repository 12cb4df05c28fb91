# SPDX-License-Identifier: Apache-2.0
"""Trainers whose completions share a pass over their prompt, beside the same trainers without that."""

import logging

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from processes import rows as process_rows
from processes import run_train, write_recipe
from text_model import save_text_model
from tiny_models import image, make_trainer, options, recording, rows, step_logs
from transformers import AutoTokenizer

from open_r1_vision.models import load_processor
from open_r1_vision.trainers import (
    CaptionGRPOConfig,
    CaptionGRPOTrainer,
    FilteredGRPOConfig,
    FilteredGRPOTrainer,
    HintGRPOConfig,
    HintGRPOTrainer,
    VisionGRPOTrainer,
    processing_once,
)
from open_r1_vision.trainers.group_generation import distinct
from open_r1_vision.trainers.processing_once import remembering

#: Four prompts with four completions in a step: one image, none, two, and one.
COUNTS = (1, 0, 2, 1)
SETTINGS = {"per_device_train_batch_size": 16, "num_generations": 4, "max_completion_length": 12}
LOGGED = ("loss", "grad_norm", "reward", "completions/mean_length")


def counted(trainer):
    """Counts what a trainer's generation does: images in the vision tower, prompts in the decoder."""
    seen = {"images": 0, "prompts": 0, "generating": False}
    generate = trainer._generate_single_turn

    def generating(*args, **kwargs):
        seen["generating"] = True
        try:
            return generate(*args, **kwargs)
        finally:
            seen["generating"] = False

    def count_images(module, args, kwargs):
        if seen["generating"]:
            seen["images"] += len(kwargs["grid_thw"])

    def count_prompts(module, args, kwargs):
        given = kwargs["input_ids"] if kwargs.get("inputs_embeds") is None else kwargs["inputs_embeds"]
        if seen["generating"] and given.shape[1] > 1:
            seen["prompts"] += given.shape[0]

    trainer._generate_single_turn = generating
    model = trainer.model.get_base_model() if hasattr(trainer.model, "get_base_model") else trainer.model
    if hasattr(model.model, "visual"):
        model.model.visual.register_forward_pre_hook(count_images, with_kwargs=True)
    model.get_decoder().register_forward_pre_hook(count_prompts, with_kwargs=True)
    return seen


def train(trainer_class, model, folder, dataset, config_class=None, **settings):
    merged = {**SETTINGS, **settings}
    extra = {
        name: merged.pop(name) for name in ("peft_config", "gate", "reward", "processing_class") if name in merged
    }
    trainer = make_trainer(recording(trainer_class), model, options(folder, config_class, **merged), dataset, **extra)
    seen = counted(trainer)
    trainer.train()
    return trainer, seen


def assert_equal_batches(ours, plain):
    assert len(ours.outputs) == len(plain.outputs)
    for batch, expected in zip(ours.outputs, plain.outputs, strict=True):
        assert batch.keys() == expected.keys()
        for name, value in expected.items():
            same = torch.equal(batch[name], value) if isinstance(value, torch.Tensor) else batch[name] == value
            assert same, name


# ---- the same runs


def test_a_run_is_the_same_with_and_without(any_model, tmp_path):
    settings = {"max_steps": 3, "beta": 0.04, "temperature": 1.3, "top_k": 100}
    ours, seen = train(VisionGRPOTrainer, any_model, tmp_path / "ours", rows(*COUNTS), **settings)
    plain, before = train(
        VisionGRPOTrainer, any_model, tmp_path / "plain", rows(*COUNTS), group_generation=False, **settings
    )
    assert_equal_batches(ours, plain)
    assert step_logs(ours, *LOGGED) == step_logs(plain, *LOGGED)
    assert (seen["images"], seen["prompts"]) == (3 * sum(COUNTS), 3 * len(COUNTS))
    assert (before["images"], before["prompts"]) == (4 * 3 * sum(COUNTS), 4 * 3 * len(COUNTS))


@pytest.mark.parametrize(
    "settings",
    [
        {"peft_config": LoraConfig(r=4, target_modules=["q_proj", "v_proj"]), "gradient_checkpointing": True},
        {"stop_token": "e", "mask_truncated_completions": True},
        {"pad_to_multiple_of": 64, "repetition_penalty": 1.2, "min_p": 0.001},
    ],
    ids=["lora and checkpointing", "stop token", "padding"],
)
def test_options_that_touch_generation(tiny_model, tmp_path, settings):
    ours, seen = train(VisionGRPOTrainer, tiny_model, tmp_path / "ours", rows(*COUNTS), **settings)
    plain, _ = train(VisionGRPOTrainer, tiny_model, tmp_path / "p", rows(*COUNTS), group_generation=False, **settings)
    assert_equal_batches(ours, plain)
    assert seen["prompts"] == 2 * len(COUNTS)


def test_a_text_model(tmp_path):
    folder = save_text_model(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    dataset = rows(0, 0, 0, 0).remove_columns("images")
    chats = [[{"role": "user", "content": problem}] for problem in dataset["problem"]]
    dataset = Dataset.from_list([{**row, "prompt": words} for row, words in zip(dataset, chats, strict=True)])
    ours, seen = train(VisionGRPOTrainer, folder, tmp_path / "ours", dataset, processing_class=tokenizer)
    plain, _ = train(
        VisionGRPOTrainer, folder, tmp_path / "plain", dataset, processing_class=tokenizer, group_generation=False
    )
    assert_equal_batches(ours, plain)
    assert seen["prompts"] == 2 * 4


def test_captions(tiny_model, tmp_path):
    settings = {"config_class": CaptionGRPOConfig, "caption_section": None, "reader_max_tokens": 5}
    ours, seen = train(CaptionGRPOTrainer, tiny_model, tmp_path / "ours", rows(*COUNTS), **settings)
    plain, _ = train(
        CaptionGRPOTrainer, tiny_model, tmp_path / "plain", rows(*COUNTS), group_generation=False, **settings
    )
    assert_equal_batches(ours, plain)
    assert step_logs(ours, *LOGGED) == step_logs(plain, *LOGGED)
    # captions are read without images, and hardly one is like another
    assert seen["images"] == 2 * sum(COUNTS)
    assert 2 * len(COUNTS) < seen["prompts"] <= 2 * (len(COUNTS) + 16)


def never(completions, response_start, **columns):
    """Right at the last level alone."""
    return [float(start.count(".") >= 2) for start in response_start]


@pytest.mark.parametrize("mode", ["escalate", "parallel"])
def test_hints(tiny_model, tmp_path, mode):
    dataset = rows(*COUNTS)
    dataset = dataset.add_column("reasoning_steps", [[f"{'x' * n}." for n in (1, 5, 9)]] * len(COUNTS))
    settings = {"config_class": HintGRPOConfig, "hint_mode": mode, "gate": never, "max_steps": 1}
    ours, seen = train(HintGRPOTrainer, tiny_model, tmp_path / "ours", dataset, **settings)
    plain, _ = train(HintGRPOTrainer, tiny_model, tmp_path / "plain", dataset, group_generation=False, **settings)
    assert_equal_batches(ours, plain)
    # levels 0, 1 and 2 of each prompt
    assert (seen["images"], seen["prompts"]) == (3 * sum(COUNTS), 3 * len(COUNTS))


def test_filtered_groups(tiny_model, tmp_path):
    settings = {"config_class": FilteredGRPOConfig, "filter_rounds": 2, "max_steps": 1}
    settings["gate"] = lambda completions, **columns: [0.0] * len(completions)
    dataset = rows(*COUNTS, 1, 0, 1, 1)
    ours, seen = train(FilteredGRPOTrainer, tiny_model, tmp_path / "ours", dataset, **settings)
    plain, _ = train(FilteredGRPOTrainer, tiny_model, tmp_path / "plain", dataset, group_generation=False, **settings)
    assert_equal_batches(ours, plain)
    assert seen["prompts"] <= 3 * len(COUNTS)


def test_greedy_replies(tiny_model, tmp_path):
    chats = [row["prompt"] for row in rows(0, 0, 0)]
    trainer = make_trainer(VisionGRPOTrainer, tiny_model, options(tmp_path), rows(1))
    seen = counted(trainer)
    replies = trainer.generate_greedy([chats[0], chats[1], chats[0], chats[2]], 8)
    assert replies[0] == replies[2]
    assert seen["prompts"] == 3
    trainer.args.group_generation = False
    assert trainer.generate_greedy([chats[0], chats[1], chats[0], chats[2]], 8) == replies


def test_what_it_cannot_do_is_left_to_trl_and_said_once(tiny_model, tmp_path, caplog):
    settings = {"generation_kwargs": {"prefill_chunk_size": 512}, "cache_implementation": "dynamic"}
    with caplog.at_level(logging.WARNING):
        _, seen = train(VisionGRPOTrainer, tiny_model, tmp_path, rows(*COUNTS), **settings)
    assert seen["prompts"] == 2 * 16
    said = [record.getMessage() for record in caplog.records if "group_generation" in record.getMessage()]
    assert len(said) == 1
    assert "prefill_chunk_size is 512" in said[0]


# ---- several processes


@pytest.mark.parametrize("per_device", [2, 4])
def test_two_processes(tiny_model, tmp_path, per_device):
    """With 2 completions a micro-batch and 4 in a group, batches begin in the middle of groups."""
    logs = []
    for group_generation in (True, False):
        folder = tmp_path / str(group_generation)
        recipe = write_recipe(
            folder,
            tiny_model,
            max_completions_per_device=per_device,
            prompts_per_step=1 if per_device == 2 else 2,
            group_generation=group_generation,
            max_steps=2,
            save_strategy="no",
        )
        outcome = run_train(recipe, timeout=280)
        assert outcome.code == 0, outcome.log[-3000:]
        logs.append([line for line in outcome.log.splitlines() if "'loss'" in line or "rewards" in line])
    assert logs[0]
    without_time = [[{k: v for k, v in _parse(line).items() if not _is_time(k)} for line in log] for log in logs]
    assert without_time[0] == without_time[1]


def _parse(line):
    import ast

    return ast.literal_eval(line[line.index("{") : line.rindex("}") + 1])


def _is_time(name):
    return name.startswith("seconds/") or "time" in name or "second" in name or "runtime" in name


# ---- telling prompts apart


def test_distinct_prompts_of_a_batch():
    red, also_red, blue = image(1), image(1), image(2)
    ids = [[1, 9, 2], [1, 9, 2], [1, 9, 2], [3], [3, 4]]
    fields = {
        "pixel_values": torch.arange(3 * 4.0)[:, None].repeat_interleave(2, 1),
        "image_grid_thw": torch.tensor([[1, 2, 2]] * 3),
        "mm_token_type_ids": [[0, 1, 0]] * 3 + [[0], [0, 0]],
    }
    prompts = distinct(ids, [[red], [also_red], [blue], None, []], fields)
    assert prompts.rows == [0, 0, 1, 2, 3]
    assert prompts.ids == [[1, 9, 2], [1, 9, 2], [3], [3, 4]]
    assert prompts.image_counts == [1, 1, 0, 0]
    assert prompts.fields["image_grid_thw"].shape == (2, 3)
    assert prompts.fields["pixel_values"][:, 0].tolist() == [0, 1, 2, 3, 8, 9, 10, 11]
    assert prompts.fields["mm_token_type_ids"] == [[0, 1, 0], [0, 1, 0], [0], [0, 0]]


def test_fields_of_an_unknown_kind():
    assert "image_sizes" in distinct([[1]], [[image(1)]], {"image_sizes": [[2, 2]]})
    assert "several parts" in distinct([[1]], [[image(1)]], {"pixel_values": torch.zeros(5, 3, 4, 4)})
    assert distinct([[1], [1]], None, {}).rows == [0, 0]


# ---- the processor


def calls_of(processor):
    """Counts of images processed and texts tokenized, from now on."""
    seen = {"images": 0, "texts": 0}
    cls = type(processor.image_processor)
    counting = type(
        cls.__name__,
        (cls,),
        {
            "__call__": lambda self, images, *args, **kwargs: (
                seen.__setitem__("images", seen["images"] + len(processing_once.make_flat_list_of_images(images))),
                super(counting, self).__call__(images, *args, **kwargs),
            )[1]
        },
    )
    processor.image_processor.__class__ = counting
    tokenizer = type(processor.tokenizer)
    counting_texts = type(
        tokenizer.__name__,
        (tokenizer,),
        {
            "__call__": lambda self, text, *args, **kwargs: (
                seen.__setitem__("texts", seen["texts"] + (1 if isinstance(text, str) else len(text))),
                super(counting_texts, self).__call__(text, *args, **kwargs),
            )[1]
        },
    )
    processor.tokenizer.__class__ = counting_texts
    return seen


def test_each_image_and_prompt_is_processed_once_a_step(any_model, tmp_path):
    processor = load_processor(any_model)
    seen = calls_of(processor)
    trainer, _ = train(VisionGRPOTrainer, any_model, tmp_path, rows(*COUNTS), processing_class=processor, max_steps=1)
    assert seen == {"images": sum(COUNTS), "texts": len(COUNTS)}
    assert trainer.processing_class is processor


def chat(text, *images):
    parts = [{"type": "image", "image": part} for part in images]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def test_an_image_of_several_prompts_is_processed_once(tiny_model):
    processor = load_processor(tiny_model)
    seen = calls_of(processor)
    other = remembering(processor)
    chats = [chat("How many?", image(1)), chat("Why?", image(1)), chat("Why?", image(2), image(1)), chat("Why?")]
    for _ in range(2):
        other.apply_chat_template(chats, add_generation_prompt=True, tokenize=True, return_dict=True)
    assert seen == {"images": 2, "texts": 4}
    remembering(processor).apply_chat_template(chats, tokenize=True, return_dict=True)
    assert seen == {"images": 4, "texts": 8}


def test_what_the_processor_returns_is_the_same_to_the_bit(any_model):
    processor = load_processor(any_model)
    data = process_rows(count=4, texts=(2,))
    data[1]["images"] = [image(3, 90, 40), image(4, 200, 300)]
    chats = [chat(row["problem"], *row["images"]) for row in data for _ in range(3)]
    images = [[part["image"] for part in chat[0]["content"] if part["type"] == "image"] for chat in chats]
    texts = [processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False) for chat in chats]
    other = remembering(processor)
    assert isinstance(other, type(processor))
    assert type(other).__name__ == type(processor).__name__
    settings = {"add_generation_prompt": True, "tokenize": True, "return_dict": True}
    for _ in range(2):
        for call in (
            lambda it: it.apply_chat_template(chats, **settings),
            lambda it: it(images=images, text=texts, padding=True, return_tensors="pt"),
            lambda it: it(images=images, text=texts, padding=True, padding_side="right", return_tensors="pt"),
            lambda it: it(text=texts[6:9], padding=True, return_tensors="pt"),
            lambda it: it.apply_chat_template(chats[6:9], **settings),
            lambda it: it.apply_chat_template(chats[0], **settings),
            lambda it: it(images=images[0][0], text=texts[0], return_tensors="pt"),
            lambda it: it.image_processor(images=images[0], return_tensors="pt"),
        ):
            expected, found = call(processor), call(other)
            assert type(found) is type(expected)
            assert found.keys() == expected.keys()
            for name, value in expected.items():
                assert type(found[name]) is type(value), name
                if isinstance(value, list):
                    assert found[name] == value, name
                else:
                    assert found[name].dtype == value.dtype
                    assert (found[name] == value).all() and found[name].shape == value.shape, name
