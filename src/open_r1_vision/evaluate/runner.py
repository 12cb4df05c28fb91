# SPDX-License-Identifier: Apache-2.0
"""One benchmark, one model: n samples of each item, scored, in a folder that a later start goes on with.

The items are cut into batches, always the same ones. A batch of which samples are missing is drawn again, whole where
the model is in this process, so that what a killed run draws again is what it would have drawn.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from open_r1_vision.data.images import ImageLimits, find_narrow
from open_r1_vision.evaluate import backends
from open_r1_vision.evaluate.items import Benchmark, Item, Record
from open_r1_vision.evaluate.judge import Judge, judge_config, judge_failed, judge_settings, needs_judge
from open_r1_vision.evaluate.options import RunOptions, output_folder
from open_r1_vision.evaluate.records import RunFolder, hash_data, hash_messages, list_versions
from open_r1_vision.evaluate.summary import Summary, summarise, write_summary
from open_r1_vision.sampling.draws import Draw, Prompt, Sampler

#: Makes the backend of a run, given its options and the most images of an item.
MakeBackend = Callable[[RunOptions, int], Sampler]
#: Extractor of a record without text.
_NOTHING = "none"
#: How a failure begins that is not about one request: the server is down, see `reasoners.breaker`.
_OUTAGE = "outage:"


class ServerGone(ValueError):
    """A server stopped to answer; what it answered is kept."""


def evaluate(
    options: RunOptions,
    benchmark: Benchmark,
    say: Callable[[str], None],
    make_backend: MakeBackend = backends.make_backend,
) -> Summary:
    """Draw what is missing, judge what is open, and write the summary.

    Args:
        options: of the run.
        benchmark: whose items.
        say: writes a line for the person at the terminal.
        make_backend: called where something is to be drawn.

    Raises:
        ValueError: something that the user can mend.
    """
    items = read_items(options, benchmark)
    folder = RunFolder(output_folder(options, benchmark.name))
    judge = Judge(judge_config(options.judge, folder.folder)) if options.judge else None
    settings = run_settings(options, benchmark, len(items), judge)
    work = _Work(options, benchmark, items, folder)
    try:
        for note in folder.open(settings, options.overwrite):
            say(note)
        work.begin(settings["judge"])
        folder.write_settings(settings)
        if judge is not None:
            judge.check()
        work.draw(make_backend)
        if judge is not None:
            work.judge(judge)
        return work.finish(settings, judge)
    finally:
        if judge is not None:
            judge.close()
        folder.close()


def read_items(options: RunOptions, benchmark: Benchmark) -> list[Item]:
    """The items of a run.

    Raises:
        ValueError: none, or an index that stands for several.
    """
    if options.data is None and benchmark.needs_file:
        raise ValueError(f"{benchmark.name} needs its data: give the file with --data.")
    items = benchmark.read(None if options.data is None else Path(options.data))
    twice = [index for index, count in Counter(item.index for item in items).items() if count > 1]
    if twice:
        raise ValueError(
            f"{len(twice)} indexes of {options.data!r} stand for several items, such as {', '.join(twice[:3])}: "
            "samples belong to items by their index, so give each its own."
        )
    if not items:
        raise ValueError(
            f"{options.data!r} holds no items of {benchmark.name}: give the benchmark's data with --data."
        )
    return items[: options.limit]


def run_settings(options: RunOptions, benchmark: Benchmark, num_items: int, judge: Judge | None) -> dict[str, Any]:
    """What stands in run.json.

    Raises:
        ValueError: settings that can't work.
    """
    return {
        "benchmark": benchmark.name,
        "model": options.model,
        "revision": options.revision,
        "weights": _fingerprint(options),
        "backend": options.backend,
        "prompt_style": options.prompt_style,
        **options.prompt_texts(),
        "num_items": num_items,
        "num_samples": backends.num_samples(options),
        **backends.backend_settings(options),
        "min_pixels": options.min_pixels,
        "max_pixels": options.max_pixels,
        "data": options.data,
        "data_md5": hash_data(options.data),
        "versions": list_versions(),
        "judge": judge_settings(judge.config if judge else None),
    }


def record_of(benchmark: Benchmark, item: Item, draw: Draw, prompt_sha: str, style: str, seed: int | None) -> Record:
    """What a sample came to by the benchmark's rule; whatever is not `ok` scores 0 where there is a gold answer."""
    answer, extractor = (None, _NOTHING) if draw.completion is None else benchmark.extract(item, draw.completion)
    status = _status(draw, answer)
    score: float | None = None
    if item.answer is not None:
        score = benchmark.score(item, answer) if status == "ok" else 0.0
    is_judged = score is not None and status != "failed"
    return Record(
        dataset=benchmark.name,
        index=item.index,
        sample=draw.sample,
        prompt_sha=prompt_sha,
        prompt_style=style,
        raw=draw.completion or "",
        answer=answer,
        extractor=extractor,
        gold=item.answer,
        score=score,
        judged_by="rule" if is_judged else "none",
        status=status,
        tokens=draw.num_tokens,
        seed=seed,
        cluster=item.cluster,
    )


def _status(draw: Draw, answer: str | None) -> str:
    if draw.completion is None:
        return "failed"
    if draw.finish_reason == "length":
        return "truncated"
    return "ok" if answer is not None else "no_answer"


class _Work:
    """What one start does in its folder."""

    def __init__(self, options: RunOptions, benchmark: Benchmark, items: Sequence[Item], folder: RunFolder) -> None:
        self._options = options
        self._benchmark = benchmark
        self._items = {item.index: item for item in items}
        self._folder = folder
        self._num_samples = backends.num_samples(options)
        self._texts = options.prompt_texts()
        self._failures: Counter[str] = Counter()

    def begin(self, judge: Mapping[str, Any] | None) -> None:
        """Drop what is to be drawn again, and verdicts of another judge.

        Raises:
            ValueError: samples of items that are not there.
        """
        held = self._folder.records
        strange = [index for index, sample in held if index not in self._items or sample >= self._num_samples]
        if strange:
            raise ValueError(
                f"{str(self._folder.samples)!r} holds samples of {len(strange)} items that this run does not have, "
                f"such as {strange[0]!r}: give another --output, or --overwrite to forget these samples."
            )
        kept = [record for record in held.values() if record.status != "failed"]
        if (self._folder.before or {}).get("judge") != judge:
            kept = [self._by_rule(record) for record in kept]
        if kept != list(held.values()):
            self._folder.replace(kept)

    def draw(self, make_backend: MakeBackend) -> None:
        """Draw the samples that are missing."""
        batches = self._batches()
        if not batches:
            return
        most_images = max(len(item.images) for item in self._items.values())
        backend = make_backend(self._options, most_images)
        total = len(self._items) * self._num_samples
        held = len(self._folder.records)
        try:
            with tqdm(total=total, initial=held, desc=self._benchmark.name, unit="sample", disable=None) as bar:
                self._draw_batches(backend, batches, bar)
        finally:
            backend.close()

    def judge(self, judge: Judge) -> None:
        """Ask the judge about what the rule leaves open."""
        asked = [record for record in self._folder.records.values() if needs_judge(record)]
        if not asked:
            return
        start = time.monotonic()
        with tqdm(total=len(asked), desc="Judging", unit="answer", disable=None) as bar:
            judged = judge.judge(self._items, asked, bar.update)
        by_key = {(record.index, record.sample): record for record in judged}
        self._folder.replace([by_key.get(key, record) for key, record in self._folder.records.items()])
        self._folder.add_seconds(time.monotonic() - start)

    def finish(self, settings: Mapping[str, Any], judge: Judge | None) -> Summary:
        """Put the samples in order and sum up."""
        places = {index: place for place, index in enumerate(self._items)}
        records = sorted(self._folder.records.values(), key=lambda one: (places[one.index], one.sample))
        self._folder.replace(records)
        items = list(self._items.values())
        by_rule = None
        if judge is not None:
            by_rule = self._benchmark.metrics(items, [self._by_rule(record) for record in records])
        summary = summarise(
            settings,
            self._benchmark.metrics(items, records),
            records,
            seconds=self._folder.seconds(),
            by_rule=by_rule,
            failures=dict(self._failures),
            judge_failures=dict(judge.failures) if judge else {},
        )
        write_summary(self._folder.folder, summary)
        return summary

    def _by_rule(self, record: Record) -> Record:
        """The record as it was before any judge."""
        if record.judged_by != "llm" and not judge_failed(record):
            return record
        item = self._items[record.index]
        draw = Draw(record.index, record.sample, record.raw, record.tokens)
        return record_of(self._benchmark, item, draw, record.prompt_sha, record.prompt_style, record.seed)

    def _batches(self) -> list[tuple[list[Item], set[tuple[str, int]]]]:
        """The batches that lack samples: their items, and which samples."""
        items, size = list(self._items.values()), self._options.items_at_once
        batches = []
        for start in range(0, len(items), size):
            part = items[start : start + size]
            keys = {(item.index, sample) for item in part for sample in range(self._num_samples)}
            if missing := keys - self._folder.records.keys():
                batches.append((part, missing))
        return batches

    def _draw_batches(self, backend: Sampler, batches: Sequence[tuple[list[Item], set]], bar: Any) -> None:
        started: deque[tuple[set, dict[str, str], list[Draw], Callable[[], list[Draw]]]] = deque()
        clock = time.monotonic()

        def save() -> None:
            nonlocal clock
            missing, shas, refused, finish = started.popleft()
            draws = [draw for draw in [*refused, *finish()] if (draw.id, draw.sample) in missing]
            down = [draw.failure for draw in draws if draw.failure and draw.failure.startswith(_OUTAGE)]
            self._add([draw for draw in draws if draw.failure not in down], shas)
            if down:
                raise self._server_gone(down[0])
            self._folder.add_seconds(time.monotonic() - clock)
            clock = time.monotonic()
            bar.update(len(draws))
            counts = Counter(record.status for record in self._folder.records.values())
            bar.set_postfix({name: count for name, count in counts.items() if name != "ok"}, refresh=False)

        for items, missing in batches:
            prompts, shas, refused = self._prompts(items, missing)
            finish = _start(backend, prompts, missing) if prompts else list
            started.append((missing, shas, refused, finish))
            while len(started) > backend.num_ahead:
                save()
        while started:
            save()

    def _prompts(
        self, items: Sequence[Item], missing: set[tuple[str, int]]
    ) -> tuple[list[Prompt], dict[str, str], list[Draw]]:
        """The prompts of items, the hashes of their chats, and failed draws of those that can't be asked."""
        prompts, shas, refused = [], {}, []
        for item in items:
            try:
                chat = self._benchmark.messages(item, self._options.prompt_style, **self._texts)
                images = [part["image"] for message in chat for part in message["content"] if part["type"] == "image"]
                _refuse_narrow(images)
            except (ValueError, OSError) as error:
                shas[item.index] = ""
                samples = [sample for sample in range(self._num_samples) if (item.index, sample) in missing]
                refused += [Draw(item.index, sample, None, failure=f"unreadable: {error}") for sample in samples]
                continue
            shas[item.index] = hash_messages(chat)
            prompts.append(Prompt(item.index, chat, images))
        return prompts, shas, refused

    def _add(self, draws: Sequence[Draw], shas: Mapping[str, str]) -> None:
        records = []
        for draw in draws:
            if draw.completion is None:
                self._failures[draw.failure or "unknown"] += 1
            seed = backends.seed_of_sample(self._options, draw.id, draw.sample)
            item, style = self._items[draw.id], self._options.prompt_style
            records.append(record_of(self._benchmark, item, draw, shas[draw.id], style, seed))
        self._folder.add(records)

    def _server_gone(self, failure: str) -> ServerGone:
        return ServerGone(
            f"The server stopped to answer ({failure}). {len(self._folder.records)} of "
            f"{len(self._items) * self._num_samples} samples are kept: start it again and give the same command."
        )


def _refuse_narrow(images: Sequence[Any]) -> None:
    for number, image in enumerate(images, start=1):
        width, height = image.size
        if narrow := find_narrow(width, height, ImageLimits()):
            raise ValueError(f"{narrow[0]}, number {number} of {len(images)}: {narrow[1]}")


def _start(backend: Sampler, prompts: Sequence[Prompt], missing: set[tuple[str, int]]) -> Callable[[], list[Draw]]:
    """Begin with a batch; one that the backend refuses is drawn in halves, until it is known which prompts those are.

    A processor or an engine refuses a whole batch for one item, such as a prompt that is too long. The halves are the
    same ones at every start.
    """
    try:
        finish = backend.start(prompts, missing)
    except ValueError as error:
        return partial(_halve, backend, prompts, missing, error)

    def finish_or_halve() -> list[Draw]:
        try:
            return finish()
        except ValueError as error:
            return _halve(backend, prompts, missing, error)

    return finish_or_halve


def _halve(
    backend: Sampler, prompts: Sequence[Prompt], missing: set[tuple[str, int]], error: ValueError
) -> list[Draw]:
    if len(prompts) == 1:
        reason = f"refused: {' '.join(str(error).split()):.300}"
        samples = sorted(sample for index, sample in missing if index == prompts[0].id)
        return [Draw(prompts[0].id, sample, None, failure=reason) for sample in samples]
    middle = len(prompts) // 2
    return [draw for part in (prompts[:middle], prompts[middle:]) for draw in _start(backend, part, missing)()]


def _fingerprint(options: RunOptions) -> str | None:
    if options.backend == "endpoint":
        return None
    from open_r1_vision.models import find_model
    from open_r1_vision.sampling.run import fingerprint

    assert options.model is not None  # options refuse to be without one
    return fingerprint(find_model(options.model))
