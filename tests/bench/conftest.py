# SPDX-License-Identifier: Apache-2.0
"""Benchmarks set the threads of torch, which the other tests are to keep."""

import pytest
import torch


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
