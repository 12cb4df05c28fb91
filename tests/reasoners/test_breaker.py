# SPDX-License-Identifier: Apache-2.0
"""The breaker's states, on a clock that the test turns."""

import pytest

from open_r1_vision.reasoners.breaker import Breaker


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def breaker(clock):
    """Opens after 3 failures in a row, waits 1 s before the first probe, refuses after 10 s."""
    return Breaker(3, 10, 1, clock)


def fail(breaker, times):
    return [breaker.failed(False) for _ in range(times)]


def test_it_opens_after_so_many_failures_in_a_row(breaker):
    assert fail(breaker, 2) == [False, False]
    breaker.succeeded()
    assert fail(breaker, 3) == [False, False, True]
    assert breaker.is_open
    assert fail(breaker, 3) == [False] * 3  # those that were under way


def test_one_request_probes_and_the_others_wait(breaker, clock):
    fail(breaker, 3)
    assert breaker.ask().action == "wait"
    clock.now += 1
    assert breaker.ask().action == "probe"
    assert breaker.ask().action == "wait"
    assert breaker.succeeded()
    assert [breaker.ask().action for _ in range(2)] == ["go", "go"]


def test_the_pause_doubles_from_probe_to_probe_up_to_thirty_seconds(breaker, clock):
    fail(breaker, 3)
    pauses = []
    for _ in range(7):
        start = clock.now
        while breaker.ask().action != "probe":
            clock.now += 0.5
        pauses.append(clock.now - start)
        breaker.failed(True)
    assert pauses == [1, 2, 4, 8, 16, 30, 30]
    breaker.succeeded()
    fail(breaker, 3)
    clock.now += 1
    assert breaker.ask().action == "probe"  # a new outage begins with a short pause


def test_after_the_outage_others_are_refused_and_probes_go_on(breaker, clock):
    fail(breaker, 3)
    clock.now += 1
    assert breaker.ask().action == "probe"
    clock.now += 10
    assert breaker.ask().action == "wait"  # for what the probe finds
    breaker.failed(True)
    assert breaker.ask().action == "refuse"
    clock.now += 2
    assert [breaker.ask().action for _ in range(2)] == ["probe", "wait"]
    breaker.succeeded()
    assert breaker.ask().action == "go"


def test_a_straggler_that_succeeds_ends_the_outage(breaker):
    fail(breaker, 3)
    assert breaker.succeeded()
    assert breaker.ask().action == "go"
    assert not breaker.succeeded()
