# SPDX-License-Identifier: Apache-2.0
"""Sample every row of a data set, on any number of processes, in a folder that a later start goes on with.

The rows are cut into batches, always the same ones, and the batches that lack samples are shared out. A batch is drawn
whole even where only some of its samples are missing: so that what a killed run draws again is what it would have
drawn, to the last bit of the logits.
"""

import hashlib
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset
from torch import distributed as dist
from tqdm import tqdm
from trl.data_utils import prepare_multimodal_messages

from open_r1_vision.data.checks import check_prompt
from open_r1_vision.data.images import ImageLimits, open_images
from open_r1_vision.data.loading import load_rows
from open_r1_vision.data.rows import count_images, to_messages
from open_r1_vision.distributed import is_main_process, num_processes, rank
from open_r1_vision.models import find_model, load_processor
from open_r1_vision.sampling.draws import Draw, Prompt, Sampler
from open_r1_vision.sampling.options import SampleArguments
from open_r1_vision.sampling.records import SampleFolder, read_refused

logger = logging.getLogger(__name__)

#: One process may have much longer samples than another, which waits for it at the end.
_LONGEST_WAIT = timedelta(days=30)
#: Of a file of weights, so many bytes at both ends stand for it.
_FINGERPRINT_BYTES = 2**20


@dataclass
class Summary:
    """What a run came to, over all processes.

    Attributes:
        num_rows: rows of the data set.
        num_samples: samples that are there.
        num_missing: samples that a server did not give.
        refused: for each reason, the rows that were left out.
        output: the file with everything, or the folder as long as something is missing.
        torn: shards that had lost a line when the run began.
    """

    num_rows: int
    num_samples: int
    num_missing: int
    refused: dict[str, list[str]] = field(default_factory=dict)
    output: Path = Path()
    torn: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"rows     {self.num_rows}", f"samples  {self.num_samples}"]
        for reason, ids in self.refused.items():
            lines.append(f"left out {len(ids)} rows, {reason}: {', '.join(ids[:3])}{', …' if len(ids) > 3 else ''}")
        if self.num_missing:
            lines.append(f"missing  {self.num_missing} samples: give the same command again to ask for them")
        return "\n".join([*lines, f"written  {self.output}"])


def sample_rows(
    options: SampleArguments, make_sampler: Callable[[str | None, Any, int], Sampler], say: Callable[[str], None]
) -> Summary | None:
    """Draw what is missing. Under several processes all must call it.

    Args:
        options: of the run.
        make_sampler: gets the model's folder, its processor and the most images of a row; called where something is
            to be drawn.
        say: writes a line for the person at the terminal.

    Returns:
        The summary, in the main process.

    Raises:
        ValueError: something that the user can mend.
    """
    if num_processes() > 1 and not dist.is_initialized():
        dist.init_process_group("gloo", timeout=_LONGEST_WAIT)
        PartialState(cpu=not torch.cuda.is_available())  # by itself it would not see the group without a GPU
    rows_options: Any = options.dataset_options
    rows = load_rows(options.dataset, options.dataset_split, **rows_options)
    ids = _unique_ids(rows)
    model = find_model(options.model_name_or_path) if options.model_name_or_path else None
    processor: Any = None
    if model is not None:
        processor = load_processor(model, options.min_pixels, options.max_pixels, options.model_revision)
    folder = SampleFolder(options.output_dir)
    torn: list[str] = []
    plan: list[Any] = [None]
    if is_main_process():
        try:
            settings = {**options.deciding(), **row_settings(rows), "weights": fingerprint(model)}
            torn = folder.open(settings, options.overwrite_output)
            plan = [_open_batches(folder, ids, options)]
        except ValueError as error:
            plan = [error]  # for the others to end too
    if num_processes() > 1:
        dist.broadcast_object_list(plan)
    if isinstance(plan[0], ValueError):
        raise plan[0]
    for name in torn:
        say(f"{name}: dropped a torn last line; what it held is sampled again.")
    batches: list[tuple[list[int], list[tuple[str, int]]]] = plan[0]
    folder.join(rank())
    if mine := batches[rank() :: num_processes()]:
        sampler = make_sampler(model, processor, max(count_images(rows), default=0))
        try:
            work = _Work(options, rows, processor, sampler, folder)
            with _Bar(folder, len(rows), options.num_generations) as bar:
                work.run(mine, bar.update)
        finally:
            sampler.close()
    if num_processes() > 1:
        dist.barrier()
    if not is_main_process():
        folder.close()
        return None
    complete = folder.merge(ids, options.num_generations)
    summary = _summarise(folder, ids, options.num_generations, complete, torn)
    folder.close()
    return summary


def row_settings(rows: Dataset) -> dict[str, Any]:
    """What of the rows decides samples: how many they are, and a hash of ids, problems and numbers of images."""
    digest = hashlib.sha256()
    for row_id, problem, count in zip(rows["id"], rows["problem"], count_images(rows), strict=True):
        digest.update(f"{row_id}\0{problem}\0{count}\0".encode(errors="replace"))
    return {"num_rows": len(rows), "rows": digest.hexdigest()}


def fingerprint(model: str | None) -> str | None:
    """A hash of a model folder's config and of both ends of its weight files; None for a model that is elsewhere."""
    if model is None or not Path(model).is_dir():
        return None
    digest = hashlib.sha256()
    names = ("config.json", "adapter_config.json", "*.safetensors", "*.bin")
    for path in sorted(path for name in names for path in Path(model).glob(name)):
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        with path.open("rb") as file:
            digest.update(file.read(_FINGERPRINT_BYTES))
            file.seek(max(0, size - _FINGERPRINT_BYTES))
            digest.update(file.read())
    return digest.hexdigest()


class _Work:
    """What one process draws."""

    def __init__(
        self, options: SampleArguments, rows: Dataset, processor: Any, sampler: Sampler, folder: SampleFolder
    ) -> None:
        self._options = options
        self._texts = options.prompt_texts
        self._rows = rows.select_columns(["id", "images", "problem"]).with_format("arrow")
        self._processor = processor
        self._sampler = sampler
        self._folder = folder
        self._warned = False

    def run(self, batches: Iterable[tuple[list[int], list[tuple[str, int]]]], done: Callable[[], None]) -> None:
        """Draw batches and write the samples of them that are missing."""
        started: deque[tuple[set[tuple[str, int]], Callable[[], list[Draw]], dict[str, str]]] = deque()

        def save() -> None:
            missing, finish, refused = started.popleft()
            draws = finish()
            kept = [draw for draw in draws if draw.failure is None and (draw.id, draw.sample) in missing]
            self._folder.add(kept, refused)
            self._warn([draw for draw in draws if draw.failure is not None])
            done()

        for places, missing in batches:
            prompts, refused = self._prompts(places)
            # a row that was left out before is in no `missing`
            named = {row_id for row_id, _ in missing}
            refused = {row_id: reason for row_id, reason in refused.items() if row_id in named}
            wanted = set(missing)
            finish = self._sampler.start(prompts, wanted) if prompts else list
            started.append((wanted, finish, refused))
            while len(started) > self._sampler.num_ahead:
                save()
        while started:
            save()

    def _prompts(self, places: Sequence[int]) -> tuple[list[Prompt], dict[str, str]]:
        """The prompts of some rows, and why others have none."""
        prompts, refused = [], {}
        for row in self._rows[list(places)].to_pylist():
            images, findings = open_images(row["images"] or [], ImageLimits())
            try:
                messages = to_messages(row, **self._texts)
            except ValueError as error:
                findings.append(("image markers", str(error)))
            else:
                if not findings and self._processor is not None:
                    limit = self._options.max_prompt_tokens
                    findings = check_prompt(messages, images, self._processor, limit)[1]
            if findings:
                refused[row["id"]] = "; ".join(f"{check}: {message}" for check, message in findings)
            else:
                prompts.append(Prompt(row["id"], prepare_multimodal_messages(messages, images), images))
        return prompts, refused

    def _warn(self, failed: Sequence[Draw]) -> None:
        if failed and not self._warned:
            self._warned = True
            logger.warning("No sample %d of row %r, and others: %s", failed[0].sample, failed[0].id, failed[0].failure)


class _Bar:
    """Rows of all processes, with rows a second and the time that is left; shown by the main process."""

    def __init__(self, folder: SampleFolder, num_rows: int, num_samples: int) -> None:
        self._folder = folder
        self._num_samples = num_samples
        self._seen: dict[Path, tuple[int, int]] = {}
        disable = None if is_main_process() else True
        self._bar = tqdm(total=num_rows, initial=self._count(), desc="Sampling", unit="row", disable=disable)

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def update(self) -> None:
        """Look at what all processes have written."""
        if not self._bar.disable:
            self._bar.update(self._count() - self._bar.n)

    def _count(self) -> int:
        return self._folder.num_rows_done(self._seen, self._num_samples)


def _unique_ids(rows: Dataset) -> list[str]:
    ids = list(rows["id"])
    twice = [row_id for row_id, count in Counter(ids).items() if count > 1]
    if twice:
        raise ValueError(
            f"{len(twice)} ids stand for several rows, such as {', '.join(map(repr, twice[:3]))}: samples belong to "
            "rows by their id, so give each its own."
        )
    return ids


def _open_batches(
    folder: SampleFolder, ids: Sequence[str], options: SampleArguments
) -> list[tuple[list[int], list[tuple[str, int]]]]:
    """The batches that lack samples: the rows' places, and which samples."""
    held = folder.held()
    size = options.rows_per_batch
    batches = []
    for start in range(0, len(ids), size):
        places = list(range(start, min(start + size, len(ids))))
        missing = [
            (ids[place], sample) for place in places for sample in held.missing(ids[place], options.num_generations)
        ]
        if missing:
            batches.append((places, missing))
    return batches


def _summarise(folder: SampleFolder, ids: Sequence[str], num_samples: int, complete: bool, torn: list[str]) -> Summary:
    held = folder.held()
    reasons: dict[str, list[str]] = {}
    for row_id, reason in read_refused(held, ids).items():
        reasons.setdefault(reason.partition(":")[0], []).append(row_id)
    return Summary(
        num_rows=len(ids),
        num_samples=len(held.samples),
        num_missing=sum(len(held.missing(row_id, num_samples)) for row_id in ids),
        refused=reasons,
        output=folder.folder / "samples.jsonl" if complete else folder.folder,
        torn=torn,
    )
