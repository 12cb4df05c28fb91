# SPDX-License-Identifier: Apache-2.0
"""Rows with reference steps, and options and rewards to train on them with hints."""

from tiny_models import make_trainer, options, recording, rows

from open_r1_vision.rewards import accuracy_reward
from open_r1_vision.trainers import HintGRPOConfig

STEPS = ["One.", "Two.", "Three."]
RIGHT, WRONG = "so</think><answer>7</answer>", "so</think><answer>8</answer>"
PROMPT_END = "<|im_start|>assistant\n"


def hinted_rows(*image_counts, steps=None):
    """`rows` with reference steps: those given for each row, or three."""
    dataset = rows(*image_counts)
    return dataset.add_column("reasoning_steps", steps or [STEPS] * len(dataset))


def hint_options(output_dir, config_class=HintGRPOConfig, **settings):
    defaults = {"per_device_train_batch_size": 2, "max_steps": 1, "max_completion_length": 60}
    return options(output_dir, config_class, **{**defaults, **settings})


def make(trainer_class, model, args, dataset, reward=accuracy_reward, **kwargs):
    return make_trainer(recording(trainer_class), model, args, dataset, reward, **kwargs)


def spy(received):
    """An accuracy reward that keeps what it gets."""

    def reward(completions, completion_ids, response_start, hint_level, solution, problem_type, **columns):
        received.append(
            {"completions": completions, "ids": completion_ids, "hint": response_start, "level": hint_level}
        )
        return accuracy_reward(completions, solution, problem_type)

    return reward
