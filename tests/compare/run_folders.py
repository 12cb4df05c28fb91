# SPDX-License-Identifier: Apache-2.0
"""Run folders as the evaluation writes them."""

import json
from dataclasses import asdict
from pathlib import Path

from open_r1_vision.evaluate.items import Record


def write_run(folder, benchmark, scores, *, clusters=None, golds=None, indexes=None, settings=None, **changes):
    """Write OUT/<benchmark>: for each item a score, or a list with one for each sample; "failed" is a status.

    Args:
        settings: on top of what run.json says; False writes no run.json.
        changes: fields of all records, or a function of (place, sample) that gives one.
    """
    out = Path(folder) / benchmark
    out.mkdir(parents=True, exist_ok=True)
    indexes = indexes or [str(place) for place in range(len(scores))]
    lines, samples = [], 0
    for place, of_item in enumerate(scores):
        of_item = of_item if isinstance(of_item, list) else [of_item]
        samples = max(samples, len(of_item))
        for sample, score in enumerate(of_item):
            is_status = isinstance(score, str)
            record = Record(
                dataset=benchmark,
                index=indexes[place],
                sample=sample,
                prompt_sha=f"sha of {indexes[place]}",
                prompt_style="benchmark",
                raw="text",
                answer="1",
                extractor="box",
                gold=golds[place] if golds else "1",
                score=1.0 if is_status else score,
                judged_by="rule",
                status=score if is_status else "ok",
                tokens=3,
                seed=None,
                cluster=clusters[place] if clusters else None,
            )
            values = {name: value(place, sample) if callable(value) else value for name, value in changes.items()}
            lines.append(json.dumps({**asdict(record), **values}) + "\n")
    (out / "samples.jsonl").write_text("".join(lines), encoding="utf-8")
    if settings is not False:
        about = {"model": out.parent.name, "num_items": len(scores), "num_samples": samples, "data": {"md5": "0" * 32}}
        (out / "run.json").write_text(json.dumps({**about, **(settings or {})}), encoding="utf-8")
    return out.parent
