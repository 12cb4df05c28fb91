# SPDX-License-Identifier: Apache-2.0
"""Trackers of `report_to` that are not there stop a run, with what to install."""

import importlib.util

import pytest
from findings import stops

from open_r1_vision.doctor.report import Report
from open_r1_vision.doctor.trackers import _OTHERS, _PACKAGES, check_trackers


@pytest.fixture
def installed(monkeypatch):
    """`installed("wandb")` makes these the only modules there are."""

    def pretend(*names):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if name in names else None)

    return pretend


def find(report_to):
    report = Report(lambda line: None)
    check_trackers(report, report_to)
    return [(level, text) for level, _, text in report.findings]


def test_trackers_that_are_not_installed(installed):
    installed("wandb")
    assert find("wandb") == [("ok", "wandb")]
    assert find(["wandb", "tensorboard", "comet_ml"]) == [
        ("STOP", "tensorboard is not installed: pip install tensorboard, or set report_to: none."),
        ("STOP", "comet_ml is not installed: pip install comet-ml, or set report_to: none."),
    ]
    installed("tensorboardX")
    assert find("tensorboard") == [("ok", "tensorboard")]


def test_what_names_no_tracker(installed):
    installed()
    assert find("none") == find(["none"]) == find("all") == find(None) == find([]) == []
    ((level, text),) = find("wandbb")
    assert level == "STOP" and text.startswith("'wandbb' is no tracker that is known: set one of tensorboard, wandb")


def test_all_trackers_of_transformers_are_known():
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    assert {*_PACKAGES, *_OTHERS} == set(INTEGRATION_TO_CALLBACK)


def test_a_recipe_with_a_tracker(ask, recipe):
    code, said = ask("--config", recipe(report_to="trackio"))
    assert code == 1
    assert stops(said) == {"report_to": "trackio is not installed: pip install trackio, or set report_to: none."}
