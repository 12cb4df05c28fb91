# SPDX-License-Identifier: Apache-2.0
"""Trackers that a recipe reports to, by `report_to`."""

import importlib.util
from typing import Any

from open_r1_vision.doctor.report import Report

#: By the name that `report_to` has: modules of which one is enough, and what to install.
_PACKAGES = {
    "tensorboard": (("tensorboard", "tensorboardX"), "tensorboard"),
    "wandb": (("wandb",), "wandb"),
    "trackio": (("trackio",), "trackio"),
    "mlflow": (("mlflow",), "mlflow"),
    "comet_ml": (("comet_ml",), "comet-ml"),
    "swanlab": (("swanlab",), "swanlab"),
    "clearml": (("clearml",), "clearml"),
    "neptune": (("neptune",), "neptune"),
    "codecarbon": (("codecarbon",), "codecarbon"),
    "dvclive": (("dvclive",), "dvclive"),
    "dagshub": (("dagshub",), "dagshub"),
    "flyte": (("flytekit",), "flytekit"),
    "azure_ml": (("azureml",), "azureml-sdk"),
}
#: Of transformers too, but nothing is to be installed for them.
_OTHERS = ("kubeflow",)


def check_trackers(report: Report, report_to: Any) -> None:
    """Whether what `report_to` names is known to transformers, and installed.

    Args:
        report: gets what is found.
        report_to: as the recipe has it: a name, a list, or None.
    """
    names = [report_to] if isinstance(report_to, str) else list(report_to or ())
    wanted = [str(name) for name in names if name not in ("none", "all")]  # all: those that are there
    for name in wanted:
        if fault := find_fault(name):
            report.stop("report_to", fault)
    if wanted and not any(map(find_fault, wanted)):
        report.ok("report_to", ", ".join(wanted))


def find_fault(tracker: str) -> str | None:
    """Why a tracker can't be reported to, and what to do about it; None where it can."""
    if tracker in _OTHERS:
        return None
    if tracker not in _PACKAGES:
        return f"{tracker!r} is no tracker that is known: set one of {', '.join(_PACKAGES)}, or report_to: none."
    modules, package = _PACKAGES[tracker]
    if any(importlib.util.find_spec(module) for module in modules):
        return None
    return f"{tracker} is not installed: pip install {package}, or set report_to: none."
