# SPDX-License-Identifier: Apache-2.0
"""Samples with random numbers of their own: exactly the distribution of stock sampling, whatever the batch."""

import numpy as np
import pytest
import torch
from tiny_models import END, IDS, VISION_IDS, image
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

from open_r1_vision.generation import encode_chats
from open_r1_vision.models import load_processor
from open_r1_vision.sampling.draws import Prompt, seed_of, uniforms
from open_r1_vision.sampling.options import DrawArguments, SampleArguments
from open_r1_vision.sampling.seeded import SeededChoice, TransformersSampler


def choose(logits, numbers, temperature=1.0, top_p=1.0):
    """The tokens that some numbers choose from one row of logits."""
    scores = torch.tensor(logits, dtype=torch.float32).expand(len(numbers), -1)
    choice = SeededChoice(torch.tensor(numbers, dtype=torch.float64)[:, None], temperature, top_p, num_before=3)
    chosen = choice(torch.zeros(len(numbers), 3, dtype=torch.long), scores)
    assert (chosen == 0).sum(dim=-1).tolist() == [1] * len(numbers)
    assert torch.isinf(chosen).sum(dim=-1).tolist() == [len(logits) - 1] * len(numbers)
    return chosen.argmax(dim=-1).tolist()


def grid(count):
    return ((np.arange(count) + 0.5) / count).tolist()


def test_tokens_come_as_often_as_their_probability_says():
    logits = np.log([0.15, 0.5, 0.05, 0.3])
    assert np.bincount(choose(logits, grid(1000))).tolist() == [150, 500, 50, 300]
    # of 0.5 and 0.3, which reach 0.75 together, 5 / 8 and 3 / 8 are left
    assert np.bincount(choose(logits, grid(1000), top_p=0.75)).tolist() == [0, 625, 0, 375]
    # at temperature 2: square roots, normalised
    roots = np.sqrt([0.15, 0.5, 0.05, 0.3])
    assert np.bincount(choose(logits, grid(10_000), temperature=2.0)) == pytest.approx(
        10_000 * roots / roots.sum(), abs=1
    )
    assert choose(logits, [0.0, 1 - 2**-53]) == [0, 3]
    assert choose(logits, [0.0, 1 - 2**-53], top_p=0.4) == [1, 1]


def test_the_distribution_is_that_of_transformers():
    torch.manual_seed(0)
    logits = 3 * torch.randn(1, 50)
    warped = LogitsProcessorList([TemperatureLogitsWarper(1.2), TopPLogitsWarper(0.9)])(None, logits)
    expected = torch.softmax(warped, dim=-1)[0]
    counts = np.bincount(choose(logits[0].tolist(), grid(20_000), 1.2, 0.9), minlength=50)
    assert 0 < (expected == 0).sum() == (counts == 0).sum()
    assert counts / 20_000 == pytest.approx(expected.numpy(), abs=1e-4)


def test_each_sample_has_its_own_numbers():
    keys = [(seed, row_id, sample) for seed in (0, 1) for row_id in ("a", "b") for sample in range(8)]
    drawn = {key: uniforms(*key, 5) for key in keys}
    assert len({tuple(numbers) for numbers in drawn.values()}) == len(keys)
    assert all(((numbers >= 0) & (numbers < 1)).all() for numbers in drawn.values())
    # a longer limit of tokens begins with the same numbers
    assert uniforms(*keys[0], 9)[:5].tolist() == drawn[keys[0]].tolist()
    seeds = [seed_of(0, "a", sample) for sample in range(1000)]
    assert len(set(seeds)) == 1000
    assert all(0 <= seed < 2**31 for seed in seeds)


def prompts(count):
    texts = ["How many?" + " please" * index for index in range(count)]
    chats = [
        [{"role": "user", "content": [{"type": "image", "image": image(index)}, {"type": "text", "text": text}]}]
        for index, text in enumerate(texts)
    ]
    return [Prompt(f"row-{index}", chat, [image(index)]) for index, chat in enumerate(chats)]


@pytest.fixture
def make_sampler(tiny_model):
    def make(**settings):
        settings = {"num_generations": 3, "max_completion_length": 8, "seed": 5, **settings}
        options = SampleArguments(dataset="rows", model_name_or_path=tiny_model, **settings)
        return TransformersSampler(options, tiny_model, load_processor(tiny_model))

    return make


def test_a_sample_does_not_depend_on_its_batch(make_sampler):
    sampler = make_sampler()
    rows = prompts(4)
    together = sampler.start(rows, set())()
    assert [(draw.id, draw.sample) for draw in together] == [(f"row-{i}", s) for i in range(4) for s in range(3)]
    assert len({draw.completion for draw in together}) == 12
    alone = [draw for row in rows for draw in sampler.start([row], set())()]
    assert alone == together
    assert make_sampler(num_generations=5).start([rows[3]], set())()[:3] == together[9:]
    assert make_sampler(seed=6).start(rows, set())() != together


def test_tokens_of_images_are_never_sampled(make_sampler):
    sampler = make_sampler()

    def prefer_images(module, args, logits):
        logits[..., VISION_IDS] += 100
        return logits

    sampler.model.lm_head.register_forward_hook(prefer_images)
    seen = []
    generate = sampler.model.generate
    sampler.model.generate = lambda *args, **kwargs: seen.append(generate(*args, **kwargs)) or seen[-1]
    draws = sampler.start(prompts(2), set())()
    length = seen[0].shape[1] - max(draw.num_tokens for draw in draws)
    assert not torch.isin(seen[0][:, length:], torch.tensor(VISION_IDS)).any()


def test_ends_are_counted_and_told(make_sampler):
    """A token that is made certain from some step on: the stop token ends a sample, and is its last one."""
    sampler = make_sampler(stop_token="<|endoftext|>", max_completion_length=4)
    certain = {"token": ord("A")}

    def steer(module, args, logits):
        logits[..., certain["token"]] += 100
        return logits

    sampler.model.lm_head.register_forward_hook(steer)
    drawn = sampler.start(prompts(1), set())()
    assert {(draw.num_tokens, draw.finish_reason) for draw in drawn} == {(4, "length")}
    certain["token"] = IDS["<|endoftext|>"]
    drawn = sampler.start(prompts(1), set())()
    assert {(draw.completion, draw.num_tokens, draw.finish_reason) for draw in drawn} == {("", 1, "stop")}


def test_the_models_own_settings_do_not_count(make_sampler, tiny_model, monkeypatch):
    from transformers import GenerationConfig

    plain = make_sampler().start(prompts(1), set())()
    load = GenerationConfig.from_pretrained

    def with_penalty(*args, **kwargs):
        config = load(*args, **kwargs)
        config.repetition_penalty, config.temperature, config.top_k = 3.0, 0.01, 2
        return config

    monkeypatch.setattr(GenerationConfig, "from_pretrained", with_penalty)
    assert make_sampler().start(prompts(1), set())() == plain


def test_a_prompt_is_read_once_for_all_of_its_samples(make_sampler):
    sampler = make_sampler(num_generations=4)
    patches = []
    sampler.model.model.visual.register_forward_pre_hook(lambda module, args: patches.append(args[0].shape[0]))
    sampler.start(prompts(2), set())()
    # two images of 56 x 56 pixels in patches of 14 x 14, not eight
    assert sum(patches) == 2 * 16


def test_models_that_can_not_share_a_prompt_draw_the_same(make_sampler, monkeypatch):
    drawn = make_sampler().start(prompts(3), set())()
    monkeypatch.setattr("open_r1_vision.sampling.seeded.find_obstacle", lambda model, config: "it can't")
    assert make_sampler().start(prompts(3), set())() == drawn


def test_temperature_0_is_what_generate_gives(make_sampler):
    options = DrawArguments(model_name_or_path="m", temperature=0, num_generations=1, max_completion_length=8)
    sampler = make_sampler()
    greedy = TransformersSampler(options, sampler.model.name_or_path, sampler._processor)
    drawn = greedy.start(prompts(3), set())()
    for draw, prompt in zip(drawn, prompts(3), strict=True):
        inputs = encode_chats(sampler._processor, [prompt.chat], "cpu")
        length = inputs["input_ids"].shape[1]
        ids = greedy.model.generate(**inputs, do_sample=False, max_new_tokens=8, suppress_tokens=VISION_IDS)
        ends = {END, IDS["<|endoftext|>"]}
        own = ids[0, length:].tolist()
        end = next((place for place, token in enumerate(own) if token in ends), len(own) - 1)
        assert draw.completion == sampler._processor.tokenizer.decode(own[: end + 1], skip_special_tokens=True)
        assert draw.num_tokens == end + 1


def test_several_samples_at_temperature_0_are_refused():
    for settings in ({"temperature": 0}, {"temperature": -1, "num_generations": 1}):
        with pytest.raises(ValueError, match="at which all samples of a row are the same"):
            DrawArguments(model_name_or_path="m", **settings)
    with pytest.raises(ValueError, match="temperature is 0, at which all samples of a row are the same: raise it"):
        SampleArguments(dataset="rows", model_name_or_path="m", temperature=0, num_generations=1)
