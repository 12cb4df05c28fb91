# SPDX-License-Identifier: Apache-2.0
"""GroupDecoding against `model.generate` on as many copies of each prompt."""

import collections
from types import SimpleNamespace

import pytest
import torch
from text_model import save_text_model
from tiny_models import END, IDS, VISION_IDS, image
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    GenerationConfig,
    LogitsProcessor,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from open_r1_vision.decoding.groups import GroupDecoding, _split_by_length, find_obstacle
from open_r1_vision.generation import encode_chats
from open_r1_vision.models import load_processor

#: Images of each prompt, and how often its question is repeated.
PROMPTS = ((1, 1), (0, 9), (2, 3))
COUNTS = [count for count, _ in PROMPTS]
ENDS = [END, *range(97, 123)]


def chats():
    return [
        [
            {
                "role": "user",
                "content": [
                    *({"type": "image", "image": image(5 * index + k, 56 + 28 * k)} for k in range(count)),
                    {"type": "text", "text": "How many?" * repeats},
                ],
            }
        ]
        for index, (count, repeats) in enumerate(PROMPTS)
    ]


def settings(**changes):
    defaults = {"max_new_tokens": 24, "do_sample": True, "pad_token_id": IDS["<|endoftext|>"], "top_k": 0}
    return GenerationConfig(**{**defaults, "suppress_tokens": VISION_IDS, "disable_compile": True, **changes})


def sample(model, inputs, config, seed=3, **kwargs):
    torch.manual_seed(seed)
    with torch.no_grad():
        output = model.generate(**inputs, generation_config=config, **kwargs)
    # what is drawn next must not depend on how it was sampled either
    return output[:, inputs["input_ids"].shape[1] :].tolist(), torch.rand(1).item()


def lengths_of(tokens):
    return [next((place + 1 for place, token in enumerate(row) if token in ENDS), len(row)) for row in tokens]


@pytest.fixture(scope="module")
def loaded(model_folder):
    """`loaded(architecture)`: a model, and its inputs for the prompts above."""
    models = {}

    def get(architecture):
        if architecture not in models:
            folder = model_folder(architecture)
            model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
            models[architecture] = model, encode_chats(load_processor(folder), chats(), "cpu")
        return models[architecture]

    return get


def copies(inputs, rows):
    """The inputs for the prompts of these rows."""
    grids = torch.split(inputs["image_grid_thw"], COUNTS)
    pixels = torch.split(inputs["pixel_values"], [int(of_row.prod(-1).sum()) for of_row in grids])
    repeated = {name: inputs[name][rows] for name in ("input_ids", "attention_mask", "mm_token_type_ids")}
    for name, parts in (("image_grid_thw", grids), ("pixel_values", pixels)):
        repeated[name] = torch.cat([parts[row] for row in rows])
    return repeated


#: Four rows of each prompt.
ROWS = [row for row in range(len(PROMPTS)) for _ in range(4)]


# ---- the same as generate


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"eos_token_id": ENDS},
        {"eos_token_id": ENDS, "do_sample": False, "repetition_penalty": 5.0},
        {"eos_token_id": ENDS, "temperature": 1.7, "top_k": 90, "top_p": 0.9, "min_p": 0.001},
        {"eos_token_id": ENDS, "no_repeat_ngram_size": 2, "min_new_tokens": 5},
    ],
    ids=["no end", "ends", "greedy", "warped", "other processors"],
)
@pytest.mark.parametrize("architecture", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_the_tokens_are_those_of_generate(loaded, architecture, changes):
    model, inputs = loaded(architecture)
    config = settings(**changes)
    expected = sample(model, copies(inputs, ROWS), config)
    assert sample(model, inputs, config, custom_generate=GroupDecoding(ROWS, COUNTS)) == expected
    if changes.get("do_sample", True) and "eos_token_id" in changes:
        assert len(set(lengths_of(expected[0]))) > 3


def test_greedy_rows_that_end_at_different_times(loaded):
    model, inputs = loaded("qwen2_5_vl")
    config = settings(do_sample=False)
    free, _ = sample(model, inputs, config)
    # each prompt's reply ends at another place
    ends = [free[0][3], free[1][9], free[2][15]]
    config = settings(do_sample=False, eos_token_id=ends)
    expected = sample(model, copies(inputs, ROWS), config)
    assert sample(model, inputs, config, custom_generate=GroupDecoding(ROWS, COUNTS)) == expected
    assert len({next(i for i, token in enumerate(row) if token in ends) for row in expected[0]}) > 1


def test_rows_in_any_order(loaded):
    model, inputs = loaded("qwen2_5_vl")
    order = [2, 0, 1, 1, 2, 0, 0]
    config = settings(eos_token_id=ENDS)
    expected = sample(model, copies(inputs, order), config)
    assert sample(model, inputs, config, custom_generate=GroupDecoding(order, COUNTS)) == expected


def test_a_text_model(tmp_path):
    model = AutoModelForCausalLM.from_pretrained(save_text_model(tmp_path)).eval()
    ids = torch.tensor([[0, 0, 65, 66, 67], [70, 71, 72, 73, 74]])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    inputs = {"input_ids": ids, "attention_mask": mask}
    all_rows = {name: value.repeat_interleave(3, 0) for name, value in inputs.items()}
    # more tokens than the cache has room for at first
    for ends in (ENDS, None):
        config = settings(eos_token_id=ends, max_new_tokens=150)
        expected = sample(model, all_rows, config)
        assert sample(model, inputs, config, custom_generate=GroupDecoding([0, 0, 0, 1, 1, 1])) == expected
    assert len(expected[0][0]) == 150


def test_bfloat16_runs(loaded, model_folder):
    _, inputs = loaded("qwen3_vl")
    model = AutoModelForImageTextToText.from_pretrained(model_folder("qwen3_vl"), dtype=torch.bfloat16).eval()
    tokens, _ = sample(model, inputs, settings(), custom_generate=GroupDecoding(ROWS, COUNTS))
    assert [len(row) for row in tokens] == [24] * 12


def test_the_distribution_with_early_ends():
    """Chi-square of whole completions, over an alphabet of four tokens, against exact probabilities."""
    torch.manual_seed(1)
    model = Qwen2ForCausalLM(Qwen2Config(**_TINY, vocab_size=4)).eval()
    model.lm_head.weight.data *= 8
    end, length, num_rows, prompt = 3, 3, 4000, torch.tensor([[0, 1, 2, 1]])
    exact = {(): 1.0}
    for _ in range(length):
        following = {}
        for sequence, share in exact.items():
            if end in sequence:
                following[sequence] = share
                continue
            ids = torch.cat([prompt, torch.tensor([sequence], dtype=torch.long)], dim=1)
            for token, chance in enumerate(model(ids).logits[0, -1].softmax(-1).tolist()):
                following[(*sequence, token)] = share * chance
        exact = following

    config = settings(max_new_tokens=length, eos_token_id=end, pad_token_id=0, suppress_tokens=None)
    inputs = {"input_ids": prompt, "attention_mask": torch.ones_like(prompt)}
    tokens, _ = sample(model, inputs, config, custom_generate=GroupDecoding([0] * num_rows))
    cut = [tuple(row[: row.index(end) + 1] if end in row else row) for row in tokens]
    assert 0.05 < sum(row[0] == end for row in cut) / num_rows < 0.95
    found = collections.Counter(cut)
    likely = {sequence: share * num_rows for sequence, share in exact.items() if share * num_rows >= 5}
    pairs = [(found[sequence], expected) for sequence, expected in likely.items()]
    pairs.append((num_rows - sum(count for count, _ in pairs), num_rows - sum(likely.values())))
    statistic = sum((count - expected) ** 2 / max(expected, 1.0) for count, expected in pairs)
    # the mean of the distribution is its degrees of freedom, the variance twice that
    degrees = len(pairs) - 1
    assert degrees > 5
    assert statistic < degrees + 4 * (2 * degrees) ** 0.5


# ---- the work


def test_prompts_are_read_once_and_ended_rows_leave(loaded):
    model, inputs = loaded("qwen2_5_vl")
    seen = SimpleNamespace(images=0, shapes=[])
    hooks = [
        model.model.visual.register_forward_pre_hook(
            lambda module, args, kwargs: setattr(seen, "images", seen.images + len(kwargs["grid_thw"])),
            with_kwargs=True,
        ),
        model.get_decoder().register_forward_pre_hook(
            lambda module, args, kwargs: seen.shapes.append(tuple(kwargs["inputs_embeds"].shape[:2])),
            with_kwargs=True,
        ),
    ]
    config = settings(eos_token_id=ENDS)
    tokens, _ = sample(model, inputs, config, custom_generate=GroupDecoding(ROWS, COUNTS))
    for hook in hooks:
        hook.remove()
    assert seen.images == sum(COUNTS)
    # prompts in parts of about the same length, without more padding than that
    prompts = [shape for shape in seen.shapes if shape[1] > 1]
    assert sum(rows for rows, _ in prompts) == len(PROMPTS)
    assert sum(rows * width for rows, width in prompts) <= 1.25 * int(inputs["attention_mask"].sum())
    # then one token of each row that goes on
    steps = [rows for rows, width in seen.shapes if width == 1]
    own = lengths_of(tokens)
    alive = [sum(length > step for length in own) for step in range(1, max(own))]
    assert len(steps) == len(alive)
    assert all(going <= rows < going / (1 - 0.125) + 1e-9 for rows, going in zip(steps, alive, strict=True))
    assert steps[0] > 2 * steps[-1]


class OnlyTheFirst(LogitsProcessor):
    """Lets all rows but the first four end at once, and these never."""

    def __call__(self, input_ids, scores):
        scores[:4, 0], scores[4:, 0] = -torch.inf, 1e6
        return scores


def test_padding_leaves_with_the_long_prompts(loaded, monkeypatch):
    model, inputs = loaded("qwen2_5_vl")
    prepare, sizes = model.prepare_inputs_for_generation, []

    def noting(*args, **kwargs):
        sizes.append((kwargs["past_key_values"].get_seq_length(), tuple(kwargs["attention_mask"].shape)))
        return prepare(*args, **kwargs)

    monkeypatch.setattr(model, "prepare_inputs_for_generation", noting)
    config = settings(eos_token_id=[0], max_new_tokens=6)
    grouped = GroupDecoding(ROWS, COUNTS)
    sample(model, inputs, config, custom_generate=grouped, logits_processor=[OnlyTheFirst()])
    own, *others = inputs["attention_mask"].sum(-1).tolist()
    assert max(others) > 1.2 * own
    assert [size for size in sizes if size[0]] == [(own + step, (4, own + step + 1)) for step in range(5)]


def test_split_by_length():
    assert _split_by_length([100, 10, 120, 12, 126, 13]) == [[1, 3], [5], [0, 2], [4]]
    assert _split_by_length([7, 7, 7]) == [[0, 1, 2]]


# ---- what it can't do

_TINY = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
}


def test_settings_that_are_an_obstacle(loaded):
    model, _ = loaded("qwen2_5_vl")
    assert find_obstacle(model, settings()) is None
    assert find_obstacle(model, settings(do_sample=False, cache_implementation="dynamic")) is None
    for changes, words in [
        ({"num_beams": 2, "do_sample": False}, "beam"),
        ({"cache_implementation": "static"}, "cache_implementation is 'static'"),
        ({"prefill_chunk_size": 8}, "prefill_chunk_size is 8"),
        ({"guidance_scale": 2.0}, "guidance_scale is 2.0"),
        ({"use_cache": False}, "use_cache is False"),
        ({"encoder_repetition_penalty": 2.0}, "encoder_repetition_penalty is 2.0"),
    ]:
        assert words in find_obstacle(model, settings(**changes)), changes


def test_layers_that_forget_are_an_obstacle():
    config = Qwen2Config(**_TINY, vocab_size=8, use_sliding_window=True, sliding_window=4, max_window_layers=1)
    assert "DynamicSlidingWindowLayer" in find_obstacle(Qwen2ForCausalLM(config), settings())
