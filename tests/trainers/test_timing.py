# SPDX-License-Identifier: Apache-2.0
"""Where the seconds of a step go: each to one part, and all of them to the step."""

import time
from types import SimpleNamespace

import pytest
import transformers
from tiny_models import make_trainer, options, parity_reward, rows

from open_r1_vision.trainers import CaptionGRPOConfig, CaptionGRPOTrainer, VisionGRPOTrainer
from open_r1_vision.trainers.timing import StepTimer

PARTS = (
    "loading",
    "preparing",
    "generation",
    "reading",
    "logprobs",
    "rewards",
    "scoring",
    "update",
    "optimizer",
    "other",
)
#: How long a slowed part takes at least; no two parts are alike.
SLEEPS = {
    "loading": 0.5,
    "preparing": 0.6,
    "generation": 0.7,
    "reading": 0.8,
    "logprobs": 0.9,
    "rewards": 1.0,
    "update": 1.1,
    "optimizer": 1.2,
    "other": 1.3,
}


class Clock(transformers.TrainerCallback):
    """Times steps by itself, from the first look at the data to the end."""

    def __init__(self, trainer):
        self.seconds = []
        fetch = trainer.get_batch_samples

        def first(*args):
            self.start = time.perf_counter()
            return fetch(*args)

        trainer.get_batch_samples = first
        trainer.add_callback(self)

    def on_step_end(self, *args, **kwargs):
        self.seconds.append(time.perf_counter() - self.start)


def steps(trainer):
    """For each logged step, its parts by name."""
    entries = [entry for entry in trainer.state.log_history if "step_time" in entry]
    return [
        {name.removeprefix("seconds/"): value for name, value in entry.items() if name.startswith("seconds/")}
        for entry in entries
    ]


def slowly(seconds, function):
    def slow(*args, **kwargs):
        time.sleep(seconds)
        return function(*args, **kwargs)

    return slow


class Reader:
    def __init__(self, seconds=0.0):
        self.seconds = seconds

    def read(self, captions, problems):
        from open_r1_vision.reasoners.captions import Reading

        time.sleep(self.seconds)
        return [Reading("", "7") for _ in captions]


def captions_trainer(model, folder, reward=parity_reward, reader=None, **settings):
    settings = {"caption_section": None, "beta": 0.04, "eval_strategy": "steps", "eval_steps": 1, **settings}
    args = options(folder, CaptionGRPOConfig, **settings)
    return make_trainer(
        CaptionGRPOTrainer, model, args, rows(1, 1, 1, 1), reward, reader=reader or Reader(), eval_dataset=rows(1)
    )


def test_the_parts_add_up_to_the_step(tiny_model, tmp_path):
    trainer = captions_trainer(tiny_model, tmp_path, gradient_accumulation_steps=2, max_steps=4)
    clock = Clock(trainer)
    trainer.train()
    logged = steps(trainer)
    assert len(logged) == len(clock.seconds) == 4
    for parts, measured in zip(logged, clock.seconds, strict=True):
        assert parts.keys() == {*PARTS, "step"}
        whole = parts.pop("step")
        assert sum(parts.values()) == pytest.approx(whole, rel=1e-6)
        # what lies around the step on that clock is little, though other programs may take their turns there
        assert 0.8 * measured - 0.1 < whole <= measured
        assert min(parts.values()) > 0
    evaluations = [entry for entry in trainer.state.log_history if "eval_reward" in entry]
    assert len(evaluations) == 4
    for entry in evaluations:
        named = {name for name in entry if name.startswith("eval_seconds/")}
        of_evaluation = ("generation", "logprobs", "preparing", "reading", "rewards", "scoring")
        assert named == {f"eval_seconds/{name}" for name in of_evaluation}


def test_each_second_goes_to_its_part(tiny_model, tmp_path):
    """Every part is slowed by another time, which is found in that part and in no other one."""
    trainer = captions_trainer(
        tiny_model,
        tmp_path,
        slowly(SLEEPS["rewards"], parity_reward),
        Reader(SLEEPS["reading"]),
        max_steps=1,
        eval_strategy="no",
        # the loader reads a batch ahead, which has the same rows
        per_device_train_batch_size=8,
    )

    class SlowRows(type(trainer.train_dataset)):
        __getitems__ = slowly(SLEEPS["loading"], type(trainer.train_dataset).__getitems__)

    trainer.train_dataset.__class__ = SlowRows
    processor = type(trainer.processing_class)

    class SlowProcessor(processor):
        apply_chat_template = slowly(SLEEPS["preparing"], processor.apply_chat_template)

    tokenize = trainer._tokenize_prompts

    def slow_once(prompts):
        trainer.processing_class.__class__ = SlowProcessor
        trainer._tokenize_prompts = tokenize
        try:
            return tokenize(prompts)
        finally:
            trainer.processing_class.__class__ = processor

    trainer._tokenize_prompts = slow_once
    model = trainer.model
    model.generate = slowly(SLEEPS["generation"], model.generate)
    trainer.ref_model.forward = slowly(SLEEPS["logprobs"], trainer.ref_model.forward)
    loss = trainer.compute_loss
    trainer.compute_loss = slowly(SLEEPS["update"], lambda *args, **kwargs: loss(*args, **kwargs))
    trainer.create_optimizer()
    trainer.optimizer.step = slowly(SLEEPS["optimizer"], trainer.optimizer.step)

    class SlowBegin(transformers.TrainerCallback):
        def on_step_begin(self, *args, **kwargs):
            time.sleep(SLEEPS["other"])

    trainer.add_callback(SlowBegin())
    trainer.train()
    (parts,) = steps(trainer)
    for name, seconds in SLEEPS.items():
        assert seconds <= parts[name] < seconds + 0.45, (name, parts)
    assert parts["scoring"] < 0.45


def test_means_of_several_steps_add_up(tiny_model, tmp_path):
    """Of four steps two take no sample; the log is of all four."""
    settings = {"steps_per_generation": 2, "max_steps": 4, "logging_steps": 4, "eval_strategy": "no"}
    trainer = captions_trainer(tiny_model, tmp_path, **settings)
    clock = Clock(trainer)
    trainer.train()
    (parts,) = steps(trainer)
    whole = parts.pop("step")
    assert sum(parts.values()) == pytest.approx(whole, rel=1e-6)
    measured = sum(clock.seconds) / 4
    assert 0.8 * measured - 0.1 < whole <= measured


def test_an_evaluation_within_a_step(tiny_model, tmp_path):
    """A callback's, before the step ends: its seconds are the step's, whose parts still add up."""

    class Evaluating(transformers.TrainerCallback):
        def on_step_end(self, *args, **kwargs):
            trainer.evaluate()
            trainer.model.train()

    args = options(tmp_path, max_steps=1, eval_strategy="no")
    trainer = make_trainer(
        VisionGRPOTrainer, tiny_model, args, rows(1, 1), eval_dataset=rows(1), callbacks=[Evaluating()]
    )
    trainer.train()
    evaluation, *_ = [entry for entry in trainer.state.log_history if "eval_reward" in entry]
    assert not [name for name in evaluation if name.startswith("eval_seconds/")]
    (logged,) = [entry for entry in trainer.state.log_history if "seconds/step" in entry]
    parts = {name: value for name, value in logged.items() if name.startswith("seconds/")}
    whole = parts.pop("seconds/step")
    assert sum(parts.values()) == pytest.approx(whole, rel=1e-6)


def test_weights_that_go_to_vllm(tiny_model, tmp_path):
    """They go while completions are sampled, whoever of TRL's code sends them."""
    trainer = make_trainer(VisionGRPOTrainer, tiny_model, options(tmp_path), rows(1))
    trainer.use_vllm = True
    trainer.vllm_generation = SimpleNamespace(sync_weights=lambda: time.sleep(0.3))
    trainer.time_steps()
    with trainer.timed("generation"):
        trainer.vllm_generation.sync_weights()
    seconds = trainer.timed.flush()
    assert seconds["weight_sync"] == pytest.approx(0.3, abs=0.1)
    assert 0 <= seconds["generation"] < 0.1


# ---- the timer


def clocked(monkeypatch, *times):
    clock = iter(times)
    monkeypatch.setattr("open_r1_vision.trainers.timing.time", SimpleNamespace(perf_counter=lambda: next(clock)))


def test_inner_times_are_taken_off(monkeypatch):
    clocked(monkeypatch, 0.0, 1.0, 3.0, 3.5, 4.0, 10.0, 20.0, 21.0)
    timed = StepTimer()
    with timed("update"):  # 0 to 10
        with timed("generation"):  # 1 to 3
            pass
        with timed("generation"):  # 3.5 to 4
            pass
    assert timed.flush() == {"generation": 2.5, "update": 7.5}
    with pytest.raises(RuntimeError), timed("rewards"):  # 20 to 21
        raise RuntimeError
    assert timed.flush() == {"rewards": 1.0}
    assert timed.flush() == {}


def test_what_was_never_stopped_ends_with_its_block(monkeypatch):
    clocked(monkeypatch, 0.0, 1.0, 4.0, 6.0, 7.0, 9.0)
    timed = StepTimer()
    with timed("update"):  # 0 to 6
        timed.start("optimizer")  # 1 to 4
    assert timed.flush() == {"optimizer": 3.0, "update": 3.0}
    timed.start("other")  # 7 to never
    timed.clear()
    assert timed.flush() == {}


def test_the_device_is_waited_for_before_each_look_at_the_clock(monkeypatch):
    events = []

    def perf_counter():
        events.append("clock")
        return 0.0

    monkeypatch.setattr("open_r1_vision.trainers.timing.time", SimpleNamespace(perf_counter=perf_counter))
    with StepTimer(lambda: events.append("wait"))("update"):
        events.append("work")
    assert events == ["wait", "clock", "work", "wait", "clock"]
