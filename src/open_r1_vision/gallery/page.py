# SPDX-License-Identifier: Apache-2.0
"""The HTML file: rollouts, images and curves of a run as data, and the page that shows them."""

import base64
import datetime
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from open_r1_vision.files import write_whole
from open_r1_vision.gallery.curves import build_curves, read_history, reward_names
from open_r1_vision.gallery.pictures import read_images
from open_r1_vision.gallery.rollouts import Describer
from open_r1_vision.gallery.tables import Selection, select_groups
from open_r1_vision.run_log import LOG_FILE
from open_r1_vision.runs import RESULTS_FILE, RUN_FILE

OUTPUT_FILE = "gallery.html"
#: Scripts of the page, in their order.
SCRIPTS = ("logic.js", "charts.js", "detail.js", "view.js")
_MARK = '<meta name="generator" content="open_r1_vision.gallery">'
_FOLDER = Path(__file__).parent
_ACCURACY = "accuracy_reward"
#: What would end the script element, or is no character of its own in HTML or UTF-8.
_UNSAFE = re.compile("[<>&\u2028\u2029\ufffe\uffff\ud800-\udfff]")


@dataclass(frozen=True)
class Gallery:
    """What was written.

    Attributes:
        path: the file.
        num_bytes: its size.
        num_rollouts: completions in it.
        num_groups: groups of completions in it.
        num_steps: steps that they come from.
        num_images: images in it, each once.
        num_curves: curves in it.
        notes: what is missing or was cut, as the page says too.
    """

    path: Path
    num_bytes: int
    num_rollouts: int
    num_groups: int
    num_steps: int
    num_images: int
    num_curves: int
    notes: tuple[str, ...]


def write_gallery(
    run: str | Path,
    output: str | Path | None = None,
    *,
    max_rollouts: int = 2000,
    every: int = 1,
    image_size: int = 320,
    max_text: int = 20_000,
) -> Gallery:
    """Write the rollouts and curves of a run as one HTML file that needs no server and no network.

    Args:
        run: output folder of a run, finished or not.
        output: file to write, by default `gallery.html` in the folder. A gallery that is there is replaced.
        max_rollouts: most completions, in whole groups, evenly over the steps.
        every: only every Nth step that was logged.
        image_size: longest side of an image in pixels, at most what the run kept (`log_image_size`).
        max_text: longest text in characters; of longer ones the middle is cut, with a note in its place.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it holds no run, a limit that allows nothing, or `output` is another file.
    """
    run = Path(run)
    _check_limits(max_rollouts=max_rollouts, every=every, image_size=image_size, max_text=max_text)
    _check_run(run)
    path = Path(output) if output is not None else run / OUTPUT_FILE
    _check_output(path)
    settings = _read_json(run / RUN_FILE)
    history = read_history(run)
    names = reward_names(history) or [str(name).rpartition(".")[2] for name in _listed(settings.get("reward_funcs"))]
    group_size = settings.get("num_generations")
    selection = select_groups(run, max_rollouts, every, names, group_size if isinstance(group_size, int) else None)
    describer = Describer(selection.rewards, max_text, _facts_options(settings))
    groups = [describer.group(group) for group in selection.groups]
    keys = {key for group in groups for key in group["images"]}
    images = read_images(run, keys, image_size)
    texts = describer.pool()
    curves = build_curves(run, history)
    notes = [*selection.notes, *_notes(selection, groups, keys - set(images), describer.num_cut, max_text)]
    about = _describe_run(run, settings, history)
    data = {
        "run": about,
        "rewards": [
            {"name": name, "weight": weight} for name, weight in _weigh(selection.rewards, settings, names).items()
        ],
        "right": _ACCURACY if _ACCURACY in selection.rewards else next(iter(selection.rewards), None),
        "groups": groups,
        "texts": texts,
        "images": images,
        "curves": curves,
        "notes": notes,
    }
    content = build_page(data, f"{about['name']}: rollouts")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, [content])
    return Gallery(
        path=path,
        num_bytes=len(content),
        num_rollouts=sum(len(group["completions"]) for group in groups),
        num_groups=len(groups),
        num_steps=len({group["step"] for group in groups}),
        num_images=len(images),
        num_curves=sum(len(section["curves"]) for section in curves["sections"]),
        notes=tuple(notes),
    )


def build_page(data: Mapping[str, Any], title: str) -> bytes:
    """The HTML file with its data, style and scripts in it, which may run nothing else and ask no one."""
    style = _part("style.css")
    script = "\n".join(_part(name) for name in SCRIPTS)
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    parts = {
        "generator": _MARK,
        "policy": policy,
        "title": re.sub(r"[<>&\"]", " ", title),
        "style": style,
        "data": embed(data),
        "script": script,
    }
    # in one pass: what is filled in is never filled in itself
    page = re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _part("page.html"))
    return page.encode("utf-8", errors="replace")


def embed(data: Any) -> str:
    """Data as JSON that can stand in a script element, whatever the texts in it say."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _check_limits(**limits: int) -> None:
    for name, value in limits.items():
        if value < 1:
            raise ValueError(f"{name} is {value}, which leaves nothing to show: set at least 1.")


def _check_run(run: Path) -> None:
    if not run.is_dir():
        raise FileNotFoundError(f"There is no folder {str(run)!r}: give the output_dir of a run.")
    if _is_run(run):
        return
    below = sorted(path.name for path in run.iterdir() if path.is_dir() and _is_run(path))
    if below:
        raise ValueError(
            f"{str(run)!r} is no run, but holds some: {', '.join(below[:10])}. Give the folder of one of them."
        )
    raise ValueError(
        f"{str(run)!r} holds no run: no {RUN_FILE}, no completions, no {LOG_FILE}, no checkpoint. Give the output_dir "
        "of a run."
    )


def _is_run(folder: Path) -> bool:
    files = (RUN_FILE, LOG_FILE, "trainer_state.json", "completions")
    return any((folder / name).exists() for name in files) or any(folder.glob("checkpoint-*/trainer_state.json"))


def _check_output(path: Path) -> None:
    if path.is_dir():
        raise ValueError(f"The output {str(path)!r} is a folder: give the path of a file.")
    if path.exists():
        with path.open("rb") as file:
            if _MARK.encode() not in file.read(4096):
                raise ValueError(
                    f"{str(path)!r} exists and is no gallery: give another output, or delete it yourself."
                )


def _describe_run(run: Path, settings: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    is_finished = (run / RESULTS_FILE).is_file()
    model = str(settings.get("model_name_or_path") or "")
    return {
        "name": run.resolve().name,
        "trainer": str(settings.get("trainer") or "").rpartition(".")[2],
        "model": model.rstrip("/").rpartition("/")[2],
        # a run of a notebook has no run.json, and never a results.json
        "finished": is_finished if settings else None,
        "last_step": max((int(entry.get("step", 0)) for entry in history), default=None),
        "written": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _notes(
    selection: Selection, groups: Sequence[Mapping[str, Any]], missing: set[str], num_cut: int, max_text: int
) -> list[str]:
    notes = []
    shown = sum(len(group["completions"]) for group in groups)
    if not groups:
        notes.append("This run has logged no completions: set log_completions: true in its recipe to see them here.")
    elif shown < selection.num_rollouts:
        notes.append(
            f"{shown:,} of {selection.num_rollouts:,} rollouts are in this file, in whole groups, evenly over the "
            "steps; max_rollouts and every decide."
        )
    if groups and "image_keys" not in selection.columns:
        notes.append("This run kept no images: with log_image_size above 0, training keeps them from its start on.")
    if missing:
        notes.append(f"Images that are not among those that the run kept: {len(missing)}.")
    if num_cut:
        notes.append(
            f"Texts longer than {max_text:,} characters, which are {num_cut:,}, lack their middle here; the run's "
            "completions folder holds them whole."
        )
    return notes


def _weigh(rewards: Sequence[str], settings: Mapping[str, Any], names: Sequence[str]) -> dict[str, float | None]:
    """The weight of each reward; None where the run's settings don't tell."""
    weights = _listed(settings.get("reward_weights"))
    if not weights and settings:
        weights = [1.0] * len(names)
    by_name = dict(zip(names, weights, strict=True)) if len(weights) == len(names) else {}
    return {name: by_name.get(name) for name in rewards}


def _facts_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the recipe binds of the reward for visual facts, as far as the rule's verdicts depend on it."""
    kwargs = settings.get("reward_kwargs")
    kwargs = _parsed(kwargs) if isinstance(kwargs, str) else kwargs
    bound = [value for name, value in (kwargs or {}).items() if str(name).endswith("visual_facts_reward")]
    return {key: value for options in bound for key, value in options.items() if key in ("match", "section")}


def _listed(value: Any) -> list[Any]:
    """A list, which the run's file holds as its element where it is of one."""
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    value = _parsed(path.read_text(encoding="utf-8"))
    return value if isinstance(value, dict) else {}


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _part(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
