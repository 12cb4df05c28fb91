# SPDX-License-Identifier: Apache-2.0
"""The tables of completions that training leaves, and which groups of them are shown."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

#: Where TRL writes them.
TABLES = "completions/completions_*.parquet"
#: Columns that are no reward.
_OURS = frozenset(("step", "prompt", "completion", "advantage"))


@dataclass(frozen=True)
class Table:
    """One file: the completions of a step."""

    path: Path
    step: int
    num_rows: int
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """The completions of one prompt, as rows of the table."""

    step: int
    number: int
    rows: list[dict[str, Any]]


@dataclass
class Selection:
    """What is shown of a run.

    Attributes:
        groups: in their order in training.
        num_rollouts: completions that are on disk, those of one sampling once.
        num_groups: groups that are on disk, as far as the tables that were read tell.
        rewards: names of the reward columns.
        columns: all columns there are.
        notes: what a reader ought to know.
    """

    groups: list[Group] = field(default_factory=list)
    num_rollouts: int = 0
    rewards: list[str] = field(default_factory=list)
    columns: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)


def select_groups(
    run: Path, max_rollouts: int, every: int = 1, known_rewards: Sequence[str] = (), group_size: int | None = None
) -> Selection:
    """Choose whole groups, evenly over the steps of a run.

    Args:
        run: output folder of a run, which may still be written.
        max_rollouts: most completions.
        every: only every Nth table.
        known_rewards: names of rewards, from elsewhere; where there are none, the columns between completion and the
            first text are taken.
        group_size: completions of a prompt, for tables that don't say.
    """
    selection = Selection()
    tables = _drop_repeats(_find_tables(run, selection.notes), selection.notes)
    selection.num_rollouts = sum(table.num_rows for table in tables)
    selection.columns = {name for table in tables for name in table.columns}
    tables = tables[::every]
    if not tables:
        return selection
    sample = _read(tables[0])
    selection.rewards = _find_rewards(sample.schema, known_rewards)
    size = max(len(group.rows) for group in split_groups(sample.to_pylist(), group_size))
    wanted = max(1, max_rollouts // size)
    tables = pick_evenly(tables, wanted)
    left = wanted
    for index, table in enumerate(tables):
        groups = split_groups(_read(table).to_pylist(), group_size)
        # of what is left an equal part for each table that is left
        picked = pick_evenly(groups, -(-left // (len(tables) - index)))
        left -= len(picked)
        selection.groups += picked
    return selection


def split_groups(rows: Sequence[Mapping[str, Any]], group_size: int | None = None) -> list[Group]:
    """Neighbours with one prompt and one `group`; without that column, at most `group_size` of them."""
    groups: list[Group] = []
    for _, found in groupby(rows, key=lambda row: (row.get("group"), str(row.get("id")), str(row.get("prompt")))):
        members = [dict(row) for row in found]
        size = len(members) if members[0].get("group") is not None or not group_size else group_size
        for start in range(0, len(members), size):
            part = members[start : start + size]
            number = part[0].get("group")
            groups.append(Group(int(part[0]["step"]), len(groups) if number is None else int(number), part))
    return groups


def pick_evenly(items: Sequence[Any], count: int) -> list[Any]:
    """At most `count` items, the first and the last among them, at equal distances."""
    if count >= len(items):
        return list(items)
    if count == 1:
        return [items[-1]]
    return [items[index * (len(items) - 1) // (count - 1)] for index in range(count)]


def _find_tables(run: Path, notes: list[str]) -> list[Table]:
    tables, unreadable = [], []
    for path in sorted(run.glob(TABLES), key=_step):
        try:
            file = pq.ParquetFile(path)
        except (pa.ArrowInvalid, OSError):
            unreadable.append(path.name)
            continue
        with file:
            schema, num_rows = file.schema_arrow, file.metadata.num_rows
        if num_rows and set(schema.names) >= _OURS:
            tables.append(Table(path, _step(path), num_rows, tuple(schema.names)))
        elif num_rows:
            notes.append(f"{path.name} is left out: it has no {', '.join(sorted(_OURS - set(schema.names)))}.")
    if unreadable:
        more = f" and {len(unreadable) - 3} more" if len(unreadable) > 3 else ""
        notes.append(f"{', '.join(unreadable[:3])}{more} can't be read, perhaps still being written; left out.")
    return tables


def _step(path: Path) -> int:
    number = path.stem.rpartition("_")[2]
    return int(number) if number.isdigit() else -1


def _drop_repeats(tables: list[Table], notes: list[str]) -> list[Table]:
    """One table for each sampling: TRL writes it anew after each update that is made of it."""
    kept: list[Table] = []
    last = None
    for table in tables:
        advantages = pq.read_table(table.path, columns=["advantage"])["advantage"].combine_chunks()
        if kept and advantages.equals(last) and _texts(table).equals(_texts(kept[-1])):
            continue
        kept.append(table)
        last = advantages
    if len(kept) < len(tables):
        notes.append(
            f"{len(tables) - len(kept)} of {len(tables)} tables repeat the sampling of an earlier step, several "
            "updates having been made of it; they are shown once."
        )
    return kept


def _texts(table: Table) -> pa.Table:
    return pq.read_table(table.path, columns=["prompt", "completion"]).combine_chunks()


def _read(table: Table) -> pa.Table:
    return pq.read_table(table.path)


def _find_rewards(schema: pa.Schema, known: Sequence[str]) -> list[str]:
    named = [name for name in schema.names if name in known]
    return named or list(_leading_floats(schema))


def _leading_floats(schema: pa.Schema) -> Iterator[str]:
    """TRL writes rewards right after the completion."""
    for name in schema.names[schema.names.index("completion") + 1 :]:
        if name in _OURS or not pa.types.is_floating(schema.field(name).type):
            return
        yield name
