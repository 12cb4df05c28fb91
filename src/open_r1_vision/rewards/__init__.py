# SPDX-License-Identifier: Apache-2.0
"""Reward functions: plain callables on strings and columns, which need neither torch nor a trainer to import."""

from open_r1_vision.rewards.accuracy import accuracy_reward
from open_r1_vision.rewards.caption import caption_reward
from open_r1_vision.rewards.clip import clip_reward
from open_r1_vision.rewards.format import format_reward
from open_r1_vision.rewards.key_words import key_words_reward
from open_r1_vision.rewards.length import length_reward
from open_r1_vision.rewards.repetition import repetition_reward, token_repetition_reward
from open_r1_vision.rewards.sections import sections_format_reward
from open_r1_vision.rewards.visual_facts import visual_facts_reward

__all__ = [
    "accuracy_reward",
    "caption_reward",
    "clip_reward",
    "format_reward",
    "key_words_reward",
    "length_reward",
    "repetition_reward",
    "sections_format_reward",
    "token_repetition_reward",
    "visual_facts_reward",
]
