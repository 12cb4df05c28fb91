# SPDX-License-Identifier: Apache-2.0
import pytest

from open_r1_vision.rewards import length_reward


def test_the_reward_falls_beyond_the_limit():
    assert length_reward([[], [1], [1] * 512, [1] * 513, [1] * 2048]) == [1, 1, 1, 512 / 513, 0.25]
    assert length_reward([[1] * 8, [1] * 16], limit=4) == [0.5, 0.25]


def test_a_limit_below_one_is_refused():
    with pytest.raises(ValueError, match="limit is 0, which no completion could keep to"):
        length_reward([[1]], limit=0)
