# SPDX-License-Identifier: Apache-2.0
"""Trackers that a recipe's `report_to` names, and which of them can't be written to here."""

import difflib
from collections.abc import Sequence

#: Where transformers' check for a tracker's package, or pip's name of that package, is not the tracker's own name.
_CHECKS = {"azure_ml": "azureml", "comet_ml": "comet", "flyte": "flytekit"}
_PACKAGES = {"azure_ml": "azureml-sdk", "comet_ml": "comet-ml", "flyte": "flytekit"}


def missing_trackers(report_to: str | Sequence[str] | None) -> list[str]:
    """What pip would have to install so that these trackers can be written to; empty where all is there.

    Args:
        report_to: of a recipe or of transformers.TrainingArguments: one or several, `none`, or `all` that are there.

    Raises:
        ValueError: one is no tracker that transformers knows.
    """
    from transformers.integrations import integration_utils

    names = [report_to] if isinstance(report_to, str) else list(report_to or ())
    names = [] if names in (["none"], ["all"]) else names
    known = integration_utils.INTEGRATION_TO_CALLBACK
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(sorted(known))}."
            raise ValueError(f"report_to names {name!r}, which is no tracker. {hint} report_to: none writes to none.")
    return [
        _PACKAGES.get(name, name)
        for name in names
        if not getattr(integration_utils, f"is_{_CHECKS.get(name, name)}_available")()
    ]


def check_trackers(report_to: str | Sequence[str] | None) -> None:
    """Find out before rows and model are loaded whether the trackers are there.

    Raises:
        ValueError: one is not; the message says what to install or set.
    """
    if missing := missing_trackers(report_to):
        named = report_to if isinstance(report_to, str) else ", ".join(report_to or ())
        are = "is" if len(missing) == 1 else "are"
        raise ValueError(
            f"report_to is {named!r}, but {' and '.join(missing)} {are} not installed here: "
            f"`pip install {' '.join(missing)}`, or set report_to: none; log.jsonl has the same numbers."
        )
