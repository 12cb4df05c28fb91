# SPDX-License-Identifier: Apache-2.0
"""What training writes beside TRL's tables of completions, for the gallery: thumbnails, and each line of the log.

| what | where |
|---|---|
| `source`, `solution`, `group`, `image_keys`, `facts` | columns of `completions/completions_00012.parquet` |
| the trainer's own evaluation at a step | `completions/evaluation_00012.parquet` |
| images of at most `log_image_size` pixels, each once, by key | `rollout_images/images_00000.parquet` |
| every logged metric, a line for each step | `log.jsonl` |
"""

import hashlib
import json
import logging
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
from accelerate.utils import gather_object
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from open_r1_vision.distributed import is_main_process
from open_r1_vision.files import write_whole
from open_r1_vision.image_keys import image_key
from open_r1_vision.rewards.facts import facts_to_state
from open_r1_vision.run_log import IMAGES_FOLDER, LOG_FILE, finite, read_log

logger = logging.getLogger(__name__)


class RolloutLog:
    """Adds columns to the completions' table, and keeps the images of its rows as thumbnails.

    Args:
        output_dir: folder of the run.
        pixels: longest side of a thumbnail; 0 keeps none.
        leave_out_question: whether facts that stand in the question count, as for `visual_facts_reward`.
    """

    def __init__(self, output_dir: str | Path, pixels: int, leave_out_question: bool = True) -> None:
        self.thumbnails = Thumbnails(Path(output_dir) / IMAGES_FOLDER, pixels) if pixels else None
        self._leave_out_question = leave_out_question

    def describe(self, rows: Sequence[Mapping[str, Any]], first: int, group_size: int) -> dict[str, list]:
        """Columns for the completions of this process, which lie in groups; all processes must call it together.

        Args:
            rows: one for each completion.
            first: place of the first of them among those of all processes.
            group_size: completions of a prompt.
        """
        columns: dict[str, list] = {name: [_text(row.get(name)) for row in rows] for name in ("source", "solution")}
        columns["group"] = [(first + index) // group_size for index in range(len(rows))]
        if self.thumbnails is not None:
            columns["image_keys"] = self.thumbnails.add(rows)
            self.thumbnails.flush()
        if rows and "visual_facts" in rows[0]:  # a column is there in each step or in none
            columns["facts"] = [
                facts_to_state(row["visual_facts"], row.get("problem") if self._leave_out_question else None)
                for row in rows
            ]
        return columns


class Thumbnails:
    """Small copies of images, each once in a run however often it is trained on.

    Args:
        folder: where files go; what they hold already is not written again.
        pixels: longest side.
    """

    def __init__(self, folder: Path, pixels: int) -> None:
        self.folder = folder
        self.pixels = pixels
        self._seen: set[str] = set()
        self._pending: dict[str, bytes] = {}
        self._written: set[str] | None = None

    def add(self, rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
        """The keys of each row's images; those that are new wait for :meth:`flush`."""
        by_row: dict[Any, list[str]] = {}
        keys = []
        for row in rows:
            row_id = row.get("id")
            if row_id is None or row_id not in by_row:
                by_row[row_id] = [self._add(image) for image in row.get("images") or []]
            keys.append(by_row[row_id])
        return keys

    def flush(self) -> None:
        """Write what is new, in the main process; all processes must call it together."""
        gathered = gather_object([self._pending])
        self._pending = {}
        new = {key: content for of_process in gathered for key, content in of_process.items()}
        self._seen.update(new)
        if new and is_main_process():
            self._write(new)

    def _add(self, image: Any) -> str:
        key = hashlib.blake2b(repr(image_key(image)).encode(), digest_size=12).hexdigest()
        if key not in self._seen:
            self._seen.add(key)
            content = encode_thumbnail(image, self.pixels)
            if content is not None:
                self._pending[key] = content
        return key

    def _write(self, new: dict[str, bytes]) -> None:
        paths = sorted(self.folder.glob("images_*.parquet"))
        if self._written is None:  # of a run that goes on
            self._written = {key for path in paths for key in pq.read_table(path, columns=["key"])["key"].to_pylist()}
        new = {key: content for key, content in new.items() if key not in self._written}
        if not new:
            return
        self._written.update(new)
        self.folder.mkdir(parents=True, exist_ok=True)
        number = 1 + max((int(path.stem.rpartition("_")[2]) for path in paths), default=-1)
        path = self.folder / f"images_{number:05d}.parquet"
        draft = path.with_suffix(".tmp")
        columns = {"key": list(new), "image": pa.array(new.values(), pa.binary())}
        pq.write_table(pa.table(columns), draft, compression="none")
        draft.rename(path)  # who reads while training goes on finds it whole or not at all


def encode_thumbnail(image: Any, pixels: int) -> bytes | None:
    """An image as WebP with at most `pixels` on its longer side, on white where it is transparent.

    None, with a warning, where it can't be opened: a picture for people is no reason to stop a run.
    """
    try:
        if isinstance(image, np.ndarray):
            image = PIL.Image.fromarray(image)
        elif not isinstance(image, PIL.Image.Image):
            image = PIL.Image.open(image)
        small = image.convert("RGBA" if image.has_transparency_data else "RGB")
        small.thumbnail((pixels, pixels))
        if small.mode == "RGBA":
            small = PIL.Image.alpha_composite(PIL.Image.new("RGBA", small.size, "white"), small)
        content = BytesIO()
        small.convert("RGB").save(content, "WEBP", quality=85, method=2)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        logger.warning("No thumbnail of %.80r for the gallery: %s.", image, error)
        return None
    return content.getvalue()


class LogFile(TrainerCallback):
    """Writes each line of the log to `log.jsonl` at once: checkpoints, which hold them too, come later or not at all.

    A run that resumes keeps the lines up to its checkpoint.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        path = Path(str(args.output_dir)) / LOG_FILE
        if state.is_world_process_zero and path.exists():
            kept = [json.dumps(entry) for entry in read_log(path) if entry.get("step", 0) <= state.global_step]
            write_whole(path, "".join(line + "\n" for line in kept if state.global_step))

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero and state.log_history:
            path = Path(str(args.output_dir)) / LOG_FILE
            path.parent.mkdir(parents=True, exist_ok=True)
            entry = {key: finite(value) for key, value in state.log_history[-1].items()}
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry, default=str) + "\n")


def log_rollouts(
    log: RolloutLog,
    rows: Sequence[Mapping[str, Any]],
    rank: int,
    group_size: int,
    taken: Mapping[str, Any],
    log_extra: Callable[[str, list], None],
) -> None:
    """Add what `log` says of the rows to the completions' table, but for columns that a reward has written itself.

    Args:
        log: of the run.
        rows: of this process, one for each completion.
        rank: number of this process.
        group_size: completions of a prompt.
        taken: columns that are there.
        log_extra: takes the name and the values of a column.
    """
    for name, values in log.describe(rows, rank * len(rows), group_size).items():
        if name not in taken:
            log_extra(name, values)


def empty_logs(logs: Mapping[str, Any]) -> dict[str, Any]:
    """The containers of TRL's tables as they are at first: queues of that length, alone or by name."""
    return {
        name: defaultdict(values.default_factory) if isinstance(values, defaultdict) else deque(maxlen=values.maxlen)
        for name, values in logs.items()
    }


@contextmanager
def table_of_evaluation(output_dir: str | Path, step: int) -> Iterator[None]:
    """Let TRL write the table of an evaluation beside that of the training step, where it would write over it.

    Args:
        output_dir: folder of the run.
        step: of which TRL writes the table in the block, perhaps.
    """
    path = Path(output_dir) / "completions" / f"completions_{step:05d}.parquet"
    aside = path.with_suffix(".training")
    if is_of_training := path.exists():
        path.replace(aside)
    try:
        yield
    finally:
        if path.exists():
            path.replace(path.with_name(f"evaluation_{step:05d}.parquet"))
        if is_of_training:
            aside.replace(path)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
