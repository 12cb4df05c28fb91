# SPDX-License-Identifier: Apache-2.0
"""WarmUpTrainer: TRL's SFTTrainer, with checkpoints that a run can resume from."""

from trl import SFTTrainer

from open_r1_vision.trainers.whole_checkpoints import WholeCheckpoints


class WarmUpTrainer(WholeCheckpoints, SFTTrainer):
    """Supervised learning of completions; see WholeCheckpoints for what differs from `trl.SFTTrainer`."""

    _tag_names = ["trl", "sft", "open_r1_vision"]
