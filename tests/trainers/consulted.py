# SPDX-License-Identifier: Apache-2.0
"""Trainers with chosen completions that consult text models behind a scripted server, and what such servers say."""

import contextlib
import re

from fact_chats import REQUEST, entries
from scripted_server import asked, fault, reply
from tiny_models import END, build_tokenizer, make_trainer, options, recording, rows

from open_r1_vision.rewards import visual_facts_reward
from open_r1_vision.trainers import VisionGRPOConfig, VisionGRPOTrainer

FACTS = [["a is red", "b is blue"], ["c is big", "d is small", "e is flat"]]
DESCRIPTION = re.compile(r"=== TEXT \w+ ===\n(.*)\n=== END OF TEXT", re.DOTALL)


def wording(row_id, number):
    return f"{row_id} says {number}"


def scripted(trainer_class):
    """The trainer, whose completions are `row-0 says 0`, `row-0 says 1`, …; it notes its rewards."""
    tokenizer = build_tokenizer()

    class Scripted(recording(trainer_class)):
        tables = ()

        def _generate_single_turn(self, prompt_ids, *args, **kwargs):
            used, replies = {}, []
            for row in self._batch_rows:
                used[row["id"]] = used.get(row["id"], -1) + 1
                replies.append([*tokenizer(wording(row["id"], used[row["id"]]))["input_ids"], END])
            return replies, None

        def _calculate_rewards(self, inputs, *args):
            rewards = super()._calculate_rewards(inputs, *args)
            places = [row["id"] for row in inputs]
            table = {place: [] for place in sorted(set(places))}
            for place, values in zip(places, rewards.tolist(), strict=True):
                table[place].append([None if value != value else value for value in values])
            self.tables = (*self.tables, table)
            return rewards

    return Scripted


def number_reward(completions, **columns):
    return [float(message[0]["content"][-1]) for message in completions]


def judge_block(server, **settings):
    limits = {"request_seconds": 5, "retries": 0, "backoff_seconds": 0.01, "max_failure_rate": 1}
    return {"kind": "endpoint", "model": "judge", "base_url": server.url, **limits, **settings}


@contextlib.contextmanager
def building(model, folder):
    """Gives `build(trainer_class, config_class, rewards, dataset, **settings)`; reasoners are closed at the end."""
    trainers = []

    def make(trainer_class, config_class, rewards, dataset, eval_dataset=None, **settings):
        defaults = {"per_device_train_batch_size": 4 * len(dataset), "num_generations": 4, "max_steps": 1}
        defaults |= {"shuffle_dataset": False, "max_completion_length": 60}
        args = options(folder, config_class, **{**defaults, **settings})
        trainer = make_trainer(trainer_class, model, args, dataset, rewards, eval_dataset=eval_dataset)
        trainers.append(trainer)
        return trainer

    try:
        yield make
    finally:
        for trainer in trainers:
            for consultation in trainer.verdicts:
                part = getattr(consultation, "judge", None) or trainer.reader
                part.reasoner.close()


def facts_trainer(build, server, rewards=(number_reward, visual_facts_reward), facts=FACTS, **settings):
    dataset = rows(*[0] * len(facts)).add_column("visual_facts", facts)
    block = {name: settings.pop(name) for name in ("on_failure", "max_failure_rate") if name in settings}
    judged = {"fact_judge": judge_block(server, **block)}
    return build(scripted(VisionGRPOTrainer), VisionGRPOConfig, list(rewards), dataset, **judged, **settings)


def response(body):
    return REQUEST.search(asked(body))["response"]


def verdicts_by(replies, otherwise=None):
    """A judge that has these verdicts, or a status of failure, for a response."""

    def script(body, number):
        verdict = replies.get(response(body), otherwise)
        return fault(verdict) if isinstance(verdict, int) else reply(entries(*verdict))

    return script


ROW_0 = {"row-0 says 0": (1, 1), "row-0 says 1": (1, 0), "row-0 says 2": (0, 0), "row-0 says 3": (0, 1)}
ROW_1 = {
    "row-1 says 0": (1, 0, 0),
    "row-1 says 1": (1, 1, 1),
    "row-1 says 2": (0, 0, 0),
    "row-1 says 3": (0, 1, 1),
}
