# SPDX-License-Identifier: Apache-2.0
"""Training with a judge behind a server that fails: it goes on, no reward is wrong, and the failure rate is right."""

import random
import threading
import zlib

import pytest
from scripted_server import ScriptedServer, asked, drop, fault, half, reply, send_text
from tiny_models import make_trainer, options, recording, rows, step_logs

from open_r1_vision.reasoners import TooManyFailures
from open_r1_vision.rewards.answers import completion_text
from open_r1_vision.trainers import CaptionGRPOConfig, CaptionGRPOTrainer

GROUP = 4


def right_verdict(text):
    return zlib.crc32(text.encode()) % 100 / 100


def judge(body, number):
    return reply(f"{right_verdict(caption(body))}")


def caption(body):
    """The completion that the server is asked about."""
    return asked(body).partition("<info> ")[2].removesuffix("</info>")


def verdict_reward(caption_answer, **columns):
    return [float(answer or 0) for answer in caption_answer]


def constant_reward(completions, **columns):
    return [1.0] * len(completions)


class NotingTrainer(CaptionGRPOTrainer):
    """Notes what was judged, which verdicts failed, and the rewards that came of it."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.notes = []
        finish = self.verdicts.finish

        def note_failures(*arguments):
            (findings,) = finish(*arguments)
            self.failed = [failure is not None for failure in findings.failures]
            return [findings]

        self.verdicts.finish = note_failures

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        texts = [completion_text(completion).strip() for completion in completions]
        self.notes.append((texts, self.failed, rewards[:, 1].tolist()))
        return rewards


@pytest.fixture
def train(tiny_model, tmp_path):
    """`train(server, **settings)` trains three steps of 2 prompts with 4 completions each."""
    trainers = []

    def run(server, before=lambda trainer: None, **settings):
        defaults = {"request_seconds": 0.5, "backoff_seconds": 0.01, "concurrency": 4}
        args = options(
            tmp_path,
            CaptionGRPOConfig,
            per_device_train_batch_size=8,
            num_generations=GROUP,
            max_steps=3,
            max_completion_length=6,
            caption_section=None,
            reasoner={"kind": "endpoint", "model": "judge", "base_url": server.url, **defaults, **settings},
        )
        trainer = make_trainer(
            recording(NotingTrainer), tiny_model, args, rows(1, 1, 1, 1, 1, 1), [constant_reward, verdict_reward]
        )
        trainers.append(trainer)
        before(trainer)
        trainer.train()
        return trainer

    yield run
    for trainer in trainers:
        trainer.reader.reasoner.close()


def faulty(share):
    """A judge that fails for this share of its completions, however often they are asked about."""
    faults = [
        lambda: fault(429),
        lambda: fault(500),
        drop,
        half,
        lambda: send_text("{"),
        lambda: reply("0", seconds=2),
    ]
    faults += [lambda: fault(404)]

    def script(body, number):
        rng = random.Random(caption(body))
        return rng.choice(faults)() if rng.random() < share else judge(body, number)

    return script


def mean(values):
    return sum(values) / len(values)


def test_it_goes_on_and_no_reward_is_wrong(train):
    with ScriptedServer(faulty(0.3)) as server:
        trainer = train(server, retries=1)
    assert len(trainer.notes) == 3
    num_failed = 0
    for texts, failed, verdicts in trainer.notes:
        judged = [right_verdict(text) for text, lost in zip(texts, failed, strict=True) if not lost]
        for start in (0, GROUP):
            group = range(start, start + GROUP)
            own = [right_verdict(texts[place]) for place in group if not failed[place]]
            for place in group:
                expected = mean(own or judged) if failed[place] else right_verdict(texts[place])
                assert verdicts[place] == pytest.approx(expected, abs=1e-6)
        num_failed += sum(failed)
    assert 0 < num_failed < 24
    rates = [rate for (rate,) in step_logs(trainer, "reader/failure_rate")]
    assert rates == pytest.approx([mean(failed) for _, failed, _ in trainer.notes])


def test_a_dropped_group_has_no_advantage_at_all(train):
    with ScriptedServer(faulty(0.2)) as server:
        trainer = train(server, retries=0, on_failure="drop_group")
    seen = set()
    for output, (_, failed, _) in zip(trainer.outputs, trainer.notes, strict=True):
        # trainers shuffle what they scored: compare how many are at rest
        dropped = [any(failed[start : start + GROUP]) for start in (0, GROUP)]
        assert int((output["advantages"] == 0).sum()) == GROUP * sum(dropped)
        seen.update(dropped)
    assert seen == {True, False}


def test_a_server_that_is_killed_and_comes_back(train):
    with ScriptedServer(judge) as server:

        def before(trainer):
            calculate = trainer._calculate_rewards

            def with_an_outage(*args):
                if len(trainer.notes) == 1:
                    server.stop()
                    threading.Timer(1.0, server.start).start()
                return calculate(*args)

            trainer._calculate_rewards = with_an_outage
            submit = trainer.reader.reasoner.submit

            def slowly(*args, **kwargs):
                if len(trainer.notes) == 1:
                    server.script = lambda body, number: reply(f"{right_verdict(caption(body))}", seconds=0.1)
                return submit(*args, **kwargs)

            trainer.reader.reasoner.submit = slowly

        trainer = train(server, before, on_failure="abort")
    assert max(step_logs(trainer, "reader/retries"))[0] > 0
    for texts, _, verdicts in trainer.notes:
        assert verdicts == pytest.approx([right_verdict(text) for text in texts], abs=1e-6)


def test_too_many_failures_stop_the_run_and_say_why(train):
    message = r"8 of the last 8 .*refused: .*scripted 404.*to resume"
    with ScriptedServer(lambda body, number: fault(404)) as server, pytest.raises(TooManyFailures, match=message):
        train(server, failure_window=20)


def test_abort_stops_at_the_first_failure(train):
    message = "on_failure is abort"
    with ScriptedServer(lambda body, number: fault(404)) as server, pytest.raises(TooManyFailures, match=message):
        train(server, on_failure="abort", max_failure_rate=1)
