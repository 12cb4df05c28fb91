# SPDX-License-Identifier: Apache-2.0
"""VisionGRPOTrainer on tiny random models. Each repair stands beside the stock trainer that fails without it."""

import math

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from tiny_models import (
    IDS,
    VISION_IDS,
    build_processor,
    image,
    make_trainer,
    options,
    parity_reward,
    recording,
    rows,
    step_logs,
)
from transformers import AutoModelForImageTextToText
from trl import GRPOConfig, GRPOTrainer

from open_r1_vision.models import load_processor
from open_r1_vision.trainers import VisionGRPOTrainer

IMAGE, VIDEO = IDS["<|image_pad|>"], IDS["<|video_pad|>"]


# ---- the same as GRPOTrainer


@pytest.mark.parametrize("beta", [0.0, 0.04])
def test_losses_are_the_stock_trainers(any_model, tmp_path, beta):
    # the stock trainer may sample vision tokens; both are kept from them, so that they draw the same completions
    settings = {"max_steps": 3, "beta": beta, "generation_kwargs": {"suppress_tokens": VISION_IDS}}
    stock_args = options(tmp_path / "stock", GRPOConfig, use_cpu=True, bf16=False, **settings)
    stock = make_trainer(GRPOTrainer, any_model, stock_args, rows(1, 2, 2, 1))
    stock.train()
    ours_args = options(tmp_path / "ours", shared_prefix=False, **settings)
    ours = make_trainer(VisionGRPOTrainer, any_model, ours_args, rows(1, 2, 2, 1))
    ours.train()
    sharing = make_trainer(VisionGRPOTrainer, any_model, options(tmp_path / "sharing", **settings), rows(1, 2, 2, 1))
    sharing.train()
    names = ["loss", "grad_norm", "reward", "entropy", "completions/mean_length", *(["kl"] if beta else [])]
    assert len(step_logs(ours, "loss")) == 3
    assert step_logs(ours, *names) == step_logs(stock, *names)
    # one pass over a prompt and its completions rounds otherwise than separate passes
    for measured, wanted in zip(step_logs(sharing, *names), step_logs(stock, *names), strict=True):
        assert measured == pytest.approx(wanted, rel=1e-3, abs=1e-5)
    assert step_logs(sharing, "shared_prefix/tokens_saved")[0][0] > 0.3
    assert all(grad_norm > 0 for (grad_norm,) in step_logs(ours, "grad_norm"))
    if beta:
        assert [kl > 1e-4 for (kl,) in step_logs(ours, "kl")] == [False, True, True]
    for name, weight in stock.model.state_dict().items():
        assert torch.equal(weight, ours.model.state_dict()[name]), name


# ---- D1 and D2: rows without images


def test_rows_without_images_beside_rows_with_images(any_model, tmp_path):
    dataset = rows(1, None, None, 1)
    settings = {"per_device_train_batch_size": 8, "max_steps": 1}
    with pytest.raises(TypeError):
        make_trainer(GRPOTrainer, any_model, options(tmp_path / "stock", **settings), dataset).train()
    ours = make_trainer(VisionGRPOTrainer, any_model, options(tmp_path / "ours", **settings), dataset)
    ours.train()
    assert math.isfinite(step_logs(ours, "loss")[0][0])


@pytest.mark.parametrize("beta", [0.0, 0.04])
def test_micro_batches_without_images(any_model, tmp_path, beta):
    dataset = rows(1, 0)
    # one completion in each micro-batch, so that two of four hold no image
    settings = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4, "beta": beta}
    with pytest.raises(Exception):  # noqa: B017 each architecture fails in its own way
        make_trainer(GRPOTrainer, any_model, options(tmp_path / "stock", **settings), dataset).train()
    ours = make_trainer(VisionGRPOTrainer, any_model, options(tmp_path / "ours", **settings), dataset)
    ours.train()
    logs = step_logs(ours, "loss", "grad_norm", *(["kl"] if beta else []))
    assert len(logs) == 2
    assert all(math.isfinite(value) for log in logs for value in log)


def test_empty_pixel_values_count_as_none(any_model, tmp_path):
    trainer = make_trainer(VisionGRPOTrainer, any_model, options(tmp_path, beta=0.04), rows(1))
    ids = torch.tensor([[72, 105, 33]])
    pixels = torch.zeros(0, trainer.processing_class.image_processor.patch_size**2 * 6)
    for model in (trainer.model, trainer.ref_model):
        model.eval()
        without = model(input_ids=ids).logits
        empty = model(input_ids=ids, pixel_values=pixels, image_grid_thw=torch.zeros(0, 3, dtype=torch.long)).logits
        assert torch.equal(without, empty)


def test_a_data_set_without_images(tiny_model, tmp_path):
    for dataset in (rows(0, 0), rows(None, None), rows(0, 0).remove_columns("images")):
        trainer = make_trainer(VisionGRPOTrainer, tiny_model, options(tmp_path, max_steps=1), dataset)
        trainer.train()
        assert math.isfinite(step_logs(trainer, "loss")[0][0])


def test_none_one_and_three_images_in_a_batch(any_model, tmp_path):
    settings = {"per_device_train_batch_size": 6, "beta": 0.04, "max_steps": 1}
    trainer = make_trainer(recording(VisionGRPOTrainer), any_model, options(tmp_path, **settings), rows(0, 1, 3))
    trainer.train()
    output = trainer.outputs[0]
    assert sorted(output["num_images"]) == [0, 0, 1, 1, 3, 3]
    assert output["image_grid_thw"].tolist() == [[1, 4, 4]] * 8
    # 16 patches an image, merged four by four
    assert output["pixel_values"].shape[0] == 8 * 16
    tokens = (output["prompt_ids"] == IMAGE).sum(dim=1).tolist()
    assert tokens == [4 * count for count in output["num_images"]]
    # a row has the same log-probabilities among others as alone
    names = ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids")
    ids = torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1)
    mask = torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1)
    fields = {name: output[name] for name in names if name in output}
    together, alone = (
        trainer._get_per_token_logps_and_entropies(
            trainer.model.eval(), ids, mask, output["completion_ids"].shape[1], batch_size=size, **fields
        )[0]
        for size in (6, 1)
    )
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_one_image_in_a_column_of_its_own(tiny_model, tmp_path):
    seen = []

    def image_reward(completions, image, images, **columns):
        seen.extend(zip(image, images, strict=True))
        return [1.0] * len(completions)

    table = [{"prompt": [{"role": "user", "content": "Hi"}], "image": image(k), "id": str(k)} for k in range(2)]
    trainer = make_trainer(
        VisionGRPOTrainer, tiny_model, options(tmp_path, max_steps=1), Dataset.from_list(table), image_reward
    )
    trainer.train()
    assert len(seen) == 4
    assert all(images == [single] for single, images in seen)


# ---- D3: padding


def test_right_padding(any_model, tmp_path):
    def misplaced_types(trainer_class):
        processor = build_processor("qwen3_vl" if "qwen3" in any_model else "qwen2_5_vl")
        processor.tokenizer.padding_side = "right"
        args = options(tmp_path / trainer_class.__name__, max_steps=1)
        trainer = make_trainer(recording(trainer_class), any_model, args, rows(1, 2), processing_class=processor)
        trainer.train()
        output = trainer.outputs[0]
        types = output["mm_token_type_ids"][:, : output["prompt_ids"].shape[1]]
        return (types != (output["prompt_ids"] == IMAGE)).sum().item()

    assert misplaced_types(GRPOTrainer) > 0
    assert misplaced_types(VisionGRPOTrainer) == 0


# ---- sampling


def test_vision_tokens_are_never_sampled(any_model, tmp_path):
    def sample(trainer_class):
        model = AutoModelForImageTextToText.from_pretrained(any_model)
        bias = torch.zeros(264)
        bias[VISION_IDS] = 30.0
        model.lm_head.register_forward_hook(lambda module, args, output: output + bias)
        trainer = make_trainer(
            trainer_class, model, options(tmp_path), rows(1), processing_class=load_processor(any_model)
        )
        chat = [{"role": "user", "content": [{"type": "image", "image": image()}]}]
        completions, _ = trainer._generate_single_turn(*trainer._tokenize_prompts([chat] * 8), num_generations=2)
        return {token for ids in completions for token in ids}

    stock = sample(GRPOTrainer)
    assert {VIDEO, IDS["<|vision_start|>"]} <= stock
    assert IMAGE not in stock
    ours = sample(VisionGRPOTrainer)
    assert ours
    assert not ours & set(VISION_IDS)


def test_suppressed_tokens_of_the_user_stay(tiny_model, tmp_path):
    trainer = make_trainer(
        VisionGRPOTrainer, tiny_model, options(tmp_path, generation_kwargs={"suppress_tokens": [33]}), rows(1)
    )
    assert trainer.generation_config.suppress_tokens == [33, *sorted(VISION_IDS)]
    assert trainer.generation_kwargs["suppress_tokens"] == [33, *sorted(VISION_IDS)]


def test_greedy_replies(tiny_model, tmp_path):
    trainer = make_trainer(VisionGRPOTrainer, tiny_model, options(tmp_path, temperature=3.0), rows(1))
    config, kwargs = trainer.generation_config, trainer.generation_kwargs
    chats = [
        [{"role": "user", "content": [{"type": "text", "text": "What is this?"}]}],
        [{"role": "user", "content": [{"type": "image", "image": image()}, {"type": "text", "text": "And this?"}]}],
    ]
    first, second = trainer.generate_greedy(chats, 5), trainer.generate_greedy(chats, 5)
    assert first == second
    assert len(first) == 2
    # by hand: the most likely token, step by step
    processor = load_processor(tiny_model)
    ids = processor.apply_chat_template([chats[0]], add_generation_prompt=True, tokenize=True, return_dict=True)
    ids = list(ids["input_ids"][0])
    start = len(ids)
    for _ in range(5):
        logits = trainer.model(input_ids=torch.tensor([ids])).logits[0, -1]
        logits[VISION_IDS] = -math.inf
        ids.append(int(logits.argmax()))
    assert first[0] == processor.tokenizer.decode(ids[start:], skip_special_tokens=True)
    assert trainer.generation_config is config
    assert trainer.generation_kwargs is kwargs
    with pytest.raises(RuntimeError, match="stop"), trainer._greedy(5):
        assert trainer.generation_config.do_sample is False
        raise RuntimeError("stop")
    assert trainer.generation_config is config


# ---- bad input


def test_a_prompt_over_the_limit_stops_with_its_row_id(tiny_model, tmp_path):
    dataset = rows(0, 3, problems=["Hi", "Hi"])
    num_tokens = len(prompt_ids(tiny_model, 3))
    # 3 images with start, end and 4 patches each
    assert num_tokens == len(prompt_ids(tiny_model, 0)) + 3 * 6
    fits = options(tmp_path, max_prompt_tokens=num_tokens, max_steps=1)
    make_trainer(VisionGRPOTrainer, tiny_model, fits, dataset).train()
    trainer = make_trainer(VisionGRPOTrainer, tiny_model, options(tmp_path, max_prompt_tokens=num_tokens - 1), dataset)
    message = (
        rf"prompt of row 'row-1' has {num_tokens} tokens with its 3 image\(s\), but max_prompt_tokens is "
        rf"{num_tokens - 1}, .* Raise max_prompt_tokens, lower max_pixels, or drop the row"
    )
    with pytest.raises(ValueError, match=message):
        trainer.train()


def prompt_ids(model, num_images):
    content = [{"type": "image", "image": image()}] * num_images + [{"type": "text", "text": "Hi"}]
    return load_processor(model).apply_chat_template(
        [[{"role": "user", "content": content}]], add_generation_prompt=True, tokenize=True, return_dict=True
    )["input_ids"][0]


def raising_reward(completions, **columns):
    raise KeyError("no such thing")


def short_reward(completions, **columns):
    return [1.0]


def nan_reward(completions, **columns):
    return [0.0, math.nan] * (len(completions) // 2)


async def slow_raising_reward(completions, **columns):
    raise OSError("no server")


@pytest.mark.parametrize(
    ("reward", "error", "message"),
    [
        (raising_reward, RuntimeError, r"reward 'raising_reward' raised KeyError for the rows with id 'row-\d'"),
        (slow_raising_reward, RuntimeError, r"'slow_raising_reward' raised OSError .* 'row-\d', 'row-\d': no server"),
        (short_reward, ValueError, r"'short_reward' returned 1 values for 4 completions, the rows with id 'row-\d'"),
        (nan_reward, ValueError, r"'nan_reward' returned nan for the row with id 'row-\d' \(completion 1\)"),
    ],
)
def test_bad_rewards_are_named_with_their_rows(tiny_model, tmp_path, reward, error, message):
    trainer = make_trainer(VisionGRPOTrainer, tiny_model, options(tmp_path), rows(1, 1), reward)
    with pytest.raises(error, match=message):
        trainer.train()


def test_no_reward(tiny_model, tmp_path):
    with pytest.raises(ValueError, match="No reward source provided"):
        make_trainer(VisionGRPOTrainer, tiny_model, options(tmp_path), rows(1), None)


def test_a_model_folder_without_processor(tiny_model, tmp_path):
    AutoModelForImageTextToText.from_pretrained(tiny_model).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="No processor of a vision-language model could be loaded"):
        VisionGRPOTrainer(str(tmp_path), parity_reward, options(tmp_path / "run"), train_dataset=rows(1))


# ---- LoRA


@pytest.mark.parametrize("beta", [0.0, 0.04])
def test_lora(any_model, tmp_path, beta):
    settings = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4, "beta": beta}
    settings |= {"save_strategy": "steps", "save_steps": 1}
    peft_config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    trainer = make_trainer(
        VisionGRPOTrainer, any_model, options(tmp_path, **settings), rows(1, 0), peft_config=peft_config
    )
    before = {name: weight.clone() for name, weight in trainer.model.named_parameters()}
    trainer.train()
    changed = {name for name, weight in trainer.model.named_parameters() if not torch.equal(weight, before[name])}
    assert changed
    assert all("lora_" in name for name in changed)
    assert all(math.isfinite(loss) for (loss,) in step_logs(trainer, "loss"))
    resumed = make_trainer(
        VisionGRPOTrainer, any_model, options(tmp_path, **settings), rows(1, 0), peft_config=peft_config
    )
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert step_logs(resumed, "loss", "grad_norm") == step_logs(trainer, "loss", "grad_norm")
