# SPDX-License-Identifier: Apache-2.0
"""Scores and gradients from one pass over a prompt and its completions equal those of separate passes."""

import pytest
import torch
from batches import ARCHITECTURES, VISION, batch, load, score, score_only
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

A, B = (0, (0,)), (3, (1, 2))  # one image; two images of other sizes, and a longer prompt
CASES = {
    "two groups": ([A, A, A, B, B, B], [5, 2, 7, 1, 4, 4]),
    "apart": ([A, B, A, B], [5, 2, 3, 6]),
    "parts of groups": ([A, B, B, B, (1, (5,))], [5, 2, 3, 6, 4]),
    "same text, other images": ([A, A, (0, (3,)), (0, (3,))], [3, 3, 3, 3]),
    "text beside images": ([A, A, (2, ()), (2, ())], [3, 5, 2, 4]),
    "text alone": ([(2, ()), (2, ()), (2, ())], [3, 5, 2]),
    "a completion left out": ([A, A, A, B, B], [3, 0, 2, 0, 0]),
}


def check(model, architecture, case, implementation="sdpa"):
    prompts, lengths = CASES[case]
    if architecture not in VISION:
        prompts = [(index + 4 * sum(images), ()) for index, images in prompts]
    inputs, num_images = batch(architecture, prompts, lengths)
    expected = score(model, inputs, num_images, max(lengths), shared=False)
    measured = score(model, inputs, num_images, max(lengths), shared=True)
    assert 0 < measured[3] < 1
    assert expected[0].count_nonzero() == sum(lengths)
    for ours, wanted in zip(measured[:2], expected[:2], strict=True):
        torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-5)
    assert measured[2].keys() == expected[2].keys()
    for name, wanted in expected[2].items():
        assert (measured[2][name] - wanted).norm() <= 1e-4 * wanted.norm() + 1e-7, name
    assert model.get_decoder().config._attn_implementation == implementation


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_scores_and_gradients(model_folder, architecture):
    model = load(architecture, model_folder)
    for case in CASES:
        check(model, architecture, case)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("architecture", ["qwen3_vl", "llama"])
def test_layers_computed_again(model_folder, architecture, reentrant):
    """With gradient checkpointing, layers are called in the backward pass too."""
    model = load(architecture, model_folder)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    check(model, architecture, "two groups")


def bottom_right(module, query, key, value, attention_mask, scaling=None, **kwargs):
    """Causal attention as flash-attention has it: no mask, and the last query sees all keys."""
    assert attention_mask is None
    assert module.config._attn_implementation == "bottom_right"  # which flash-attention looks up
    assert kwargs.get("position_ids") is None
    key, value = (x.repeat_interleave(query.size(1) // x.size(1), dim=1) for x in (key, value))
    scores = query @ key.transpose(2, 3) * scaling
    hidden = torch.ones_like(scores[0, 0]).tril(key.size(2) - query.size(2)) == 0
    return (scores.masked_fill(hidden, -torch.inf).softmax(-1) @ value).transpose(1, 2), None


@pytest.mark.parametrize("implementation", ["eager", "bottom_right"])
@pytest.mark.parametrize("architecture", ["qwen2_5_vl", "qwen2"])
def test_other_implementations_of_attention(model_folder, architecture, implementation):
    AttentionInterface.register("bottom_right", bottom_right)
    AttentionMaskInterface.register("bottom_right", lambda *args, **kwargs: None)
    expected = load(architecture, model_folder)
    model = load(architecture, model_folder)
    model.get_decoder().config._attn_implementation = implementation
    prompts, lengths = ([A, A, B, B], [5, 2, 3, 6]) if architecture in VISION else ([(0, ())] * 3, [5, 2, 3])
    inputs, num_images = batch(architecture, prompts, lengths)
    wanted = score(expected, inputs, num_images, max(lengths), shared=False)
    measured = score(model, inputs, num_images, max(lengths), shared=True)
    torch.testing.assert_close(measured[0], wanted[0], rtol=0, atol=1e-5)
    for name, gradient in wanted[2].items():
        assert (measured[2][name] - gradient).norm() <= 1e-4 * gradient.norm() + 1e-7, name


def test_half_precision(model_folder):
    """Both ways are as far from float32's scores as bfloat16 is."""
    inputs, num_images = batch("qwen2_5_vl", [A, A, A, B, B], [5, 2, 7, 1, 4])
    exact = score(load("qwen2_5_vl", model_folder), inputs, num_images, 7, shared=False)[0]
    model = load("qwen2_5_vl", model_folder, dtype=torch.bfloat16)
    error = (score(model, inputs, num_images, 7, shared=False)[0] - exact).abs().max()
    assert 0 < (score(model, inputs, num_images, 7, shared=True)[0] - exact).abs().max() < 2 * error + 1e-2
    with torch.autocast("cpu", torch.bfloat16):
        measured = score(load("qwen2_5_vl", model_folder), inputs, num_images, 7, shared=True)[0]
    assert (measured - exact).abs().max() < 2 * error + 1e-2


def test_the_work_is_done_once(model_folder):
    """Vision tower and decoder see two prompts and five completions, not five prompts; the head sees completions."""
    model = load("qwen2_5_vl", model_folder)
    seen = {}
    model.base_model.visual.register_forward_pre_hook(lambda module, args: seen.update(patches=len(args[0])))
    model.get_decoder().layers[0].register_forward_pre_hook(lambda module, args: seen.update(tokens=args[0].size(1)))
    inputs, num_images = batch("qwen2_5_vl", [A, A, A, B, B], [5, 2, 7, 1, 4])
    *_, saved = score(model, inputs, num_images, 7, shared=True)
    rows_of_patches = inputs["image_grid_thw"].prod(-1)
    assert seen["patches"] == rows_of_patches[0] + rows_of_patches[3:5].sum()
    prompts = inputs["attention_mask"][:, :-7].sum(1)
    assert seen["tokens"] == prompts[0] + prompts[3] - 2 + 19
    assert saved == pytest.approx(1 - seen["tokens"] / (prompts.sum().item() + 19))


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_flex_attention(model_folder, monkeypatch, architecture):
    """Log-probabilities alone: on a CPU it has no backward pass, and transformers lets no Qwen-VL have it."""
    inputs, num_images = batch(architecture, [(0, ())] * 3 + [(1, ())] * 2, [7, 5, 9, 4, 6])
    calls = []

    def spy(module, query, key, *args, **kwargs):
        calls.append((query.size(0), query.size(2), key.size(2)))
        return flex_attention_forward(module, query, key, *args, **kwargs)

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "flex_attention", spy)
    wanted = score_only(load(architecture, model_folder), inputs, num_images, 9, shared=False)
    model = load(architecture, model_folder, "flex_attention")
    measured = score_only(model, inputs, num_images, 9, shared=True)
    torch.testing.assert_close(measured, wanted, rtol=0, atol=1e-5)
    prefix = calls[0][1]
    # prompt, its three segments of up to 9 tokens over prompt and themselves, and so for the other prompt
    assert calls[:2] == [(1, prefix, prefix), (3, 9, prefix + 9)]
    assert [call[0] for call in calls[:4]] == [1, 3, 1, 2]


@pytest.mark.gpu
@pytest.mark.parametrize("implementation", ["sdpa", "flash_attention_2", "flex_attention"])
@pytest.mark.parametrize("architecture", ["qwen2_5_vl", "qwen3_vl", "llama"])
def test_scores_and_gradients_on_a_gpu(model_folder, architecture, implementation):
    """In bfloat16, which flash-attention needs, by a tolerance that one mixed-up token is far beyond."""
    if implementation == "flex_attention" and architecture in VISION:
        pytest.skip("transformers lets no Qwen-VL have flex attention")
    if implementation == "flash_attention_2":
        pytest.importorskip("flash_attn")
    prompts, lengths = CASES["two groups" if architecture in VISION else "text alone"]
    inputs, num_images = batch(architecture, prompts, lengths)
    inputs = {name: value.cuda() for name, value in inputs.items()}
    expected = load(architecture, model_folder).cuda()
    wanted = score(expected, inputs, num_images, max(lengths), shared=False)
    model = load(architecture, model_folder, implementation).to("cuda", torch.bfloat16)
    measured = score(model, inputs, num_images, max(lengths), shared=True)
    torch.testing.assert_close(measured[0].float(), wanted[0], rtol=0, atol=3e-2)
    for name, gradient in wanted[2].items():
        assert (measured[2][name] - gradient).norm() <= 5e-2 * gradient.norm() + 1e-4, name
