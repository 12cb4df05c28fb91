# SPDX-License-Identifier: Apache-2.0
"""The formulas: by hand, and against bytes that are there in real steps."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from transformers import AutoModelForImageTextToText

from open_r1_vision.memory import Estimate, ModelShape, Part, Setup, estimate
from open_r1_vision.memory.estimate import CONTEXT_BYTES, GIB
from open_r1_vision.memory.shapes import KNOWN, read_config, read_shape, shape_of

SHAPE = ModelShape(
    parameters=4000,
    layers=3,
    hidden=10,
    queries=10,
    keys=5,
    mlp=40,
    vocabulary=100,
    block_bytes=700,
    vision_layers=2,
    vision_hidden=6,
    vision_block_bytes=300,
    patches_per_token=4,
    pixels_per_token=784,
    tied=False,
)
TILE = 4096 * 32768 * 2


def parts(shape=SHAPE, **settings):
    """Bytes by name and phase."""
    made = estimate(shape, Setup(**{"trained": shape.parameters, **settings}))
    return {
        phase: {part.name: part.bytes for part in getattr(made, phase)}
        for phase in ("resident", "update", "step", "sampling")
    }


def test_one_gpu_without_deepspeed():
    assert parts()["resident"] == {
        "weights": 8000,
        "gradients": 8000,
        "optimizer": 16000,
        "context": CONTEXT_BYTES,
    }
    assert parts()["step"] == {}
    assert parts(weight_bytes=4)["resident"]["optimizer"] == 32000


def test_data_parallel_gradients_are_there_twice():
    assert parts(gpus=2)["resident"]["gradients"] == 2 * 8000


def test_zero_2_shards_gradients_and_optimizer():
    found = parts(gpus=4, zero_stage=2, has_reference=True, reduce_bucket=1500)
    assert found["resident"] == {
        "weights": 8000,
        "gradients": 2000,
        "optimizer": 12000,
        "reduction bucket": 3000,
        "reference model": 8000,
        "context": CONTEXT_BYTES,
    }
    assert found["step"] == {"float32 gradients": 4000}


def test_zero_3_shards_weights_too():
    found = parts(gpus=4, zero_stage=3, has_reference=True)["resident"]
    assert found == {
        "weights": 2000,
        "gathered weights": 8000,
        "gradients": 2000,
        "optimizer": 12000,
        "reference model": 2000,
        "context": CONTEXT_BYTES,
    }


def test_what_is_offloaded_is_in_the_hosts_memory():
    setup = Setup(trained=4000, gpus=4, zero_stage=3, offload_optimizer=True, offload_parameters=True)
    made = estimate(SHAPE, setup)
    assert {part.name: part.bytes for part in made.resident} == {
        "weights": 0,
        "gathered weights": 8000,
        "gradients, Adam": 0,
        "context": CONTEXT_BYTES,
    }
    assert made.step == []
    # float32 weights, gradients and both moments, and the bfloat16 weights, of all processes together
    assert made.host_bytes == 4000 * 16 + 4000 * 2


def test_an_adapter():
    found = parts(trained=100)["resident"]
    # PEFT keeps it in float32: weights, gradients, and two moments
    assert (found["weights"], found["adapter"], found["gradients"], found["optimizer"]) == (8000, 400, 400, 800)
    found = parts(trained=100, zero_stage=2)["resident"]
    assert (found["adapter"], found["gradients"], found["optimizer"]) == (200, 200, 1200)


def test_an_update_shares_prompts():
    settings = {
        "completions": 4,
        "num_generations": 2,
        "prompt_tokens": 30,
        "image_tokens": 20,
        "completion_tokens": 50,
    }
    found = parts(**settings)["update"]
    # 2 prompts of 30 tokens and 4 completions of 50; a checkpoint has 10 numbers of 2 bytes in each of 3 layers
    assert found["checkpoints"] == 260 * 60
    # 2 prompts of 20 tokens of 4 patches; 6 numbers of 2 bytes in each of 2 layers
    assert found["image checkpoints"] == 160 * 24
    # the largest of a layer (182,000), an image layer (48,000) and the output layer
    assert found["output layer"] == 4 * 200 * 10 + 4 * 100 * 10 + TILE
    assert parts(**settings, shares_prompts=False)["update"]["checkpoints"] == 4 * 80 * 60
    # an odd number of completions begins another prompt
    assert parts(**{**settings, "completions": 3})["update"]["checkpoints"] == (60 + 150) * 60


def test_without_checkpoints_all_layers_are_kept():
    settings = {"prompt_tokens": 30, "image_tokens": 20, "completion_tokens": 50, "has_checkpoints": False}
    found = parts(**settings)["update"]
    assert found["layers"] == 80 * 700 * 3
    assert found["image layers"] == 80 * 300 * 2


def test_a_frozen_output_layer_has_no_gradient():
    assert parts(trained=100, completion_tokens=50)["update"]["output layer"] == 4 * 50 * 10 + TILE


def test_transformers_keeps_keys_and_values_of_a_whole_sampling():
    found = parts(sampled=8, num_generations=4, prompt_tokens=30, completion_tokens=50)["sampling"]
    # 8 sequences of 80 tokens; keys and values of 5 numbers of 2 bytes in each of 3 layers
    assert found["keys and values"] == 8 * 80 * 60
    assert found["logits"] == 3 * 4 * 8 * 100
    # 2 prompts of 30 tokens in one layer: 4 x 10 + 2 x 10 + 6 x 40
    assert found["prompts"] == 60 * 300


def test_zero_3_gathers_all_weights_to_sample():
    large = ModelShape(**{**SHAPE.__dict__, "parameters": 3 * 10**9})
    found = parts(large, gpus=8, zero_stage=3)
    assert found["resident"]["gathered weights"] == 2 * 10**9
    assert found["sampling"]["all weights"] == 2 * 2 * 10**9
    assert "all weights" not in parts(large, gpus=8, zero_stage=2)["sampling"]
    assert "all weights" not in parts(large, gpus=8, zero_stage=3, with_vllm=True)["sampling"]


def test_vllm_sleeps_during_the_update():
    settings = {"with_vllm": True, "vllm_share": 0.25, "gpu_bytes": 40 * GIB}
    assert parts(**settings)["resident"]["vLLM"] == 10 * GIB
    sleeping = parts(**settings, vllm_sleeps=True)
    assert "vLLM" not in sleeping["resident"] and sleeping["sampling"] == {"vLLM": 10 * GIB}
    made = estimate(SHAPE, Setup(trained=4000, **settings))
    # its share without the weights and the allowance, in tokens of 60 bytes
    assert made.vllm_tokens == (10 * GIB - 8000 - CONTEXT_BYTES) // 60
    assert estimate(SHAPE, Setup(trained=4000, with_vllm=True, vllm_share=0.01)).vllm_tokens == 0
    assert estimate(SHAPE, Setup(trained=4000)).vllm_tokens is None


def test_the_peak_is_that_of_one_phase():
    made = Estimate([Part("a", 10)], [Part("b", 5)], [Part("c", 7)], [Part("d", 6)])
    assert (made.peak_bytes, made.peak_phase, made.phases) == (17, "step", {"update": 15, "step": 17, "sampling": 16})


def test_checkpoints_on_disk():
    assert estimate(SHAPE, Setup(trained=4000, zero_stage=3)).checkpoint_bytes == 4000 * (12 + 2)
    # ZeRO-2 saves the weights beside those that from_pretrained reads
    assert estimate(SHAPE, Setup(trained=4000, zero_stage=2)).checkpoint_bytes == 4000 * (12 + 4)
    assert estimate(SHAPE, Setup(trained=4000)).checkpoint_bytes == 4000 * (4 + 2)
    assert estimate(SHAPE, Setup(trained=100)).checkpoint_bytes == 100 * (8 + 2)
    assert estimate(SHAPE, Setup(trained=100)).final_bytes == 8000


def test_the_table_has_every_part_and_the_peak():
    text = estimate(SHAPE, Setup(trained=4000, gpus=4, zero_stage=3, completion_tokens=5)).table()
    assert "weights                0.00  2 B x 4000 / 4" in text
    assert text.splitlines()[-1] == "peak: update                             2.25  GiB on each GPU"


def nbytes(tensors):
    return sum(tensor.nbytes for tensor in tensors)


@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 4), (torch.bfloat16, 2)])
def test_weights_gradients_and_moments_of_a_real_step(model_folder, dtype, size):
    folder = model_folder("qwen2_5_vl")
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype)
    shape = read_shape(folder)
    optimizer = torch.optim.AdamW(model.parameters())
    # every weight takes part, the image encoder's too
    sum(parameter.sum() for parameter in model.parameters()).backward()
    optimizer.step()
    found = parts(shape, weight_bytes=size)["resident"]
    assert found["weights"] == nbytes(model.parameters())
    assert found["gradients"] == nbytes(parameter.grad for parameter in model.parameters())
    moments = [state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    assert found["optimizer"] == nbytes(moments)


def test_an_adapter_of_a_real_step(model_folder):
    folder = model_folder("qwen2_5_vl")
    base = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.bfloat16)
    size = nbytes(base.parameters())
    model = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    sum(parameter.sum() for parameter in trained).backward()
    optimizer.step()
    found = parts(read_shape(folder), trained=sum(parameter.numel() for parameter in trained))["resident"]
    assert found["weights"] == size
    assert found["adapter"] == found["gradients"] == nbytes(trained)
    moments = [state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    assert found["optimizer"] == nbytes(moments)


def peak_activations(tracker, model):
    """Bytes at the peak beside the weights and the gradients that were there before."""
    (snapshot,) = tracker.get_tracker_snapshot("peak").values()
    by_kind = {str(getattr(kind, "value", kind)): size for kind, size in snapshot.items()}
    gradients = nbytes(parameter.grad for parameter in model.parameters() if parameter.grad is not None)
    return by_kind["Total"] - by_kind["Parameter"] - by_kind["Buffer"] - gradients


@pytest.mark.parametrize("name", [name for name in KNOWN if "2B" not in name and "2-VL" not in name])
def test_checkpoints_and_a_layer_against_the_peak_of_real_widths(name):
    layers, tokens = 4, 4096
    config = read_config(name)
    config.text_config.num_hidden_layers = layers
    if getattr(config.text_config, "layer_types", None):
        config.text_config.layer_types = config.text_config.layer_types[:layers]
    config.text_config.vocab_size = 1000
    config.vision_config.depth = 1
    if hasattr(config.vision_config, "deepstack_visual_indexes"):
        config.vision_config.deepstack_visual_indexes = [0]
    with FakeTensorMode():  # shapes without numbers: nothing is allocated
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16).model.language_model
        model.train()
        model.gradient_checkpointing_enable({"use_reentrant": False})
        inputs = torch.randn(1, tokens, config.text_config.hidden_size, dtype=torch.bfloat16, requires_grad=True)

        def backward():
            model(inputs_embeds=inputs, use_cache=False).last_hidden_state.sum().backward()

        backward()  # in the second micro-batch the gradients of the first are there
        tracker = MemTracker()
        tracker.track_external(model)
        with tracker:
            backward()
    shape = shape_of(config)
    found = parts(shape, prompt_tokens=tokens)["update"]
    estimated = found["checkpoints"] + found["one layer"]
    measured = peak_activations(tracker, model)
    assert 0.95 <= estimated / measured <= 1.15, (estimated, measured)


@pytest.mark.parametrize("architecture", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_the_image_encoder_against_the_peak_of_a_real_pass(architecture):
    wide = {
        "qwen2_vl": {"embed_dim": 256, "hidden_size": 128, "mlp_ratio": 4, "num_heads": 4},
        "qwen2_5_vl": {"hidden_size": 256, "intermediate_size": 684, "out_hidden_size": 128, "num_heads": 4},
        "qwen3_vl": {
            "hidden_size": 256,
            "intermediate_size": 956,
            "out_hidden_size": 128,
            "num_heads": 4,
            "deepstack_visual_indexes": [1],
        },
    }[architecture]
    from transformers import CONFIG_MAPPING

    text = {
        "hidden_size": 128,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 64,
        "vocab_size": 1000,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    config = CONFIG_MAPPING[architecture](text_config=text, vision_config={**wide, "depth": 6})
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16).model.visual
    model.train()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    side, patch = 32, config.vision_config.patch_size
    pixels = torch.randn(side * side, 3 * 2 * patch * patch, dtype=torch.bfloat16)
    grid = torch.tensor([[1, side, side]])

    def backward():
        model(pixels, grid_thw=grid).pooler_output.sum().backward()

    backward()
    tracker = MemTracker()
    tracker.track_external(model)
    with tracker:
        backward()
    shape = shape_of(config)
    found = parts(shape, prompt_tokens=side * side // 4, image_tokens=side * side // 4)["update"]
    estimated = found["image checkpoints"] + side * side * shape.vision_block_bytes
    measured = peak_activations(tracker, model)
    assert 0.95 <= estimated / measured <= 1.15, (estimated, measured)
