# SPDX-License-Identifier: Apache-2.0
"""docs/data.md names converters that are there, with options that they take."""

import inspect
import re
from pathlib import Path

import yaml

from open_r1_vision.importing import import_callable

PAGE = (Path(__file__).parent.parent.parent / "docs" / "data.md").read_text()


def blocks(value):
    """Every mapping that names a data set, nested ones too."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from blocks(item)


def test_every_converter_is_there_and_takes_the_options():
    recipes = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]
    assert len(recipes) == 8
    named = set()
    for recipe in recipes:
        for block in blocks(recipe):
            for prefix in ("", "eval_"):
                name = str(block.get(f"{prefix}dataset") or "")
                if name.startswith("open_r1_vision."):
                    named.add(name)
                    options = block.get(f"{prefix}dataset_options") or {}
                    inspect.signature(import_callable(name)).bind("train", **options)
    in_table = set(re.findall(r"`(open_r1_vision\.data\.\w+\.rows)` \|", PAGE))
    assert in_table == named - {"open_r1_vision.data.merged.rows"}
    for name in in_table:
        import_callable(name)


def test_every_published_format_has_a_miniature():
    tests = Path(__file__).parent
    for name in re.findall(r"`open_r1_vision\.data\.(\w+)\.rows` \|", PAGE):
        assert any(name in path.name for path in tests.glob("test_*.py")), name
