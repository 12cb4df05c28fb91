# SPDX-License-Identifier: Apache-2.0
r"""When two texts are the same number.

A number is the whole text, never a part of it: `7 or 8` and `5-3` are none. Read are signs, decimals, thousands
separators (`1,234`), exponents (`1e3`, `1.2 \times 10^{3}`), fractions (`3/4`, `\frac{3}{4}`, `1 1/2`), a currency
sign in front, and behind it a scale (`5 million`) and a percent sign or unit. `inf`, `nan` and `1_000` are none.

- Two integers are equal or not. Otherwise the relative tolerance is 1e-6.
- `12%` is 0.12. Where the question asks for a percentage, the sign may be left out: `12` is then equal to `12%`.
- A unit may be left out on either side: `7 cm` equals `7`. Two units have to be the same: `7 cm` is not `7 m`, since
  nothing is converted. A unit is a symbol of the table below, also spelt out in English or Chinese (`7 square metres`
  and `7平方米` are `7 m2`), or up to three words ("7 red apples"). "7 units" has none.
"""

import math
import re
from dataclasses import dataclass

RELATIVE_TOLERANCE = 1e-6
_MAX_CHARS = 100

_SIGNS = str.maketrans(
    {"−": "-", "–": "-", "\u00a0": " ", "\u2009": " ", "\u202f": " ", "％": "%", "º": "°", "∘": "°", "˚": "°"}
)
_REWRITES = (
    (re.compile(r"\\[dt]?frac\s*\{(\d+)\}\s*\{(\d+)\}", re.ASCII), r" \1/\2"),
    (re.compile(r"\\[dt]?frac\s*(\d)\s*(\d)(?!\d)", re.ASCII), r" \1/\2"),
    (re.compile(r"\^([23])\^"), r"^\1"),  # the superscript of Pandoc, cm^2^
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
    r"(mm|cm|dm|m|km|in|ft|yd|mi|nmi|ha|mg|g|kg|t|lb|oz|mL|cL|dL|L|ms|s|min|h|mph|N|J|kJ|W|kW|V|mV|A|mA|Hz|kHz|Pa|kPa|rad"
    r"|°[CF]?|Ω|%|[$€£¥])(?:\^?\{?([23²³])\}?)?"
)
_LENGTHS = {
    **dict.fromkeys(("millimeter", "millimetre", "毫米"), "mm"),
    **dict.fromkeys(("centimeter", "centimetre", "厘米"), "cm"),
    **dict.fromkeys(("decimeter", "decimetre", "分米"), "dm"),
    **dict.fromkeys(("meter", "metre", "米"), "m"),
    **dict.fromkeys(("kilometer", "kilometre", "千米", "公里"), "km"),
    **dict.fromkeys(("inche", "inch"), "in"),
    **dict.fromkeys(("foot", "feet"), "ft"),
    **{"yard": "yd", "mile": "mi", "nautical mile": "nmi", "海里": "nmi", "unit": ""},
}
_POWERS = {"square ": "2", "sq ": "2", "平方": "2", "cubic ": "3", "cu ": "3", "立方": "3"}
_SPELLINGS = {
    **_LENGTHS,
    **{
        prefix + name: symbol and symbol + power
        for prefix, power in _POWERS.items()
        for name, symbol in (*_LENGTHS.items(), *((symbol, symbol) for symbol in _LENGTHS.values() if symbol))
    },
    **dict.fromkeys(("degree", "deg", "度"), "°"),
    **dict.fromkeys(("percent", "per cent", "pct"), "%"),
    **dict.fromkeys(("dollar", "usd"), "$"),
    **dict.fromkeys(("euro", "eur"), "€"),
    **dict.fromkeys(("yuan", "rmb", "cny", "元"), "¥"),
    **dict.fromkeys(("gram", "gramme", "克"), "g"),
    **dict.fromkeys(("kilogram", "kilo", "千克", "公斤"), "kg"),
    **dict.fromkeys(("liter", "litre", "l", "升"), "L"),
    **dict.fromkeys(("milliliter", "millilitre", "ml", "毫升"), "mL"),
    **dict.fromkeys(("second", "sec", "秒"), "s"),
    **dict.fromkeys(("minute", "分钟"), "min"),
    **dict.fromkeys(("hour", "hr", "小时"), "h"),
    **{"pound": "lb", "lbs": "lb", "吨": "t"},
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
    match = _NUMBER.fullmatch(_rewrite(text).strip())
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


def parse_known_unit(text: str) -> str | None:
    """The canonical unit that a text is: empty for "units", None when it is no unit of this module's tables."""
    return _known_unit(_rewrite(text).strip().rstrip(".").split()) if len(text) <= _MAX_CHARS else None


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
    unit = _known_unit(words)
    if unit is not None:
        return unit
    if len(words) > 3 or not all(_WORD.fullmatch(word) for word in words):
        return None
    names = [_singular(word) for word in words]
    return None if any(_NO_UNIT.fullmatch(word) for word in (*names, *map(str.lower, words))) else " ".join(names)


def _known_unit(words: list[str]) -> str | None:
    """The canonical unit that the words are by the tables: one, or one over another."""
    parts = [part.split() for part in " ".join(words).split("/")]
    if len(parts) == 1:
        return _symbol(parts[0])
    units = [_symbol(part) or "" for part in parts]
    return "/".join(units) if len(units) == 2 and all(units) else None


def _symbol(words: list[str]) -> str | None:
    name = " ".join(_singular(word) for word in words)
    if name in _SPELLINGS:
        return _SPELLINGS[name]
    match = _SYMBOL.fullmatch("".join(words))
    return (match[1] + (match[2] or "")).translate({178: "2", 179: "3"}) if match else None


def _rewrite(text: str) -> str:
    text = text.translate(_SIGNS)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return text


def _singular(word: str) -> str:
    word = word.lower()
    return word[:-1] if len(word) > 3 and word.endswith("s") else word
