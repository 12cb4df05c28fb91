# SPDX-License-Identifier: Apache-2.0
import pytest

from open_r1_vision.rewards.numbers import Number, numbers_equal, parse_known_unit, parse_number


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("7", 7, ""),
        ("7.", 7, ""),
        ("+7", 7, ""),
        ("-7.50", -7.5, ""),
        ("−7", -7, ""),
        (".5", 0.5, ""),
        ("1,234", 1234, ""),
        ("1,234,567.5", 1234567.5, ""),
        ("1e3", 1000, ""),
        (r"1.2 \times 10^{3}", 1200, ""),
        ("1.2 × 10^-1", 0.12, ""),
        ("3/4", 0.75, ""),
        (r"-\frac{3}{4}", -0.75, ""),
        ("1 1/2", 1.5, ""),
        (r"-1\frac{1}{2}", -1.5, ""),
        ("12%", 0.12, "%"),
        (r"12\%", 0.12, "%"),
        ("12 percent", 0.12, "%"),
        ("$1,234", 1234, "$"),
        ("5 dollars", 5, "$"),
        ("€5 million", 5e6, "€"),
        ("5 million people", 5e6, "people"),
        ("7 cm", 7, "cm"),
        ("7cm.", 7, "cm"),
        ("7 centimeters", 7, "cm"),
        (r"7 \text{ cm}", 7, "cm"),
        ("7 cm²", 7, "cm2"),
        ("7 cm^2", 7, "cm2"),
        ("60 km/h", 60, "km/h"),
        ("140°", 140, "°"),
        (r"140^\circ", 140, "°"),
        (r"140^{\circ}", 140, "°"),
        ("140 degrees", 140, "°"),
        ("3 Apples", 3, "apple"),
        ("3 red apples", 3, "red apple"),
        ("3个", 3, "个"),
        (r"\frac35", 0.6, ""),
        (r"1\frac12 \text{cm}", 1.5, "cm"),
        ("140∘", 140, "°"),
        ("5cm^2^", 5, "cm2"),
        ("3 units", 3, ""),
        ("3 square units", 3, ""),
    ],
)
def test_numbers(text, value, unit):
    number = parse_number(text)
    assert number is not None
    assert number.value == pytest.approx(value, rel=1e-12)
    assert number.unit == unit


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cat",
        "7 or 8",
        "7 or eight",
        "7 OR eight",
        "7 thirds",
        "7, 8",
        "7 8",
        "5-3",
        "5+3",
        "--5",
        "1,23",
        "12,345,67",
        "1_000",
        "inf",
        "nan",
    ]
    + [
        "1e999",
        "1e",
        "5/0",
        "7x",
        "7 xy",
        "2^3",
        "5!",
        "3:30",
        "3/4/2020",
        "3.14.15",
        "0x10",
        "65π",
        "8√{3}",
        "2√{2}-2",
    ]
    + ["65 pi", "7 squared", "7 half", "7万", "٣", "½", "7\x00", "\x00", "10^10^10", "9**9**9", "1" * 101, "7 a b c d"]
    + ["the answer is 7", "x = 7", "$5 cm", r"\frac123", "7 m/", "7 m/s/h", "7 units/s"],
)
def test_not_numbers(text):
    assert parse_number(text) is None


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("0.3333333", "1/3", True),
        ("0.3333", "1/3", False),
        ("1000000", "1000001", False),  # within the tolerance, yet two integers
        ("1000000.5", "1000000.6", True),
        ("12%", "0.12", True),
        ("12%", "12%", True),
        ("12%", "12", False),
        ("7 cm", "7", True),
        ("7 cm", "7 m", False),
        ("700 cm", "7 m", False),
        ("$5", "5 dollars", True),
        ("12%", "0.12 cm", False),
        ("3 apples", "3 pears", False),
        ("3 apples", "3 apple", True),
        ("3 units", "3 cm", True),
        ("9米", "9 m", True),
        ("9米", "9 cm", False),
        ("0", "-0.0", True),
    ],
)
def test_equality_is_symmetric(first, second, expected):
    numbers = parse_number(first), parse_number(second)
    assert numbers_equal(*numbers) is expected
    assert numbers_equal(*numbers[::-1]) is expected


def test_percent_sign_may_be_left_out_where_a_percentage_is_asked_for():
    assert numbers_equal(Number(0.07, "%"), Number(7), percentage=True)
    assert not numbers_equal(Number(0.07, "%"), Number(7))
    assert not numbers_equal(Number(0.07), Number(7), percentage=True)


@pytest.mark.parametrize(
    ("text", "value"),
    [("5 hundred thousand", 500_000), ("1 thousand million", 10**9), ("12345678901234567890", 12345678901234567890)],
)
def test_scales_multiply_and_whole_numbers_stay_exact(text, value):
    assert parse_number(text).value == value


def test_neighbours_of_a_long_number_differ():
    first, second = parse_number("12345678901234567890"), parse_number("12345678901234567891")
    assert not numbers_equal(first, second)


@pytest.mark.parametrize(
    "text",
    ["3 fifths", "5 hundredths", "2 hours thirty", "5 negative", "5 below", "7 possibly more", "5K", "4 less"],
)
def test_words_that_change_the_number_are_no_units(text):
    assert parse_number(text) is None


@pytest.mark.parametrize(
    ("symbol", "spellings"),
    [
        ("mm", ["mm", "millimeters", "毫米"]),
        ("cm", ["cm", "cm.", "centimetre", "厘米", r"\text{ cm}"]),
        ("dm", ["decimeters", "分米"]),
        ("m", ["meters", "metres", "米", r"\mathrm{m}"]),
        ("km", ["kilometers", "千米", "公里"]),
        ("nmi", ["nautical miles", "nautical mile", "nmi", "海里"]),
        ("cm2", ["cm^2", "cm²", "cm^{2}", "cm2", "cm^2^", "square centimeters", "sq cm", "square cm", "平方厘米"]),
        ("m3", ["m^3", "cubic metres", "立方米"]),
        ("ft2", ["square feet", "square foot", "sq ft"]),
        ("°", ["°", "degrees", "度", r"^\circ"]),
        ("¥", ["¥", "yuan", "元"]),
        ("s", ["s", "seconds", "秒"]),
        ("h", ["h", "hours", "小时"]),
        ("km/h", ["km/h", "kilometers/hour", "千米/小时"]),
        ("kg", ["kg", "kilograms", "千克", "公斤"]),
        ("L", ["L", "l", "liters", "升"]),
        ("", ["units", "unit", "square units"]),
    ],
)
def test_a_unit_is_the_same_in_symbols_words_and_chinese(symbol, spellings):
    assert [parse_known_unit(spelling) for spelling in spellings] == [symbol] * len(spellings)
    assert [parse_number(f"7 {spelling}") for spelling in spellings] == [Number(7, symbol)] * len(spellings)


@pytest.mark.parametrize("text", ["", " ", "apples", "个", "x", "cm or m", "m/", "units/s", "2", "万", "m" * 200])
def test_units_that_are_not_known(text):
    assert parse_known_unit(text) is None
