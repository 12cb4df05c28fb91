# SPDX-License-Identifier: Apache-2.0
"""Miniature tables in the layouts of the sources, written by the tests."""

import base64
import csv
from io import BytesIO

import pytest
from PIL import Image

from open_r1_vision.evaluate.items import Record


@pytest.fixture
def picture():
    """`picture(n)` gives a PNG, another one for each n, as bytes."""

    def make(number=0):
        buffer = BytesIO()
        Image.new("RGB", (30 + number, 40), (number % 256, 0, 0)).save(buffer, "PNG")
        return buffer.getvalue()

    return make


@pytest.fixture
def encoded(picture):
    """`encoded(n)` is that in base64, as VLMEvalKit's tables have it."""
    return lambda number=0: base64.b64encode(picture(number)).decode()


@pytest.fixture
def write(tmp_path, encoded):
    """`write(name, rows)` gives the path of a table; rows without `image` get one of their own."""

    def make(name, rows, images=True):
        if images:
            rows = [{"image": encoded(number), **row} for number, row in enumerate(rows)]
        columns = list(dict.fromkeys(column for row in rows for column in row))
        path = tmp_path / name
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="\t")
            writer.writerow(columns)
            writer.writerows([row.get(column, "") for column in columns] for row in rows)
        return path

    return make


@pytest.fixture
def answered():
    """`answered(benchmark, items, texts)` gives records as a runner would, one of each item and text."""

    def make(benchmark, items, texts, sample=0, status="ok"):
        records = []
        for item, text in zip(items, texts, strict=True):
            answer, rule = benchmark.extract(item, text)
            score = benchmark.score(item, answer)
            state = status if answer is not None or status != "ok" else "no_answer"
            about = {"prompt_sha": "0", "prompt_style": "benchmark", "raw": text, "answer": answer, "extractor": rule}
            records.append(
                Record(
                    dataset=benchmark.name,
                    index=item.index,
                    sample=sample,
                    gold=item.answer,
                    score=score,
                    judged_by="rule",
                    status=state,
                    tokens=len(text),
                    seed=None,
                    cluster=item.cluster,
                    **about,
                )
            )
        return records

    return make
