# SPDX-License-Identifier: Apache-2.0
"""The engine's arithmetic and its comparison of prompts and processors, without an engine."""

import json
import math
import shutil
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_models import build_processor, build_tokenizer
from transformers.utils import is_torchvision_available
from trl.generation import vllm_generation
from trl.generation.vllm_generation import VLLMGeneration

from open_r1_vision.models import load_processor
from open_r1_vision.vllm_support.engine import ColocatedEngine, check_prompts
from open_r1_vision.vllm_support.processors import complete_folder, processor_settings


def restored(logprobs, temperature=1.0, banned=(8, 9)):
    engine = SimpleNamespace(banned=banned, temperature=temperature)
    return ColocatedEngine._without_ban(engine, logprobs, 1)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_log_probabilities_without_the_ban(temperature):
    """Tokens 1 and 2 have probability 0.3 and 0.2, the banned 8 and 9 have 0.1 and 0.4, at the temperature."""
    among_others = {1: math.log(0.3 / 0.5), 2: math.log(0.2 / 0.5)}
    off = -100.0 / temperature
    banned = {8: math.log(0.1 / 0.5) + off, 9: math.log(0.4 / 0.5) + off}
    assert restored({**among_others, **banned}, temperature) == pytest.approx(math.log(0.3))


def test_nothing_is_banned_or_known():
    assert restored({1: -2.0}, banned=()) == -2.0
    # a nucleus leaves nothing of other tokens, and a greedy choice has no probability
    assert restored({1: -2.0, 8: -math.inf, 9: -math.inf}) == -2.0
    assert restored({1: -2.0, 8: -1.0, 9: -1.0}, temperature=0.0) == -2.0
    assert restored({1: None, 8: -100.0, 9: -100.0}) is None
    assert restored({1: -2.0, 8: None, 9: None}) == -2.0


def test_prompts_are_compared_token_for_token():
    check_prompts([[1, 2], [3]], [[1, 2], [3]])
    expected = r"in row 1 of the batch: 6 tokens, not 4, and from token 3 on \[5, 5, 8\], not \[8\]\. .*expanded twice"
    with pytest.raises(ValueError, match=expected):
        check_prompts([[1, 2], [7, 5, 5, 8]], [[1, 2], [7, 5, 5, 5, 5, 8]])
    with pytest.raises(
        ValueError, match=r"in row 0 of the batch: 1 tokens, not 2, and from token 1 on \[\], not \[2\]"
    ):
        check_prompts([[1, 2]], [[1]])


class SleepyLLM:
    """Notes when it sleeps, wakes, samples, and forgets image features."""

    def __init__(self):
        self.events = []
        self.llm_engine = SimpleNamespace(reset_encoder_cache=lambda: None)
        self.reset_prefix_cache = lambda: self.events.append("new weights")

    def sleep(self, level):
        self.events.append(f"sleep {level}")

    def wake_up(self, tags):
        self.events += [f"wake {tag}" for tag in tags]

    def generate(self, prompts, sampling_params, use_tqdm):
        self.events.append("sample")
        output = SimpleNamespace(token_ids=[1], logprobs=None)
        return [SimpleNamespace(prompt_token_ids=one["prompt_token_ids"], outputs=[output]) for one in prompts]


def sleepy_engine(monkeypatch, *mixins):
    """TRL's own backend around SleepyLLM, in the state after its construction."""
    monkeypatch.setattr(vllm_generation, "SamplingParams", SimpleNamespace, raising=False)
    cls = type("Engine", (*mixins, VLLMGeneration), {"_iter_named_params": lambda self: iter(())})
    engine = object.__new__(cls)
    sampling = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "logprobs": 0}
    vars(engine).update(sampling, max_completion_length=4, generation_kwargs={}, structured_outputs_regex=None)
    vars(engine).update(model=torch.nn.Identity(), mode="colocate", tensor_parallel_size=1)
    vars(engine).update(_is_cpu=True, _image_token_id=None)
    vars(engine).update(accelerator=SimpleNamespace(), llm=SleepyLLM(), enable_sleep_mode=True)
    engine._llm_weights_sleeping = True
    return engine


def sample_twice(engine):
    engine.sync_weights()
    for _ in range(2):
        engine.generate([[5, 6]], None, 1)
    events, engine.llm.events = engine.llm.events, []
    return events


def test_weights_stay_in_the_hosts_memory_while_they_are_asked_for_again(monkeypatch):
    """As TRL does it, each pass gets them pushed; of level 1 they come back by themselves."""
    pushed = ["wake weights", "new weights", "wake kv_cache", "sample"]
    stock = sleepy_engine(monkeypatch)
    assert [sample_twice(stock) for _ in range(2)] == [[*pushed, "sleep 2"] * 2] * 2
    engine = sleepy_engine(monkeypatch, ColocatedEngine)
    # whether there will be a second pass is not known before there was one
    assert sample_twice(engine) == [*pushed, "sleep 2", *pushed, "sleep 1"]
    again = ["wake weights", "wake kv_cache", "sample", "sleep 1"]
    assert [sample_twice(engine) for _ in range(2)] == [[*pushed, "sleep 1", *again]] * 2


def test_a_single_pass_needs_no_memory_of_the_host(monkeypatch):
    engine = sleepy_engine(monkeypatch, ColocatedEngine)
    for _ in range(3):
        engine.sync_weights()
        engine.generate([[5, 6]], None, 1)
    assert engine.llm.events == ["wake weights", "new weights", "wake kv_cache", "sample", "sleep 2"] * 3


def test_equal_processors_need_no_settings(any_model):
    assert processor_settings(load_processor(any_model), any_model) == {}
    assert processor_settings(build_tokenizer(), any_model) == {}


def test_pixel_limits_are_passed_on(tiny_model):
    processor = load_processor(tiny_model, min_pixels=56 * 56, max_pixels=84 * 84)
    size = {"shortest_edge": 56 * 56, "longest_edge": 84 * 84}
    assert processor_settings(processor, tiny_model) == {"size": size}


def test_what_can_not_be_passed_on(tiny_model):
    processor = build_processor()
    processor.image_processor.image_std = [1.0, 1.0, 1.0]
    processor.image_processor.do_resize = False
    expected = (
        r"do_resize is False in the trainer, True in vLLM; image_std is \[1.0, 1.0, 1.0\] in the trainer.*save_pre"
    )
    with pytest.raises(ValueError, match=expected):
        processor_settings(processor, tiny_model)


def test_a_folder_without_a_processor(tiny_model, tmp_path):
    shutil.copy(Path(tiny_model) / "config.json", tmp_path)
    with pytest.raises(ValueError, match="No processor of a vision-language model could be loaded"):
        processor_settings(load_processor(tiny_model), str(tmp_path))


def test_a_hub_model_is_left_to_vllm():
    with ExitStack() as keep:
        assert complete_folder("Qwen/Qwen2.5-VL-3B-Instruct", keep) == "Qwen/Qwen2.5-VL-3B-Instruct"


@pytest.mark.skipif(not is_torchvision_available(), reason="transformers needs torchvision for videos")
@pytest.mark.vllm
def test_a_folder_that_was_saved_without_torchvision(any_model):
    """It gets a video part beside it, in a folder of links that goes away again."""
    from transformers import AutoProcessor

    names = {path.name for path in Path(any_model).iterdir()}
    assert not any("video" in name for name in names)
    with ExitStack() as keep:
        whole = Path(complete_folder(any_model, keep))
        assert {path.name for path in whole.iterdir()} == names | {"video_preprocessor_config.json"}
        assert (whole / "config.json").resolve() == (Path(any_model) / "config.json").resolve()
        assert json.loads((whole / "video_preprocessor_config.json").read_text())["video_processor_type"]
        processor = AutoProcessor.from_pretrained(whole)
        ours = load_processor(any_model).image_processor
        assert dict(processor.image_processor.size) == dict(ours.size)
        # now that it is complete, it is taken as it is
        assert complete_folder(str(whole), keep) == str(whole)
    assert not whole.exists()
    assert {path.name for path in Path(any_model).iterdir()} == names
