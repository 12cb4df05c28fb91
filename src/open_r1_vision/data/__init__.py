# SPDX-License-Identifier: Apache-2.0
"""Data sets: the row schema, loaders, converters of published formats, and checks before training.

Nothing here imports torch, transformers or vLLM.
"""
