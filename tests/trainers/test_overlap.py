# SPDX-License-Identifier: Apache-2.0
"""Text models that are consulted work while the step goes on, and all at the same time."""

import time

import pytest
from consulted import FACTS, building, judge_block, number_reward, scripted
from fact_chats import REQUEST, entries
from scripted_server import ScriptedServer, asked, reply, wait_until
from tiny_models import rows, step_logs

from open_r1_vision.rewards import caption_reward, visual_facts_reward
from open_r1_vision.trainers import CaptionGRPOConfig, CaptionGRPOTrainer

#: Seconds that the server takes for each reply.
SLOW = 0.6


@pytest.fixture
def build(tiny_model, tmp_path):
    with building(tiny_model, tmp_path) as make:
        yield make


def slow_script(body, number):
    text = entries(1, 1) if REQUEST.search(asked(body)) else "7"
    return reply(text, seconds=SLOW)


def captions_and_facts(build, server, **settings):
    """Four completions, of which a reader and a judge on servers are asked."""
    return build(
        scripted(CaptionGRPOTrainer),
        CaptionGRPOConfig,
        [number_reward, caption_reward, visual_facts_reward],
        rows(0).add_column("visual_facts", FACTS[:1]),
        caption_section=None,
        reasoner=judge_block(server),
        fact_judge=judge_block(server),
        **settings,
    )


def test_requests_are_out_while_log_probabilities_are_computed(build):
    """Those of the policy before the update, and of the reference: eight requests wait, none was answered."""
    with ScriptedServer(slow_script) as server:
        trainer = captions_and_facts(
            build, server, beta=0.1, steps_per_generation=2, per_device_train_batch_size=2, num_generations=4
        )
        passes = []
        score = trainer._get_per_token_logps_and_entropies

        def noting(model, *args, **kwargs):
            if not passes:
                wait_until(lambda: server._at_once == 8)
            if len(passes) < 2:
                passes.append((model is trainer.ref_model, server._at_once))
            return score(model, *args, **kwargs)

        trainer._get_per_token_logps_and_entropies = noting
        trainer.train()
    assert passes == [(False, 8), (True, 8)]


def test_reader_and_judge_are_asked_at_the_same_time(build):
    """The wait is as long as the longest of both, not as both together."""
    with ScriptedServer(slow_script) as server:
        trainer = captions_and_facts(build, server)
        start = time.monotonic()
        trainer.train()
        whole = time.monotonic() - start
        assert server.most_at_once == 8
    reading, judging = step_logs(trainer, "seconds/reading", "seconds/judging")[0]
    assert SLOW * 0.5 < reading + judging < SLOW * 1.5
    assert whole < 2 * SLOW + 1.5


def test_waiting_is_hidden_behind_log_probabilities(build):
    """A reference that takes as long as the servers leaves nothing to wait for."""
    with ScriptedServer(slow_script) as server:
        trainer = captions_and_facts(build, server, beta=0.1)
        forward = trainer.ref_model.forward

        def slow_forward(*args, **kwargs):
            time.sleep(SLOW + 0.3)
            return forward(*args, **kwargs)

        trainer.ref_model.forward = slow_forward
        trainer.train()
    names = ("seconds/reading", "seconds/judging", "seconds/logprobs")
    reading, judging, logprobs = step_logs(trainer, *names)[0]
    assert reading + judging < 0.2
    assert logprobs > SLOW + 0.3
