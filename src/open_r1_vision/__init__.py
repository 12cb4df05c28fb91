# SPDX-License-Identifier: Apache-2.0
"""Reinforcement learning of vision-language models on TRL, on one node."""

__version__ = "0.1.0"
