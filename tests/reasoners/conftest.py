# SPDX-License-Identifier: Apache-2.0
"""Reasoners that ask a scripted server, with limits that suit tests."""

import pytest

from open_r1_vision.reasoners import ReasonerConfig, build_reasoner

QUICK = {"backoff_seconds": 0.01, "request_seconds": 5, "batch_seconds": 20, "start_seconds": 1}


@pytest.fixture
def connect():
    """`connect(server, **settings)` gives a reasoner that asks it, closed at the end."""
    made = []

    def make(server, check=False, **settings):
        config = ReasonerConfig(kind="endpoint", model="judge", base_url=server.url, **{**QUICK, **settings})
        made.append(build_reasoner(config, check=check))
        return made[-1]

    yield make
    for reasoner in made:
        reasoner.close()
