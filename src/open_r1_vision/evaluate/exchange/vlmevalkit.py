# SPDX-License-Identifier: Apache-2.0
"""VLMEvalKit's result tables: written for its judges, and read with the verdicts that they gave.

What is written has all columns of the data but the images, the bare answer in `prediction`, so that the kit's rules
apply before its judge, and the model's text in `thinking`. An item without an answer has `-`: the kit would read an
empty cell as the text "nan". `extractor`, `status`, `judged_by` and `our_score`, which the kit ignores, give a table
that comes back the same answers and scores.

    vlmutil eval OUT/{model}_MathVista_MINI.tsv --judge NAME      # in the kit's own environment

What is read are prediction tables, MCQ's `_result` (`hit`), and the `_{judge}` tables of the others (`res`, `extract`
and `score`, `extracted` and `correct`), as TSV, CSV or JSON.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from open_r1_vision.evaluate.exchange.matching import GOLD_COLUMNS, make_record, refuse_missing, same_gold
from open_r1_vision.evaluate.items import JUDGES, STATUSES, Benchmark, Item, Record
from open_r1_vision.evaluate.judge import FOUND_BY_JUDGE
from open_r1_vision.evaluate.tsv import as_whole_number, read_table, write_table

#: What stands for no answer.
NO_ANSWER = "-"
#: What the kit writes where a request failed.
FAILED = "Failed to obtain answer"
#: What pandas, with which the kit reads its tables, takes for an empty cell.
READ_AS_MISSING = frozenset(
    ("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA")
    + ("NULL", "NaN", "None", "n/a", "nan", "null")
)
#: Where the kit, and our rows, have the question.
_QUESTIONS = ("question", "problem")
_SCORE = re.compile(r"\d+(\.\d*)?(e-\d+)?", re.ASCII)
_VERDICTS = ("hit", "correct", "score")
_EXTRACTED = ("res", "extracted", "extract")
#: What the kit ignores. `score` is a column of its own.
_OURS = ("thinking", "extractor", "status", "judged_by", "our_score")
_TRUTH = {"1": 1.0, "1.0": 1.0, "True": 1.0, "true": 1.0, "0": 0.0, "0.0": 0.0, "False": 0.0, "false": 0.0}


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        path: the table.
        rows: one for each item.
        unanswered: items without an answer.
        read_as_missing: indices whose answer, such as "None", VLMEvalKit will read as an empty cell.
    """

    path: Path
    rows: int
    unanswered: int
    read_as_missing: tuple[str, ...]


def table_name(benchmark: Benchmark, model: str, data: str | None = None) -> str:
    """The file name by which VLMEvalKit knows model and data: `{model}_{data}.tsv`.

    Args:
        model: any name; slashes become underscores.
        data: one of the kit's names for this benchmark's data, by default the first.

    Raises:
        ValueError: the kit has another name for the data.
    """
    known = getattr(benchmark, "kit_names", ()) or (benchmark.name,)
    if data is not None and data not in known:
        raise ValueError(
            f"VLMEvalKit has no data {data!r} of the benchmark {benchmark.name!r}: choose one of {', '.join(known)}."
        )
    return f"{model.replace('/', '_')}_{data or known[0]}.tsv"


def export_table(
    benchmark: Benchmark,
    items: Sequence[Item],
    records: Sequence[Record],
    path: str | Path,
    *,
    sample: int = 0,
    raw: bool = False,
) -> Export:
    """Write a prediction table.

    Args:
        benchmark: of the items.
        items: in the order of the rows.
        records: at least one of each item; items without one are refused, since the kit wants every index.
        path: a `.tsv`; see :func:`table_name`.
        sample: which of several samples.
        raw: put the model's text into `prediction`, as VLMEvalKit does, and nothing beside it.

    Raises:
        ValueError: records of another benchmark, of unknown items, or too few; or another suffix.
    """
    path = Path(path)
    if path.suffix != ".tsv":
        raise ValueError(
            f"{str(path)!r} can't be written: give a name that ends in .tsv. Spreadsheets cut cells at 32,767 "
            "characters; set PRED_FORMAT=tsv for VLMEvalKit."
        )
    chosen = _choose(benchmark, items, records, sample)
    refuse_missing(benchmark, items, chosen, "the run", f"Finish the run, or choose a sample other than {sample}.")
    names = dict.fromkeys(name for item in items for name in item.fields)
    added = ("prediction",) if raw else ("prediction", *_OURS)
    columns = list(dict.fromkeys(("index", *names, *added)))
    write_table(path, columns, (_to_row(item, chosen[item.index], raw) for item in items))
    answers = {item.index: chosen[item.index].answer for item in items}
    return Export(
        path=path,
        rows=len(items),
        unanswered=sum(answer is None for answer in answers.values()),
        read_as_missing=tuple(index for index, answer in answers.items() if answer in READ_AS_MISSING),
    )


def import_table(
    benchmark: Benchmark, items: Sequence[Item], path: str | Path, *, partial: bool = False
) -> list[Record]:
    """Read a prediction table, or one with verdicts.

    Where the table has an extracted answer it is taken, else our rule looks for one in `prediction`; where it has a
    verdict that is the score, else our rule gives it.

    Args:
        benchmark: of the items.
        items: of the data that was asked.
        path: `.tsv`, `.csv` or `.json`.
        partial: items may be left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: predictions of another benchmark, an item left out, a verdict that is none, or another format.
    """
    path = Path(path)
    rows = _read(path)
    if "prediction" not in rows[0]:
        raise ValueError(
            f"{str(path)!r} has the columns {', '.join(rows[0])}, but no 'prediction': give a table of VLMEvalKit's "
            "results, not the data or a summary."
        )
    by_index = {item.index: item for item in items}
    by_number = _by_number(items)
    found: dict[str, tuple[Item, dict[str, str], str]] = {}
    for number, row in enumerate(rows, start=1):
        place = f"{str(path)!r}, row {number} (index {row['index']})"
        # an id such as 007 is its own; spreadsheets and the kit make 7 or 7.0 of it
        item = by_index.get(row["index"]) or by_number.get(as_whole_number(row["index"]) or "")
        what = "has no such item" if item is None else _find_difference(benchmark, item, row)
        if item is None or what:
            raise ValueError(
                f"{place}: {benchmark.name!r} {what}, so these predictions are from another benchmark or version of "
                "its data. Name the benchmark and the data file that they were made with."
            )
        if item.index in found:
            raise ValueError(f"{place}: the index stands here twice. Remove one of the two rows.")
        found[item.index] = (item, row, place)
    own = _own_columns([(item, row) for item, row, _ in found.values()])
    records = {
        index: _to_record(benchmark, item, {name: cell for name, cell in row.items() if name not in own}, path, place)
        for index, (item, row, place) in found.items()
    }
    if not partial:
        refuse_missing(benchmark, items, records, path, _missing_hint(benchmark, rows[0]))
    return [records[item.index] for item in items if item.index in records]


def _choose(benchmark: Benchmark, items: Sequence[Item], records: Sequence[Record], sample: int) -> dict[str, Record]:
    indices = {item.index for item in items}
    chosen = {}
    for record in records:
        if record.dataset != benchmark.name or record.index not in indices:
            raise ValueError(
                f"There is a record of item {record.index!r} of {record.dataset!r}, but the items are "
                f"{len(indices)} of {benchmark.name!r} without that one: give the records of these items."
            )
        if record.sample == sample:
            chosen[record.index] = record
    return chosen


def _to_row(item: Item, record: Record, raw: bool) -> Mapping[str, Any]:
    source = {"index": item.index, **item.fields}
    if raw:
        return {**source, "prediction": record.raw}
    answer = NO_ANSWER if record.answer is None else record.answer
    about = (record.raw, record.extractor, record.status, record.judged_by, record.score)
    return {**source, "prediction": answer, **dict(zip(_OURS, about, strict=True))}


def _read(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}: give a table of VLMEvalKit's results.")
    if path.suffix in (".tsv", ".csv"):
        return read_table(path, whole_numbers=False).rows
    if path.suffix == ".json":
        from open_r1_vision.data.loading import read_json

        rows = [{name: "" if value is None else str(value) for name, value in row.items()} for row in read_json(path)]
        if not rows or any(not row.get("index") for row in rows):
            raise ValueError(f"{str(path)!r} holds no rows, or rows without an 'index': give a table of results.")
        return rows
    raise ValueError(
        f"{str(path)!r} can't be read: give a .tsv, .csv or .json file. VLMEvalKit writes tables as TSV with "
        "PRED_FORMAT=tsv; its spreadsheets have cut cells at 32,767 characters, and its .pkl files can run code. A "
        "spreadsheet becomes a table with pandas.read_excel(path, dtype=str).to_csv(new_path, sep='\\t', index=False)."
    )


def _by_number(items: Sequence[Item]) -> dict[str, Item]:
    """Items by the usual form of their index, where it is a whole number that no other item has."""
    numbers = [as_whole_number(item.index) for item in items]
    counts = Counter(numbers)
    return {number: item for number, item in zip(numbers, items, strict=True) if number and counts[number] == 1}


def _find_difference(benchmark: Benchmark, item: Item, row: Mapping[str, str]) -> str:
    """What shows that a row is not the item's; empty where nothing does."""
    texts = [item.question, *(item.fields[name] for name in _QUESTIONS if name in item.fields)]
    own = {" ".join(str(text).split()) for text in texts}
    for name in _QUESTIONS:
        question = " ".join(row.get(name, "").split())
        if (
            question not in ("", "placeholder") and question not in own
        ):  # the kit's MMMU-Pro in images says placeholder
            return "has another question there"
    for name in GOLD_COLUMNS if item.answer is not None else ():
        gold = row.get(name, "")
        # of MMMU's open questions the kit makes option A
        if gold and not any(same_gold(benchmark, item, text) for text in (gold, row.get(gold)) if text):
            return "has another gold answer there"
    return ""


def _own_columns(pairs: Sequence[tuple[Item, Mapping[str, str]]]) -> set[str]:
    """Columns by a judge's name that are the data's: every row has what its item has."""
    return {
        name
        for name in (*_VERDICTS, *_EXTRACTED)
        if all(
            name in item.fields and row.get(name) == ("" if item.fields[name] is None else str(item.fields[name]))
            for item, row in pairs
        )
    }


def _to_record(benchmark: Benchmark, item: Item, row: Mapping[str, str], path: Path, place: str) -> Record:
    prediction, thinking = row["prediction"], row.get("thinking", "")
    if FAILED in prediction:
        return make_record(benchmark, item, prediction, extractor="none", status="failed")
    if row.get("extractor"):  # a table that we wrote
        answer = None if row["extractor"] in ("none", FOUND_BY_JUDGE) and prediction == NO_ANSWER else prediction
        raw, extractor, status = thinking, row["extractor"], row.get("status", "")
        if status not in STATUSES:
            raise ValueError(f"{place}: the status is {status!r}, but it must be one of {', '.join(STATUSES)}.")
        given = _read_score(row, place)
    else:
        given = {}
        raw = f"<think>\n{thinking}\n</think>\n{prediction}" if thinking.strip() else prediction
        status = ""
        answer, extractor = benchmark.extract(item, prediction)
    found = next((row[name] for name in _EXTRACTED if row.get(name)), None)
    if found is not None:
        answer, extractor, given = found, "vlmevalkit_judge", {}
        status = "" if status == "no_answer" else status
    verdict = next((row[name] for name in _VERDICTS if row.get(name)), None)
    if verdict is None:
        return make_record(benchmark, item, raw, answer=answer, extractor=extractor, status=status, **given)
    if verdict not in _TRUTH:
        raise ValueError(f"{place}: the verdict is {verdict!r}, but it must be 0 or 1, True or False.")
    judge = "rule" if "exact_matching" in path.name else "llm"
    # a judge that found the answer right has found an answer
    status = "ok" if _TRUTH[verdict] and status in ("", "no_answer") else status
    return make_record(
        benchmark,
        item,
        raw,
        answer=answer,
        extractor=extractor,
        score=_TRUTH[verdict],
        judged_by=judge,
        status=status,
    )


def _read_score(row: Mapping[str, str], place: str) -> dict[str, Any]:
    """Score and judge of a table that we wrote; nothing where it has none, as of an earlier version."""
    judge, text = row.get("judged_by", ""), row.get("our_score", "")
    if not judge:
        return {}
    score = float(text) if _SCORE.fullmatch(text) else None
    if judge not in JUDGES or (text and (score is None or score > 1)):
        raise ValueError(
            f"{place}: 'judged_by' is {judge!r} and 'our_score' is {text!r}, but the first must be one of "
            f"{', '.join(JUDGES)}, and the second a number from 0 to 1, or empty. Correct the row, or remove both "
            "columns: our rule scores then."
        )
    return {"score": score, "judged_by": judge}


def _missing_hint(benchmark: Benchmark, row: Mapping[str, str]) -> str:
    if benchmark.name == "mmbench" and "hit" in row:
        return (
            "VLMEvalKit's result of MMBench has one row for all rotations of a question: import the table of "
            "predictions instead, which has every rotation."
        )
    return "Import a table with every item; or the items that it has alone, with --partial."
