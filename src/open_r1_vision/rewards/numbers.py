# SPDX-License-Identifier: Apache-2.0
r"""When two texts are the same number.

A number is the whole text, never a part of it: `7 or 8` and `5-3` are none. Read are signs, decimals, thousands
separators (`1,234`), exponents (`1e3`, `1.2 \times 10^{3}`), fractions (`3/4`, `\frac{3}{4}`, `1 1/2`), a currency
sign in front, and behind it a scale (`5 million`) and a percent sign or unit. `inf`, `nan` and `1_000` are none.

- Two integers are equal or not. Otherwise the relative tolerance is 1e-6.
- `12%` is 0.12. Where the question asks for a percentage, the sign may be left out: `12` is then equal to `12%`.
- A unit may be left out on either side: `7 cm` equals `7`. Two units have to be the same: `7 cm` is not `7 m`, since
  nothing is converted. A unit is a symbol of the table below, or up to three words ("7 red apples").
"""

import math
import re
from dataclasses import dataclass

RELATIVE_TOLERANCE = 1e-6
_MAX_CHARS = 100

_SIGNS = str.maketrans({"−": "-", "–": "-", "\u00a0": " ", "\u2009": " ", "\u202f": " ", "％": "%", "º": "°"})
_REWRITES = (
    (re.compile(r"\\[dt]?frac\s*\{(\d+)\}\s*\{(\d+)\}", re.ASCII), r" \1/\2"),
    (re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\\degree"), "°"),
    (re.compile(r"\\(?:text|mathrm|textrm|mbox)\s*\{([^{}]*)\}"), r" \1"),
    (re.compile(r"\\([%$])"), r"\1"),
    (re.compile(r"\\[,;:! ]|~"), " "),
)
_NUMBER = re.compile(
    r"""(?P<sign>[+-]?)\s*(?P<currency>[$€£¥]?)\s*
    (?:(?P<whole>\d+)\s+(?=\d+\s*/))?
    (?P<mantissa>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d*)?|\.\d+)
    (?:[eE](?P<exponent>[+-]?\d{1,3})|\s*(?:×|\*|\\times|\\cdot)\s*10\s*\^\s*\{?(?P<power>[+-]?\d{1,3})\}?)?
    (?:\s*/\s*(?P<denominator>\d+(?:\.\d+)?))?
    \s*(?P<unit>.*)""",
    re.ASCII | re.VERBOSE | re.DOTALL,
)

_SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_SYMBOL = re.compile(
    r"(mm|cm|dm|m|km|in|ft|yd|mi|ha|mg|g|kg|t|lb|oz|mL|cL|dL|L|ms|s|min|h|mph|N|J|kJ|W|kW|V|mV|A|mA|Hz|kHz|Pa|kPa|rad"
    r"|°[CF]?|Ω|%|[$€£¥])(?:\^?\{?([23²³])\}?)?"
)
_SPELLINGS = {
    **dict.fromkeys(("degree", "deg"), "°"),
    **dict.fromkeys(("percent", "per cent", "pct"), "%"),
    **dict.fromkeys(("dollar", "usd"), "$"),
    **dict.fromkeys(("euro", "eur"), "€"),
    **dict.fromkeys(("millimeter", "millimetre"), "mm"),
    **dict.fromkeys(("centimeter", "centimetre"), "cm"),
    **dict.fromkeys(("meter", "metre"), "m"),
    **dict.fromkeys(("kilometer", "kilometre"), "km"),
    **dict.fromkeys(("inche", "inch"), "in"),
    **dict.fromkeys(("foot", "feet"), "ft"),
    **dict.fromkeys(("gram", "gramme"), "g"),
    **dict.fromkeys(("kilogram", "kilo"), "kg"),
    **dict.fromkeys(("liter", "litre"), "L"),
    **{"second": "s", "sec": "s", "minute": "min", "hour": "h", "hr": "h", "mile": "mi", "pound": "lb", "lbs": "lb"},
    **{"ml": "mL", "l": "L", "度": "°"},
}
#: Words behind a number that make it another number, or no single one.
_NO_UNIT = re.compile(
    "or|and|nor|not|but|than|then|plus|minus|times|over|per|sqrt|root|squared|cubed|factorial|log|sin|cos|tan|mod"
    "|negative|below|above|under|less|more|fewer|maybe|possibly|perhaps|about|half|halve|quarter|dozen|pair"
    "|zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|(?:thir|four|fif|six|seven|eigh|nine)teen"
    "|(?:twen|thir|for|fif|six|seven|eigh|nine)ty|hundred|thousand|[mbtr]+illion"
    "|third|(?:four|fif|six|seven|eigh|nin|ten|eleven|twelf|hundred|thousand|[mbtr]+illion)th"
)
_WORD = re.compile(r"[A-Za-z][A-Za-z'-]{2,}|(?:(?![零一二三四五六七八九十百千万亿或])[\u4e00-\u9fff]){1,4}")


@dataclass(frozen=True)
class Number:
    """A number as it is compared.

    Attributes:
        value: finite; scale and percent sign are multiplied in. An int where the text is a whole number.
        unit: canonical unit, `%`, or empty.
    """

    value: int | float
    unit: str = ""


def parse_number(text: str) -> Number | None:
    """Read a text that is a number and nothing else; None when it is not one."""
    if len(text) > _MAX_CHARS:
        return None
    text = text.translate(_SIGNS)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    match = _NUMBER.fullmatch(text.strip())
    if match is None:
        return None
    mantissa, exponent = match["mantissa"].replace(",", ""), match["exponent"] or match["power"] or "0"
    # whole numbers stay exact, however long they are
    value: int | float = int(mantissa) if mantissa.isdigit() and exponent == "0" else float(f"{mantissa}e{exponent}")
    if match["denominator"]:
        if not float(match["denominator"]):
            return None
        value /= float(match["denominator"])
    value += int(match["whole"] or 0)
    scale, unit = _parse_unit(match["unit"])
    if unit is None or (unit and match["currency"]):
        return None
    value *= -scale if match["sign"] == "-" else scale
    if unit == "%":
        value /= 100
    return Number(value, match["currency"] or unit) if math.isfinite(value) else None


def numbers_equal(first: Number, second: Number, *, percentage: bool = False) -> bool:
    """Whether two numbers are the same, by the rule of this module.

    Args:
        percentage: the question asks for a percentage, so that the sign may be left out.
    """
    if first.unit and second.unit and first.unit != second.unit:
        return False
    if _is_close(first.value, second.value):
        return True
    if percentage and {first.unit, second.unit} == {"", "%"}:
        return _is_close(*(100 * number.value if number.unit == "%" else number.value for number in (first, second)))
    return False


def asks_for_percentage(problem: str) -> bool:
    """Whether a question asks for a percentage."""
    return "%" in problem or "percent" in problem.lower()


def _is_close(first: int | float, second: int | float) -> bool:
    if first == int(first) and second == int(second):
        return first == second  # a tolerance would make neighbours of large counts equal
    return math.isclose(first, second, rel_tol=RELATIVE_TOLERANCE, abs_tol=1e-12)


def _parse_unit(text: str) -> tuple[int, str | None]:
    """Scale and canonical unit of what stands behind a number; the unit is None when it is no unit."""
    words = text.strip().rstrip(".").split()
    scale = 1
    while words and words[0].lower() in _SCALES:
        scale *= _SCALES[words.pop(0).lower()]
    return scale, _canonical_unit(words)


def _canonical_unit(words: list[str]) -> str | None:
    if not words:
        return ""
    names = [_singular(word) for word in words]
    name = " ".join(names)
    if name in _SPELLINGS:
        return _SPELLINGS[name]
    parts = "".join(words).split("/")
    symbols = [_SYMBOL.fullmatch(part) for part in parts]
    if len(parts) <= 2 and all(symbols):
        return "/".join(symbol[1] + (symbol[2] or "") for symbol in symbols if symbol).translate({178: "2", 179: "3"})
    if len(words) > 3 or not all(_WORD.fullmatch(word) for word in words):
        return None
    return None if any(_NO_UNIT.fullmatch(word) for word in (*names, *map(str.lower, words))) else name


def _singular(word: str) -> str:
    word = word.lower()
    return word[:-1] if len(word) > 3 and word.endswith("s") else word
