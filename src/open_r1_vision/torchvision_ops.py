# SPDX-License-Identifier: Apache-2.0
"""What torchvision needs to be imported where it was built for CUDA and torch was not.

PyPI has no CPU build of torchvision for Linux, and vLLM installs it. Its compiled operators then can't be loaded, and
its import fails at the two operators for which it registers shape functions, and with it that of transformers' image
processors. Nothing here imports torch unless this is so.
"""

import importlib.util
import re
from pathlib import Path
from typing import Any

#: What torchvision's own library would declare.
SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries: list[Any] = []


def declare_missing_ops() -> bool:
    """Declare the operators that torchvision's import asks for, without an implementation, where they are missing.

    It must come before the import of torchvision. Resizing, normalising and PIL images then work; calling one of the
    operators, as detection models do, raises.

    Returns:
        Whether they were missing.
    """
    if not _libraries and is_mismatched(_version_of("torch"), _version_of("torchvision")):
        import torch

        library = torch.library.Library("torchvision", "DEF")
        for schema in SCHEMAS:
            library.define(schema)
        # an operator goes with the library that declares it
        _libraries.append(library)
    return bool(_libraries)


def is_mismatched(torch_version: str | None, torchvision_version: str | None) -> bool:
    """Whether torchvision was built for CUDA and torch for the CPU: 0.28.0+cu130 beside 2.13.0+cpu."""
    return "+cpu" in (torch_version or "") and "+cu" in (torchvision_version or "")


def _version_of(package: str) -> str | None:
    """The version that an installed package gives itself, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]) / "version.py"
    found = re.search(r"^__version__ = '(.*)'", path.read_text(encoding="utf-8"), re.M) if path.is_file() else None
    return found[1] if found else None
