# SPDX-License-Identifier: Apache-2.0
"""A curriculum's recipe: its stages, and what one stage takes from another.

output_dir: runs/pebr_r1
shared: {dtype: float32, report_to: none}
stages:
  - name: warm_up
    run: sft
    settings: {model_name_or_path: Qwen/Qwen2.5-VL-7B-Instruct, dataset: sft.parquet}
  - name: perceive
    run: train
    recipe: recipes/my_grpo.yaml
    settings: {model_name_or_path: "{warm_up.final}"}

`shared` is given to every stage, a stage's `recipe` goes over it, and its `settings` over both. `{name.folder}` is the
folder of an earlier stage, `{name.final}` the model in it.
"""

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from open_r1_vision.recipe_files import read_files

#: What a stage may run, and the module that does.
ENTRY_POINTS = {
    "sft": "open_r1_vision.sft",
    "sample": "open_r1_vision.sample",
    "split": "open_r1_vision.split",
    "train": "open_r1_vision.train",
}
#: What a stage leaves behind, under its folder.
PRODUCTS = {"folder": "", "final": "final"}
_KEYS = ("output_dir", "processes", "shared", "stages")
_STAGE_KEYS = ("name", "run", "recipe", "settings", "processes")
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_REFERENCE = re.compile(r"\{([a-z][a-z0-9_]*)\.([a-z_]+)\}")
#: What was meant as a reference, where it begins with a stage's name.
_NEARLY_REFERENCE = re.compile(r"\{\s*(\w+)[^{}]*\}")


@dataclass(frozen=True)
class Stage:
    """One run of a curriculum.

    Attributes:
        name: also its folder's.
        run: one of `ENTRY_POINTS`.
        settings: the recipe that it is started with, references replaced, `output_dir` included.
        needs: names of the stages that it takes something from.
        processes: how many it runs on.
        written: its settings with references as they are written: wherever the curriculum's folder lies.
    """

    name: str
    run: str
    settings: dict[str, Any]
    needs: tuple[str, ...] = ()
    processes: int = 1
    written: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where it writes."""
        return Path(self.settings["output_dir"])

    @property
    def module(self) -> str:
        """The entry point."""
        return ENTRY_POINTS[self.run]

    @property
    def takes(self) -> list[tuple[str, str]]:
        """What it takes from earlier stages: keys, dotted where they lie in blocks, and references."""
        return list(dict.fromkeys(_find_references(self.written)))


@dataclass(frozen=True)
class Curriculum:
    """A checked recipe.

    Attributes:
        output_dir: a folder for each stage lies in it.
        stages: in their order.
        processes: of a stage that does not say otherwise.
    """

    output_dir: Path
    stages: list[Stage] = field(default_factory=list)
    processes: int = 1

    def stage(self, name: str) -> Stage:
        """Look one up by name.

        Raises:
            ValueError: there is none.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise ValueError(f"There is no stage {name!r}{_near(name, [stage.name for stage in self.stages])}.")


def read_curriculum(
    path: str | Path | Sequence[str | Path],
    output_dir: str | None = None,
    processes: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    faults: list[str] | None = None,
) -> Curriculum:
    """Read a curriculum's recipe and the recipes of its stages.

    Args:
        path: the YAML file, or it and files that change it, see :mod:`open_r1_vision.recipe_files`.
        output_dir: in place of the recipe's.
        processes: of every stage, in place of the recipe's and of its own.
        overrides: settings of every stage, over its own.
        faults: what is wrong with stages is added to this list in place of an error; the curriculum then lacks the
            stages that can't be read.

    Raises:
        ValueError: no such file, an unknown key, a stage without name or entry point, a name twice, a reference to
            what no earlier stage leaves, or an override of a reference; the message has everything that was found.
    """
    paths = [path] if isinstance(path, str | Path) else path
    return curriculum_of(_read_recipe(*paths), str(paths[0]), output_dir, processes, overrides, faults)


def curriculum_of(
    plain: dict[str, Any],
    path: str,
    output_dir: str | None = None,
    processes: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    faults: list[str] | None = None,
) -> Curriculum:
    """As :func:`read_curriculum`, of what the file at `path` says."""
    wrong = _unknown_keys(plain, _KEYS, f"the curriculum {path!r}")
    folder = Path(output_dir or plain.get("output_dir") or _missing("output_dir", path)).expanduser()
    entries = plain.get("stages")
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"The curriculum {str(path)!r} has no stages: set `stages` to a list of at least one.")
    reader = _StageReader(plain, folder, dict(overrides or {}), processes, wrong)
    stages = [stage for number, entry in enumerate(entries, 1) if (stage := reader.read(entry, number)) is not None]
    if wrong and faults is None:
        raise ValueError("\n".join(wrong))
    if faults is not None:
        faults += wrong
    return Curriculum(folder, stages, reader.processes)


class _StageReader:
    """Reads stages in their order; what is wrong with them goes to `wrong`."""

    def __init__(
        self, plain: dict[str, Any], folder: Path, overrides: dict[str, Any], processes: int | None, wrong: list[str]
    ) -> None:
        self._folder, self._overrides, self._wrong = folder, overrides, wrong
        self._shared = self._attempt(lambda: _mapping("shared", plain.get("shared"))) or {}
        #: Of all stages, those to come included.
        self._names = {str(entry.get("name")) for entry in plain["stages"] if isinstance(entry, Mapping)}
        self._forced = self._count("--processes", processes)
        self.processes = self._forced or self._count("`processes`", plain.get("processes")) or 1
        #: What each stage so far runs, those that can't be run included.
        self._runs: dict[str, Any] = {}

    def read(self, entry: Any, number: int) -> Stage | None:
        """One stage; None for one that can't be."""
        if not isinstance(entry, Mapping):
            self._wrong.append(f"Stage {number} is {entry!r:.80}: give a mapping with `name`, `run` and `settings`.")
            return None
        name, run = entry.get("name"), entry.get("run")
        where = f"stage {name!r}" if name else f"stage {number}"
        self._wrong += _unknown_keys(entry, _STAGE_KEYS, where)
        written = dict(self._shared)
        if entry.get("recipe"):
            written |= self._attempt(lambda: _read_recipe(str(entry["recipe"]))) or {}
        written |= self._attempt(lambda: _mapping(f"`settings` of {where}", entry.get("settings"))) or {}
        self._check_overrides(written, where)
        written |= self._overrides
        needs: dict[str, None] = {}
        settings = self._resolve({**written, "output_dir": str(self._folder / str(name))}, needs, where)
        own_count = self._count(f"`processes` of {where}", entry.get("processes"))
        count = self._forced or own_count or self.processes
        is_new = name not in self._runs
        is_name = isinstance(name, str) and _NAME.fullmatch(name)
        if not is_name:
            self._wrong.append(
                f"Stage {number} has the name {name!r}: give a name of lower-case letters, digits and _."
            )
        elif not is_new:
            self._wrong.append(f"Two stages are called {name!r}: names are folders, give each its own.")
        if run not in ENTRY_POINTS:
            self._wrong.append(f"`run` of {where} is {run!r}: set it to {', '.join(ENTRY_POINTS)}.")
        self._runs.setdefault(str(name), run)
        if not (is_name and is_new and run in ENTRY_POINTS):
            return None
        return Stage(str(name), str(run), settings, tuple(needs), count, written)

    def _count(self, what: str, value: Any) -> int | None:
        """A number of processes; None where there is none, or a wrong one."""
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            self._wrong.append(f"{what} is {value!r}: set a whole number of at least 1, or leave it out.")
            return None
        return value

    def _attempt(self, read: Callable[[], Any]) -> Any:
        """What is read; None where it can't be."""
        try:
            return read()
        except ValueError as error:
            self._wrong.append(str(error))
            return None

    def _check_overrides(self, written: dict[str, Any], where: str) -> None:
        """Refuse what would cut a stage off from those that it builds on."""
        for key in self._overrides.keys() & written.keys():
            for place, reference in _find_references({key: written[key]}):
                self._wrong.append(
                    f"--{key} is given to every stage, but {where} takes its {place} from an earlier one, as "
                    f"{reference}, and would no longer build on it: set {key} in the recipe, in the stage that is to "
                    "have it."
                )

    def _resolve(self, value: Any, needs: dict[str, None], where: str) -> Any:
        """The value with every reference in its strings replaced; the stages named go to `needs`."""
        if isinstance(value, dict):
            return {key: self._resolve(item, needs, where) for key, item in value.items()}
        if isinstance(value, list):
            return [self._resolve(item, needs, where) for item in value]
        if not isinstance(value, str):
            return value

        for match in _NEARLY_REFERENCE.finditer(_REFERENCE.sub("", value)):
            if match[1] in self._names:
                product = "folder" if self._runs.get(match[1]) in ("sample", "split") else "final"
                self._wrong.append(
                    f"{where} has {match[0]}, which is no reference and would be taken literally: write "
                    f"{{{match[1]}.{product}}}."
                )

        def replace(match: re.Match) -> str:
            name, product = match.groups()
            run = self._runs.get(name)
            if name not in self._runs:
                near = _near(name, list(self._runs))
                self._wrong.append(f"{where} refers to {match[0]}, but no earlier stage is called {name!r}{near}.")
            elif product not in PRODUCTS:
                self._wrong.append(
                    f"{where} refers to {match[0]}: a stage leaves {', '.join(PRODUCTS)}, nothing else."
                )
            elif product == "final" and run in ("sample", "split"):
                self._wrong.append(
                    f"{where} refers to {match[0]}, but {name!r} runs {run}, which leaves no model: name a stage that "
                    "runs sft or train."
                )
            else:
                needs[name] = None
                return str(self._folder / name / PRODUCTS[product])
            return match[0]

        return _REFERENCE.sub(replace, value)


def _read_recipe(*paths: str | Path) -> dict[str, Any]:
    """What files say together, an `env` included."""
    files = read_files(paths)
    return files.settings | ({"env": files.environment} if files.environment else {})


def _mapping(name: str, value: Any) -> dict[str, Any]:
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"{name} is a {type(value).__name__}: give a mapping of `key: value`.")
    return dict(value or {})


def _unknown_keys(value: Mapping, known: tuple[str, ...], where: str) -> list[str]:
    return [
        f"{where[0].upper() + where[1:]} has the unknown key {key!r}{_near(str(key), list(known))}."
        for key in value
        if key not in known
    ]


def _near(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there are {', '.join(known)}" if known else ""


def _missing(key: str, path: Any) -> str:
    raise ValueError(f"The curriculum {str(path)!r} has no `{key}`: set it.")


def _find_references(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every reference in a value, after the dotted key where it stands."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _find_references(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for item in value:
            yield from _find_references(item, key)
    elif isinstance(value, str):
        for match in _REFERENCE.finditer(value):
            yield key, match[0]
