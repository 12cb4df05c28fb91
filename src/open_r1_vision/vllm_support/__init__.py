# SPDX-License-Identifier: Apache-2.0
"""What colocated vLLM needs beside TRL: see :mod:`open_r1_vision.trainers.colocated_vllm` for what uses it."""
