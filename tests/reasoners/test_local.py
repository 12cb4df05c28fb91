# SPDX-License-Identifier: Apache-2.0
"""A frozen model in this process: greedy, sampled, too long, too late, beside a sharded policy, and under vLLM."""

import sys
import types

import pytest
import torch
from text_model import save_text_model

from open_r1_vision.reasoners import Failure, ReasonerConfig, Reply, backends, build_reasoner
from open_r1_vision.reasoners.local import LocalReasoner
from open_r1_vision.vllm_support import installation


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    # with settings as instruction-tuned models bring them along, and a reasoner must not fall for them
    own = {"do_sample": True, "temperature": 0.7, "top_k": 20, "repetition_penalty": 1.5}
    return save_text_model(tmp_path_factory.mktemp("text_model"), **own)


def local(folder, **settings):
    return build_reasoner(ReasonerConfig(kind="local", model=folder, **{"max_tokens": 8, **settings}))


def questions(*texts):
    return [[{"role": "system", "content": "Reply."}, {"role": "user", "content": text}] for text in texts]


def by_hand(reasoner, chat, num_tokens):
    """Greedy decoding without cache, padding or batch."""
    tokenizer, model = reasoner._tokenizer, reasoner._backend.model
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]
    new = []
    with torch.no_grad():
        for _ in range(num_tokens):
            new.append(int(model(torch.tensor([ids + new])).logits[0, -1].argmax()))
    return tokenizer.decode(new, skip_special_tokens=True)


def test_replies_are_greedy_whatever_the_batch(folder):
    reasoner = local(folder, batch_size=2)
    chats = questions("a", "a much longer question than the others", "b c", "a", "d")
    outcomes = [outcome for (outcome,) in reasoner.submit(chats).result()]
    assert [outcome.text for outcome in outcomes] == [by_hand(reasoner, chat, 8) for chat in chats]
    assert {outcome.finish_reason for outcome in outcomes} == {"length"}
    assert [outcome.cached for outcome in outcomes] == [False, False, False, True, False]
    assert reasoner.pop_stats()["asked"] == 5
    assert not any(parameter.requires_grad for parameter in reasoner._backend.model.parameters())


def test_the_template_gets_its_arguments(folder):
    chats = questions("a")
    plain, shouting = (
        local(folder, chat_template_kwargs=kwargs).submit(chats).result()[0][0].text for kwargs in (None, {"shout": 1})
    )
    assert plain != shouting


def test_a_reply_that_ends_by_itself_stops(folder):
    reasoner = local(folder)
    first = reasoner._backend.model.generate(
        torch.tensor([[5]]), max_new_tokens=1, do_sample=False, repetition_penalty=1.0
    )[0, -1]
    reasoner._backend._ends.add(int(first))
    ((text, reason),) = reasoner._backend.generate([[5]], float("inf"))
    assert (len(text) <= 1, reason) == (True, "stop")


def test_sampling_draws_from_numbers_of_its_own(folder):
    reasoner = local(folder, temperature=1.5, n=3)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    ((one, two, three),) = reasoner.submit(questions("a")).result()
    assert torch.equal(torch.rand(4), expected)
    assert len({one.text, two.text, three.text}) == 3
    again = local(folder, temperature=1.5, n=3).submit(questions("a")).result()
    assert [outcome.text for outcome in again[0]] == [one.text, two.text, three.text]
    other = local(folder, temperature=1.5, n=3, seed=1).submit(questions("a")).result()
    assert other[0][0].text != one.text


def test_sampling_is_not_cut_to_the_likeliest_tokens(folder):
    # transformers' own default is the 50 likeliest
    reasoner = local(folder, temperature=2, max_tokens=1, n=400, batch_size=400)
    (draws,) = reasoner.submit(questions("a")).result()
    assert len({outcome.text for outcome in draws}) > 51


def test_what_does_not_fit_is_a_failure_and_the_others_go_on(folder):
    outcomes = [outcome for (outcome,) in local(folder).submit(questions("a", "x" * 300)).result()]
    assert isinstance(outcomes[0], Reply)
    assert outcomes[1].reason == "too_long"
    assert "there is room for 248" in outcomes[1].message


def test_a_batch_that_begins_too_late_is_a_failure(folder, monkeypatch):
    reasoner = local(folder, batch_size=1, batch_seconds=100)
    now = iter([0.0, 50.0, 101.0])
    monkeypatch.setattr("open_r1_vision.reasoners.backends.monotonic", lambda: next(now))
    monkeypatch.setattr("open_r1_vision.reasoners.local.time", types.SimpleNamespace(monotonic=lambda: 0.0))
    outcomes = [outcome for (outcome,) in reasoner.submit(questions("a", "b", "cc")).result()]
    assert [isinstance(outcome, Failure) and outcome.reason for outcome in outcomes] == [False, "deadline", False]


def test_cached_replies_need_no_model(folder, tmp_path, monkeypatch):
    settings = {"cache": str(tmp_path / "cache"), "log": str(tmp_path / "log")}
    before = local(folder, **settings).submit(questions("a", "b"), read=len).result()
    reasoner = local(folder, **settings)
    monkeypatch.setattr(reasoner._backend, "generate", None)
    after = reasoner.submit(questions("a", "b"), read=len).result()
    assert [(outcome.text, outcome.verdict) for (outcome,) in after] == [
        (outcome.text, len(outcome.text)) for (outcome,) in before
    ]
    assert reasoner.pop_stats()["cached"] == 2
    assert len((tmp_path / "log").read_text().splitlines()) == 4


def test_of_a_vision_language_model_the_language_part_is_asked(tiny_model):
    ((outcome,),) = local(tiny_model).submit(questions("a")).result()
    assert isinstance(outcome, Reply)


def test_a_model_is_loaded_whole_beside_a_sharded_policy(folder):
    from transformers.integrations import HfDeepSpeedConfig, is_deepspeed_zero3_enabled

    sharded = HfDeepSpeedConfig({"zero_optimization": {"stage": 3}, "train_micro_batch_size_per_gpu": 1})
    assert is_deepspeed_zero3_enabled()
    reasoner = local(folder)
    assert is_deepspeed_zero3_enabled()
    assert all(
        parameter.numel() and not hasattr(parameter, "ds_id") for parameter in reasoner._backend.model.parameters()
    )
    ((outcome,),) = reasoner.submit(questions("a")).result()
    assert outcome.text == by_hand(reasoner, questions("a")[0], 8)
    del sharded


@pytest.mark.parametrize(
    ("prepare", "settings", "message"),
    [
        (lambda path: None, {}, "No model and tokenizer could be loaded"),
        (lambda path: save_text_model(path, template=None), {}, "has no chat template"),
        (save_text_model, {"max_tokens": 256}, "has room for 256 tokens of prompt and reply together"),
        (save_text_model, {"max_tokens": 64, "context_tokens": 64}, "has room for 64 tokens"),
    ],
)
def test_folders_that_cannot_reply(tmp_path, prepare, settings, message):
    prepare(tmp_path)
    with pytest.raises(ValueError, match=message):
        local(str(tmp_path), **settings)


def test_vllm_gets_token_ids_limits_and_the_schema(folder, monkeypatch):
    made = {}

    class LLM:
        def __init__(self, **settings):
            made.update(settings)

        def generate(self, prompts, params, use_tqdm):
            made["prompts"], made["params"] = prompts, params
            output = types.SimpleNamespace(text='{"a": 1}', finish_reason="stop")
            return [types.SimpleNamespace(outputs=[output]) for _ in prompts]

    params = types.ModuleType("vllm.sampling_params")
    params.StructuredOutputsParams = lambda json: ("schema", json)
    vllm = types.ModuleType("vllm")
    vllm.LLM, vllm.SamplingParams, vllm.sampling_params = LLM, lambda **settings: settings, params
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", params)
    monkeypatch.setattr(backends, "check_installation", lambda *asked: None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    settings = {"backend": "vllm", "gpu_memory": 0.2, "response_schema": {"type": "object"}, "temperature": 0.5}
    reasoner = local(folder, **settings)
    ((outcome,),) = reasoner.submit(questions("a")).result()
    assert outcome.verdict == {"a": 1}
    (prompt,) = made.pop("prompts")
    text = "<|im_start|>system\nReply.<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"
    assert reasoner._tokenizer.decode(prompt["prompt_token_ids"]) == text
    assert made == {
        "model": folder,
        "dtype": "auto",
        "max_model_len": 256,
        "gpu_memory_utilization": 0.2,
        "seed": 0,
        "distributed_executor_backend": "external_launcher",
        "params": {
            "temperature": 0.5,
            "top_p": 1,
            "max_tokens": 8,
            "structured_outputs": ("schema", '{"type": "object"}'),
        },
    }


def test_vllm_that_is_not_there_is_named(folder, monkeypatch):
    monkeypatch.setattr(installation, "DISTRIBUTIONS", ())
    with pytest.raises(ValueError, match=r"backend is vllm, but vLLM is not installed.*set backend to transformers"):
        LocalReasoner(ReasonerConfig(kind="local", model=folder, backend="vllm", max_tokens=8))
