# SPDX-License-Identifier: Apache-2.0
import pytest
from hinting import PROMPT_END, RIGHT, STEPS, WRONG
from tiny_models import END, build_tokenizer

from open_r1_vision.trainers import VisionGRPOTrainer


@pytest.fixture
def script(monkeypatch):
    """`script(first_right)` has rows answered right from that level on, in the second completion of a group.

    Returns what the backend was asked: the text of each prompt of each call.
    """
    tokenizer = build_tokenizer()

    def install(first_right):
        calls = []

        def reply(self, prompt_ids, images, multimodal_fields, num_generations, *args, **kwargs):
            texts = [tokenizer.decode(ids) for ids in prompt_ids]
            calls.append(texts)
            replies, seen = [], {}
            for text in texts:
                problem, start = text.split(PROMPT_END)
                row = f"row-{problem.count('please')}"
                level = sum(step in start for step in STEPS)
                seen[row, level] = seen.get((row, level), 0) + 1
                is_right = seen[row, level] % 2 == 0 and level >= first_right[row]
                replies.append([*tokenizer(RIGHT if is_right else WRONG)["input_ids"], END])
            return replies, None

        monkeypatch.setattr(VisionGRPOTrainer, "_generate_single_turn", reply)
        return calls

    return install
