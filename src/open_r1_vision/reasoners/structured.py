# SPDX-License-Identifier: Apache-2.0
"""JSON replies: found in what a model wrote, and checked against a schema."""

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

_THINKING = re.compile(r"^\s*(?:<think>)?.*?</think>", re.DOTALL)
_FENCE = re.compile(r"```(?:json)?\s*\n?(.*?)```", re.DOTALL)
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def parse_json(text: str) -> Any:
    """The JSON value of a reply: the whole of it, the last fenced block, or what stands from the first bracket on.

    Thinking before `</think>` is left out. NaN and Infinity, which Python takes for JSON, are refused.

    Raises:
        ValueError: there is none.
    """
    text = _THINKING.sub("", text, count=1).strip()
    candidates = [text, *reversed(_FENCE.findall(text))]
    starts = [index for index in (text.find("{"), text.find("[")) if index >= 0]
    if starts:
        candidates.append(text[min(starts) : max(text.rfind("}"), text.rfind("]")) + 1])
    for candidate in candidates:
        try:
            return json.loads(candidate, parse_constant=_refuse)
        except RecursionError:
            raise ValueError("the reply nests too deeply to be read as JSON") from None
        except ValueError:
            continue
    raise ValueError(f"the reply is not JSON: {text!r:.80}")


def schema_reader(schema: Mapping[str, Any]) -> Callable[[str], Any]:
    """A function that reads a reply as JSON and checks it with :func:`check_schema`."""

    def read(text: str) -> Any:
        value = parse_json(text)
        check_schema(value, schema)
        return value

    return read


def check_schema(value: Any, schema: Mapping[str, Any], place: str = "the reply") -> None:
    """Check a value against the part of JSON Schema that verdicts need.

    Keywords: type, enum, properties, required, additionalProperties (false), items, minItems, maxItems, minimum,
    maximum. Others are not checked.

    Raises:
        ValueError: it does not fit; the message names the place.
    """
    kinds = schema.get("type")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds is not None and not any(_is_a(value, kind) for kind in kinds):
        raise ValueError(f"{place} is {value!r:.60}, not of type {' or '.join(kinds)}")
    if "enum" in schema and value not in schema["enum"]:
        raise ValueError(f"{place} is {value!r:.60}, not one of {schema['enum']}")
    if isinstance(value, dict):
        _check_object(value, schema, place)
    elif isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            raise ValueError(f"{place} has {len(value)} items, which are too few or too many")
        for index, item in enumerate(value):
            check_schema(item, schema.get("items", {}), f"{place}[{index}]")
    elif _is_a(value, "number") and not (
        # 1e999 is JSON, and infinite for Python
        math.isfinite(value) and schema.get("minimum", value) <= value <= schema.get("maximum", value)
    ):
        raise ValueError(f"{place} is {value!r:.60}, which is out of range")


def _check_object(value: dict, schema: Mapping[str, Any], place: str) -> None:
    properties = schema.get("properties", {})
    missing = [name for name in schema.get("required", ()) if name not in value]
    if missing:
        raise ValueError(f"{place} lacks {', '.join(missing)}")
    for name, item in value.items():
        if name in properties:
            check_schema(item, properties[name], f"{place}.{name}")
        elif schema.get("additionalProperties") is False:
            raise ValueError(f"{place} has {name!r:.60}, which the schema does not")


def _is_a(value: Any, kind: str) -> bool:
    # True is an int for Python, not for JSON
    return isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
