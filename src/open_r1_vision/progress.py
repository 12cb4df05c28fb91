# SPDX-License-Identifier: Apache-2.0
"""The progress bar of a run: reward, accuracy, and the time that is left."""

from typing import Any

from transformers import ProgressCallback, TrainerControl, TrainerState, TrainingArguments

#: What the bar shows, and the log entry it comes from.
_SHOWN = {"reward": "reward", "accuracy": "rewards/accuracy_reward/mean", "reader": "reader/accuracy"}


class RewardProgressCallback(ProgressCallback):
    """transformers' progress bar with the latest rewards in it, instead of every log line above it."""

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero and self.training_bar is not None and logs:
            shown = {name: f"{logs[key]:.2f}" for name, key in _SHOWN.items() if logs.get(key) is not None}
            if shown:  # else the entry is of held-out rows, or of the whole run
                self.training_bar.set_postfix(shown)
