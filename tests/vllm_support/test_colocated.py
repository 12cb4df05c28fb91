# SPDX-License-Identifier: Apache-2.0
"""Real engines in the trainer's process: prompts, weights, images and log-probabilities are the trainer's."""

import json
import math

import pytest

pytest.importorskip("vllm", reason="`make test-vllm` installs it")

import torch  # noqa: E402
from peft import LoraConfig  # noqa: E402
from processes import RECIPES  # noqa: E402
from tiny_models import IDS, VISION_IDS, build_processor, image, rows, step_logs  # noqa: E402

from open_r1_vision.models import load_processor  # noqa: E402
from open_r1_vision.trainers import (  # noqa: E402
    CaptionGRPOConfig,
    CaptionGRPOTrainer,
    HintGRPOConfig,
    HintGRPOTrainer,
)
from open_r1_vision.vllm_support import engine as engine_module  # noqa: E402

pytestmark = pytest.mark.vllm

FLOAT32, BFLOAT16 = 1e-5, 1e-3
NAME = "sampling/sampling_logp_difference/mean"
IMAGE = IDS["<|image_pad|>"]
ARCHITECTURES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")


def unequal(*image_counts):
    """`rows` with images of several sizes and shapes."""
    dataset = rows(*image_counts)
    sizes = [(56, 56), (84, 56), (56, 112), (28, 84), (112, 28)]
    images = [
        [image(7 * row + k, *sizes[(2 * row + k) % len(sizes)]) for k in range(count)]
        for row, count in enumerate(image_counts)
    ]
    return dataset.map(lambda example, index: {"images": images[index]}, with_indices=True, features=dataset.features)


def watch(trainer):
    """Note each push of weights, and each prompt and what vLLM made of it."""
    engine = trainer.vllm_generation
    notes = {"syncs": 0, "passes": 0, "prompts": []}
    push, generate = engine.sync_weights, engine.generate

    def counted():
        notes["syncs"] += 1
        push()

    def noted(prompts, images, num_generations, profiler=None):
        notes["passes"] += 1
        outputs = generate(prompts=prompts, images=images, num_generations=num_generations, profiler=profiler)
        notes["prompts"] += zip(prompts, outputs[0], strict=True)
        return outputs

    engine.sync_weights, engine.generate = counted, noted
    return notes


# ---- twenty steps


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_twenty_steps_in_float32(wide_model, make, gaps, architecture):
    """No image, one, and two of other sizes in a batch; the model changes much, and the tower with it."""
    trainer = make(wide_model(architecture), unequal(0, 1, 2), max_steps=20, max_completion_length=12)
    notes = watch(trainer)
    before = {name: weight.clone() for name, weight in trainer.model.named_parameters()}
    trainer.train()
    values = gaps(f"{architecture}, 0 to 2 images of several sizes, float32", trainer)
    assert len(values) == 20
    assert max(values) <= FLOAT32
    assert notes["syncs"] == 20
    assert all(list(ours) == list(theirs) for ours, theirs in notes["prompts"])
    assert max(list(ours).count(IMAGE) for ours, _ in notes["prompts"]) > 4
    moved = [name for name, weight in trainer.model.named_parameters() if not torch.equal(weight, before[name])]
    assert any("visual" in name for name in moved)
    assert any("lm_head" in name for name in moved)
    # the ban costs nothing: a ratio is 1 but for rounding, though no vision token was sampled
    for low, high in step_logs(trainer, *(f"sampling/importance_sampling_ratio/{end}" for end in ("min", "max"))):
        assert (low, high) == pytest.approx((1, 1), abs=1e-4)
    assert not {token for output in trainer.outputs for token in output["completion_ids"].unique().tolist()} & set(
        VISION_IDS
    )


@pytest.mark.parametrize("mixed", [False, True])
def test_twenty_steps_in_bfloat16(wide_model, make, gaps, mixed):
    """Weights in bfloat16, and bfloat16 over weights in float32, of which vLLM gets rounded copies."""
    batch = {"max_completion_length": 32, "per_device_train_batch_size": 8, "num_generations": 4}
    dtype = "float32" if mixed else "bfloat16"
    trainer = make(wide_model(), unequal(0, 1, 2), dtype=dtype, bf16=mixed, max_steps=20, **batch)
    assert trainer.vllm_generation.llm.model_config.dtype is torch.bfloat16
    trainer.train()
    values = gaps(f"qwen2_5_vl, 0 to 2 images, bfloat16{' over float32 weights' if mixed else ''}", trainer)
    assert len(values) == 20
    assert max(values) <= BFLOAT16


def test_the_trainers_own_rounding_is_as_large(starter, make, gaps):
    """A trained model is surer of its tokens than a random one, and bfloat16 moves its log-probabilities more."""
    trainer = make(
        starter, unequal(0, 1, 2), dtype="bfloat16", max_steps=5, learning_rate=0.0, max_completion_length=32
    )
    trainer.train()
    values = gaps("starter, 0 to 2 images, bfloat16, weights kept", trainer)
    own = []
    exact = make(starter, unequal(0, 1, 2), max_steps=1, use_vllm=False)
    for output in trainer.outputs:
        ids = torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1)
        mask = torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1)
        fields = {name: output[name] for name in ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids")}
        arguments = (ids, mask, output["completion_ids"].shape[1])
        with torch.no_grad():
            precise, _, _ = exact._get_per_token_logps_and_entropies(exact.model.eval(), *arguments, **fields)
        gap = (precise - output["old_per_token_logps"].float()).abs()
        own.append(gap[output["completion_mask"].bool()].mean().item())
    gaps("starter, the trainer's bfloat16 against its float32", [{NAME: value} for value in own])
    assert sum(values) <= 2 * sum(own)


# ---- kinds of rows and of training


def test_text_alone(wide_model, make, gaps):
    trainer = make(wide_model(), rows(0, 0).remove_columns("images"), max_steps=20)
    trainer.train()
    values = gaps("qwen2_5_vl, text alone, float32", trainer)
    assert len(values) == 20
    assert max(values) <= FLOAT32


def test_rows_that_are_streamed(wide_model, make):
    """They have no length and no places; the check takes the first ones."""
    trainer = make(wide_model(), unequal(1, 0).to_iterable_dataset(), max_steps=2)
    trainer.train()
    assert max(gap for (gap,) in step_logs(trainer, NAME)) <= FLOAT32


@pytest.mark.parametrize(("dtype", "limit"), [("float32", FLOAT32), ("bfloat16", BFLOAT16)])
def test_lora(wide_model, make, gaps, dtype, limit):
    """The merged weights arrive: the adapter moves the policy far from where it was."""
    config = LoraConfig(r=4, lora_alpha=64, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM")
    settings = {"learning_rate": 3e-2 if dtype == "float32" else 3e-3}
    trainer = make(wide_model(), unequal(1, 2), peft_config=config, max_steps=20, dtype=dtype, **settings)
    trainer.train()
    values = gaps(f"qwen2_5_vl, LoRA, {dtype}", trainer)
    assert len(values) == 20
    assert max(values) <= limit
    # what vLLM would have without the last push
    model, last = trainer.model, trainer.outputs[-1]
    with torch.no_grad(), model.disable_adapter():
        ids = torch.cat([last["prompt_ids"], last["completion_ids"]], dim=1)
        mask = torch.cat([last["prompt_mask"], last["completion_mask"]], dim=1)
        fields = {name: last[name] for name in ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids")}
        base, _, _ = trainer._get_per_token_logps_and_entropies(
            model, ids, mask, last["completion_ids"].shape[1], **fields
        )
    moved = (base - last["old_per_token_logps"]).abs()[last["completion_mask"].bool()].mean().item()
    assert moved > 1e-3


def test_the_policy_reads_captions_without_another_push(wide_model, make, gaps):
    asked = []

    def reward(completions, caption_answer, **columns):
        asked.extend(caption_answer)
        return [index % 2 for index in range(len(completions))]

    class Captioning(CaptionGRPOTrainer):
        def extract_caption(self, text):
            return text or "nothing"

    settings = {"reward": reward, "max_steps": 3, "reader_max_tokens": 5, "vllm_max_model_length": 1024}
    trainer = make(wide_model(), unequal(1, 2), Captioning, CaptionGRPOConfig, **settings)
    notes = watch(trainer)
    trainer.train()
    assert max(gaps("qwen2_5_vl, captions that the policy reads, float32", trainer)) <= FLOAT32
    # two passes of the check, and in each step one to sample and one to read
    assert (notes["syncs"], notes["passes"]) == (3, 2 + 3 * 2)
    assert len(asked) == 12
    # greedy sampling is over after each reading
    assert (trainer.vllm_generation.temperature, trainer.vllm_generation.max_completion_length) == (1.0, 6)


def test_hints_without_another_push(wide_model, make, gaps):
    dataset = unequal(1, 0).add_column("reasoning_steps", [["One.", "Two.", "Three."]] * 2)
    settings = {"gate": lambda completions, **_: [0.0] * len(completions), "max_steps": 3, "shuffle_dataset": False}
    trainer = make(wide_model(), dataset, HintGRPOTrainer, HintGRPOConfig, **settings)
    notes = watch(trainer)
    trainer.train()
    # the hint's tokens count as certain on both sides, and stand outside of the loss
    assert max(gaps("qwen2_5_vl, three levels of hints, float32", trainer)) <= FLOAT32
    assert (notes["syncs"], notes["passes"]) == (3, 2 + 3 * 3)
    tokenizer = load_processor(wide_model()).tokenizer
    assert any(tokenizer.decode(ids).endswith("<think>One. Two.") for ids, _ in notes["prompts"])


def test_sleep_without_another_push(wide_model, make, gaps):
    """On a GPU sleep throws the weights away; on a CPU it does nothing, and TRL pushes them all the same."""
    dataset = unequal(1, 0).add_column("reasoning_steps", [["One.", "Two.", "Three."]] * 2)
    settings = {"gate": lambda completions, **_: [0.0] * len(completions), "max_steps": 3, "shuffle_dataset": False}
    sleeping = {"vllm_enable_sleep_mode": True}
    trainer = make(wide_model(), dataset, HintGRPOTrainer, HintGRPOConfig, **settings, **sleeping)
    notes = watch(trainer)
    trainer.train()
    assert max(gaps("qwen2_5_vl, sleep (without effect on a CPU), float32", trainer)) <= FLOAT32
    # the check's two passes, and three of each step; one push more than steps, before the first of them was a second
    assert (notes["syncs"], notes["passes"]) == (3 + 1, 2 + 3 * 3)


def test_the_update_shares_prompts(wide_model, make, gaps):
    """The same samples, so the same losses, with each prompt encoded once or once for each completion."""
    logs = []
    for shared in (True, False):
        settings = {"per_device_train_batch_size": 8, "num_generations": 4, "max_steps": 3, "learning_rate": 1e-4}
        trainer = make(wide_model(), unequal(2, 1), shared_prefix=shared, **settings)
        trainer.train()
        assert max(gaps(f"qwen2_5_vl, shared_prefix {str(shared).lower()}, float32", trainer)) <= FLOAT32
        logs.append((step_logs(trainer, "loss", "grad_norm", "reward", "entropy"), trainer.outputs))
    (shared, sampled), (separate, sampled_again) = logs
    for output, again in zip(sampled, sampled_again, strict=True):
        assert torch.equal(output["completion_ids"], again["completion_ids"])
    for of_shared, of_separate in zip(shared, separate, strict=True):
        assert of_shared == pytest.approx(of_separate, rel=1e-3, abs=1e-6)
    assert all(norm > 1e-3 for _, norm, _, _ in shared)


def test_the_starters_recipe(small_engines, tmp_path, gaps):
    """Visionary-R1 on trained weights: captions that the policy reads, evaluation, checkpoint, final model."""
    from open_r1_vision import train

    settings = {
        "use_vllm": True,
        "vllm_max_model_length": 512,
        "prompts_per_step": 8,
        "max_completions_per_device": 32,
        "max_steps": 4,
        "save_steps": 4,
        "eval_every": 2,
        "dataset_options": json.dumps({"count": 64}),
        "eval_dataset_options": json.dumps({"count": 16}),
        "output_dir": tmp_path,
    }
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    results = train.main(["--config", str(RECIPES / "starter" / "visionary_r1.yaml"), *words])
    history = json.loads((tmp_path / "checkpoint-4" / "trainer_state.json").read_text())["log_history"]
    values = gaps("recipes/starter/visionary_r1.yaml, float32", history)
    assert len(values) == 4
    assert max(values) <= FLOAT32
    assert results
    rewards = [entry["rewards/format_reward/mean"] for entry in history if "rewards/format_reward/mean" in entry]
    # a trained policy keeps to its format, whoever samples from it
    assert min(rewards) > 0.8


# ---- the ban


def test_log_probabilities_are_those_of_the_whole_vocabulary(wide_model, make):
    """With more than half of the probability on banned tokens, at a temperature, against the trainer's by hand."""
    trainer = make(wide_model(), rows(1, 1), temperature=0.7, max_completion_length=4, max_steps=1)
    head = trainer.model.lm_head.weight
    with torch.no_grad():
        head[VISION_IDS] = head[VISION_IDS] * 40
    prompt_ids, images, fields = trainer._encode([[{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]] * 4)
    completions, logprobs = trainer._generate_single_turn(prompt_ids, images, fields, 1)
    shares = []
    for prompt, ids, values in zip(prompt_ids, completions, logprobs, strict=True):
        with torch.no_grad():
            logits = trainer.model(input_ids=torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1] / 0.7
        exact = logits.log_softmax(-1)
        shares += exact[:, VISION_IDS].exp().sum(-1).tolist()
        assert values == pytest.approx([float(exact[k, token]) for k, token in enumerate(ids)], abs=2e-5)
    assert max(shares) > 0.5
    # without the correction they would be off by this much
    assert -math.log1p(-max(shares)) > 0.5


# ---- sampling that is bent on purpose


@pytest.mark.parametrize(
    "bent",
    [
        {"generation_kwargs": {"top_p": 0.5}},
        {"generation_kwargs": {"top_k": 5}},
        {"generation_kwargs": {"frequency_penalty": 1.0}},
        {"generation_kwargs": {"logit_bias": {33: 5.0}}},
        {"generation_kwargs": {"allowed_token_ids": [32, 33, 34]}},
        {"vllm_structured_outputs_regex": "[ab]+"},
        {"top_p": 0.5},
    ],
)
def test_settings_that_bend_sampling_are_no_fault(wide_model, make, bent):
    """vLLM's log-probabilities are far from the trainer's then, as they should be: the check leaves them out."""
    trainer = make(wide_model(), rows(1, 1), max_steps=2, vllm_importance_sampling_correction=False, **bent)
    assert 0 < trainer.measure_vllm_gap() <= FLOAT32
    before = dict(trainer.vllm_generation.generation_kwargs)
    trainer.train()
    assert trainer.state.global_step == 2
    assert trainer.vllm_generation.generation_kwargs == before


def test_what_the_correction_would_make_of_a_nucleus(wide_model, make):
    """Why it is refused: each token's ratio is the mass of its nucleus, a completion's is their product."""
    trainer = make(wide_model(), rows(1, 1), max_steps=1, max_completion_length=12)
    # TRL's way: nothing stands against it there
    trainer.vllm_generation.top_p = 0.5
    trainer.train()
    names = (f"sampling/importance_sampling_ratio/{end}" for end in ("min", "max"))
    ((least, largest),) = step_logs(trainer, *names)
    # a completion of one token, and one of twelve
    assert largest < 0.7
    assert least < 0.7**8


# ---- what the check stops


def test_the_check_comes_once_and_leaves_the_random_numbers_alone(wide_model, make):
    trainer = make(wide_model(), unequal(1, 0), max_steps=1)
    state = torch.random.get_rng_state()
    assert 0 < trainer.measure_vllm_gap() <= FLOAT32
    assert torch.equal(torch.random.get_rng_state(), state)


def test_prompts_expanded_twice(wide_model, make, monkeypatch):
    """What TRL does by itself: the images' tokens go in expanded, and vLLM expands the first of each again."""
    monkeypatch.setattr(engine_module, "collapse_runs", lambda ids, token: ids)
    trainer = make(wide_model(), rows(1, 1))
    with pytest.raises(ValueError, match=r"another prompt than the trainer, in row 0 .* expanded twice"):
        trainer.train()
    assert trainer.state.global_step == 0
    # and the gap alone would show it
    monkeypatch.setattr(engine_module, "check_prompts", lambda given, seen: None)
    assert trainer.measure_vllm_gap() > 1e-3


def test_other_pixel_limits_are_passed_on(wide_model, make, gaps):
    processor = load_processor(wide_model(), max_pixels=56 * 56)
    dataset = rows(1, 1)
    large = [[image(3, 112, 112)], [image(4, 112, 84)]]
    dataset = dataset.map(lambda row, k: {"images": large[k]}, with_indices=True, features=dataset.features)
    trainer = make(wide_model(), dataset, processing_class=processor, max_steps=2)
    notes = watch(trainer)
    trainer.train()
    assert max(gaps("qwen2_5_vl, pixel limits of the trainer alone, float32", trainer)) <= FLOAT32
    # 56 x 56 pixels are 4 tokens, the folder's limit would make 16 of the image
    assert max(list(ours).count(IMAGE) for ours, _ in notes["prompts"]) == 4


def test_other_pixel_limits_that_are_not_passed_on(wide_model, make, monkeypatch):
    monkeypatch.setattr(engine_module, "processor_settings", lambda processor, model: {})
    dataset = rows(1)
    dataset = dataset.map(lambda row: {"images": [image(3, 112, 112)]}, features=dataset.features)
    trainer = make(wide_model(), dataset, processing_class=load_processor(wide_model(), max_pixels=56 * 56))
    with pytest.raises(ValueError, match=r"another prompt than the trainer.* other pixel limits"):
        trainer.train()


def test_images_seen_in_another_way(wide_model, make):
    processor = build_processor()
    processor.image_processor.image_mean = [0.0, 0.0, 0.0]
    with pytest.raises(ValueError, match=r"image_mean is \[0.0, 0.0, 0.0\] in the trainer, \(0.48.*save_pretrained"):
        make(wide_model(), rows(1, 1), processing_class=processor)


def test_weights_that_never_arrive(wide_model, make):
    """A model that was changed after it was loaded, while vLLM keeps what lies in the folder."""
    trainer = make(wide_model(), rows(1, 1))
    trainer.vllm_generation.sync_weights = lambda: None
    with torch.no_grad():
        trainer.model.lm_head.weight.mul_(1.5)
    with pytest.raises(ValueError, match=r"differ from the trainer's by [\d.e-]+ in the mean, .* did not reach vLLM"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_weights_that_stop_to_arrive(wide_model, make):
    """The folder's weights are right at the start; the first step's are missing, which the second sampling shows."""
    trainer = make(wide_model(), rows(1, 1), learning_rate=1e-2, max_steps=5)
    trainer.vllm_generation.sync_weights = lambda: None
    with pytest.raises(ValueError, match="doesn't sample from the policy that is trained"):
        trainer.train()
    assert trainer.state.global_step == 1


def test_image_features_that_outlive_their_weights(wide_model, make, monkeypatch):
    """What TRL does by itself: the same picture is not looked at again with the new vision tower."""
    trainer = make(wide_model(), rows(1, 1), learning_rate=1e-2, max_steps=5, vllm_max_logprob_gap=100.0)
    assert trainer.vllm_generation.llm.llm_engine.reset_encoder_cache.__name__ == "reset_encoder_cache"
    monkeypatch.setattr(type(trainer.vllm_generation.llm.llm_engine), "reset_encoder_cache", lambda engine: None)
    trainer.train()
    stale = [gap for (gap,) in step_logs(trainer, NAME)]
    assert stale[0] <= FLOAT32
    assert max(stale[1:]) > 1e-4


def test_a_limit_of_ones_own(wide_model, make):
    trainer = make(wide_model(), rows(1, 1), vllm_max_logprob_gap=1e-12, max_steps=1)
    with pytest.raises(ValueError, match=r"more than vllm_max_logprob_gap allows in float32 \(1e-12\)"):
        trainer.train()
