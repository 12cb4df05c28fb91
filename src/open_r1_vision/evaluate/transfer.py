# SPDX-License-Identifier: Apache-2.0
"""Runs of this package to files of other kits, and files of other kits to runs: what `export` and `import` do."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from open_r1_vision.evaluate.benchmarks import find
from open_r1_vision.evaluate.exchange import lmms_eval, vlmevalkit
from open_r1_vision.evaluate.items import Benchmark, Item, Record
from open_r1_vision.evaluate.records import RunFolder, hash_data, read_records, read_run
from open_r1_vision.evaluate.sources import SPLIT_MARK
from open_r1_vision.evaluate.summary import Summary, summarise, write_summary

#: How the backend of a run begins that came from another kit.
_IMPORTED = "imported from"


def export_run(
    run: Path, output: Path | None = None, *, data: str | None = None, sample: int = 0, raw: bool = False
) -> vlmevalkit.Export:
    """Write a run as a result table of VLMEvalKit.

    Args:
        run: OUTPUT/BENCHMARK of a run.
        output: a `.tsv`, or a folder in which the table gets the name that the kit expects; by default the run's.
        data: the benchmark's data file; by default where it was when the run was made.
        sample: which of several samples.
        raw: put the model's text into `prediction`.

    Raises:
        ValueError: it is no run, it lacks samples, or the data are not those of the run.
    """
    settings = read_run(run)
    benchmark = find(str(settings.get("benchmark")))
    source = data if data is not None else settings.get("data")
    _check_data(settings, source, run)
    items = _read_items(benchmark, source)
    records = read_records(run / "samples.jsonl")
    if str(settings.get("backend")).startswith(_IMPORTED):
        # of an import with items left out they are not the first ones
        answered = {record.index for record in records}
        items = [item for item in items if item.index in answered]
    else:
        items = items[: settings.get("num_items")]
    kit_name = _kit_name(benchmark, source, settings.get("data"))
    name = vlmevalkit.table_name(benchmark, short_name(settings.get("model")), kit_name)
    path = run / name if output is None else output
    path = path / name if path.is_dir() or not path.suffix else path
    path.parent.mkdir(parents=True, exist_ok=True)
    return vlmevalkit.export_table(benchmark, items, records, path, sample=sample, raw=raw)


def import_run(
    file: Path,
    source: str,
    benchmark_name: str,
    data: str | None,
    model: str,
    output: Path,
    *,
    metric: str | None = None,
    judged_by: str = "llm",
    partial: bool = False,
    overwrite: bool = False,
) -> tuple[Summary, Path]:
    """Make a run of another kit's predictions.

    Args:
        file: of the kit.
        source: the kit, `vlmevalkit` or `lmms_eval`.
        benchmark_name: see `list`.
        data: the benchmark's data file.
        model: what the run's model is called.
        output: folder; the run is in its subfolder of the benchmark's name.
        metric: lmms_eval: take the score from this key, instead of scoring by our rule.
        judged_by: lmms_eval: who gave that metric, `rule` or `llm`.
        partial: items may be left out; the run has the others only.
        overwrite: forget what the folder holds.

    Returns:
        The summary, and the run's folder.

    Raises:
        ValueError: predictions of another benchmark, or a folder of another run.
    """
    benchmark = find(benchmark_name)
    items = _read_items(benchmark, data)
    if source == "vlmevalkit":
        records = vlmevalkit.import_table(benchmark, items, file, partial=partial)
    else:
        records = lmms_eval.import_samples(benchmark, items, file, metric=metric, judged_by=judged_by, partial=partial)
    answered = {record.index for record in records}
    items = [item for item in items if item.index in answered]
    settings: dict[str, Any] = {
        "benchmark": benchmark.name,
        "model": model,
        "backend": f"{_IMPORTED} {source}",
        "prompt_style": None,
        "num_items": len(items),
        "num_samples": max((record.sample + 1 for record in records), default=0),
        "metric": metric,
        "file_md5": hash_data(file),
        "data": data,
        "data_md5": hash_data(data),
        "judge": None,
    }
    folder = RunFolder(output / benchmark.name)
    try:
        folder.open(settings, overwrite)
        folder.write_settings(settings)
        folder.replace(records)
        summary = _summarise(settings, benchmark, items, records)
        write_summary(folder.folder, summary)
    finally:
        folder.close()
    return summary, folder.folder


def short_name(model: Any) -> str:
    """A model's name for file names: the last parts of a folder's path, a hub id as it is."""
    parts = [part for part in Path(str(model)).parts if part not in ("/", "..", ".")]
    return re.sub(r"[^\w.-]+", "_", "_".join(parts[-2:])) or "model"


def _kit_name(benchmark: Benchmark, *sources: Any) -> str | None:
    """The kit's name of the data, where a data file has it; a benchmark may have several."""
    known = getattr(benchmark, "kit_names", ())
    stems = [Path(str(source).partition(SPLIT_MARK)[0]).stem for source in sources]
    return next((stem for stem in stems if stem in known), None)


def _summarise(
    settings: dict[str, Any], benchmark: Benchmark, items: Sequence[Item], records: Sequence[Record]
) -> Summary:
    return summarise(settings, benchmark.metrics(items, records), records, seconds=0.0)


def _read_items(benchmark: Benchmark, data: str | None) -> list[Item]:
    if data is None and benchmark.needs_file:
        raise ValueError(f"{benchmark.name} needs its data: give the file with --data.")
    return benchmark.read(None if data is None else Path(data))


def _check_data(settings: dict[str, Any], data: str | None, run: Path) -> None:
    before, now = settings.get("data_md5"), hash_data(data)
    if before is not None and now is not None and before != now:
        raise ValueError(
            f"{data!r} has the md5 {now}, but the data of {str(run)!r} had {before}: give with --data the file "
            "that the run was made with."
        )
