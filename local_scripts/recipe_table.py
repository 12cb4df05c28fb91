# SPDX-License-Identifier: Apache-2.0
"""Write what recipes are estimated to need: the table in docs/recipes.md, and a line in each recipe's header.

    python local_scripts/recipe_table.py            # print the table
    python local_scripts/recipe_table.py --write    # put it into docs/recipes.md, and the lines into the recipes

Run it after a change of a recipe, an overlay or a formula: a test compares the files with what this makes.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from open_r1_vision.arguments import Recipe, read_recipe
from open_r1_vision.curriculum import read_curriculum
from open_r1_vision.memory import Plan, read_plan
from open_r1_vision.memory.estimate import GIB
from open_r1_vision.recipe_files import read_files

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "recipes.md"
BEGIN, END = "<!-- made by local_scripts/recipe_table.py -->", "<!-- end of what it made -->"
METHODS = ("visionary_r1", "racro_cro", "racro_grpo", "perception_r1", "hint_grpo", "pebr_r1")
MODELS = ("qwen2_vl_2b", "qwen2_5_vl_3b", "qwen3_vl_4b", "qwen2_vl_7b", "qwen2_5_vl_7b", "qwen3_vl_8b")
#: Overlays with their GPUs, and the memory of each in GiB.
HARDWARE = {
    "2_nodes": (16, 80),
    "8_gpus": (8, 80),
    "8_gpus_zero2": (8, 80),
    "8_gpus_lora": (8, 80),
    "4_gpus": (4, 80),
    "4_gpus_offload": (4, 80),
    "4_gpus_lora": (4, 80),
    "1_gpu_offload": (1, 80),
    "1_gpu_lora": (1, 80),
    "1_gpu_24gb": (1, 24),
}
#: Curricula have overlays of their own, which change their stages.
CURRICULUM_HARDWARE = {
    "8_gpus": None,
    **{name: f"pebr_r1_{name}" for name in ("8_gpus_lora", "4_gpus", "4_gpus_lora", "1_gpu_offload", "1_gpu_lora")},
}
#: Of a GPU's memory that may be planned with: sellers' GB are not all there.
USABLE = 0.95
#: What has been run on GPUs, by recipe: where, and what came of it.
RUN: dict[str, str] = {}
#: Begins the line of a recipe's header.
HEADER = "# Memory, estimated: "


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables, or put them into the page; 1 where the page has no place for them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="change docs/recipes.md and the recipes")
    args = parser.parse_args(argv)
    if not args.write:
        sys.stdout.write(make())
        return 0
    for method in METHODS:
        for model in MODELS:
            path = recipe_path(method, model)
            path.write_text(with_header(path.read_text(encoding="utf-8"), header(method, model)), encoding="utf-8")
    PAGE.write_text(insert(PAGE.read_text(encoding="utf-8"), make()), encoding="utf-8")
    return 0


def recipe_path(method: str, model: str) -> Path:
    """Where a recipe lies."""
    return ROOT / "recipes" / model / f"{method}.yaml"


def header(method: str, model: str) -> str:
    """The line of a recipe's header."""
    peak = max(plan.estimate().peak_bytes for plan in plans(method, model, "8_gpus"))
    return f"{HEADER}{peak / GIB:.0f} GiB on each of 8 GPUs of 80; docs/recipes.md has the arithmetic, and other GPUs."


def with_header(text: str, line: str) -> str:
    """A recipe's text with this line as the last of its header."""
    lines = [old for old in text.splitlines() if not old.startswith(HEADER)]
    lines.insert(lines.index(""), line)
    return "\n".join(lines) + "\n"


def insert(page: str, made: str) -> str:
    """The page with what was made between its marks.

    Raises:
        ValueError: the marks are not there.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"The page has no lines {BEGIN!r} and {END!r}: put them where the tables belong.")
    return f"{before}{BEGIN}\n\n{made}\n{END}{after}"


def make() -> str:
    """All tables as Markdown, ending with a newline."""
    lines = [
        "| recipe | " + " | ".join(HARDWARE) + " | status |",
        "|---|" + "---:|" * len(HARDWARE) + "---|",
    ]
    for method in METHODS:
        for model in MODELS:
            cells = [_cell(method, model, name) for name in HARDWARE]
            name = f"{model}/{method}"
            lines.append(f"| `{name}` | {' | '.join(cells)} | {RUN.get(name, 'not run')} |")
    example = plans("racro_cro", "qwen2_5_vl_7b", "8_gpus")[0]
    lines += [
        "",
        "The arithmetic of `qwen2_5_vl_7b/racro_cro` on `8_gpus`, in GiB; `doctor --verbose` prints that of any:",
        "",
        "```",
        example.estimate().table(),
        "```",
        "",
    ]
    return "\n".join(lines)


def plans(method: str, model: str, hardware: str) -> list[Plan]:
    """What trains by reinforcement there: one run, or the stages of a curriculum. Empty where there is no overlay."""
    gpus, gigabytes = HARDWARE[hardware]
    recipe = recipe_path(method, model)
    overlay = ROOT / "recipes" / "hardware" / f"{hardware}.yaml"
    if isinstance(read_files([recipe]).settings.get("stages"), list):
        if hardware not in CURRICULUM_HARDWARE:
            return []
        own = CURRICULUM_HARDWARE[hardware]
        curriculum = read_curriculum([recipe, *([overlay.with_stem(own)] if own else [])])
        return [
            read_plan(_from_root(Recipe({**stage.settings, "model_name_or_path": _model(model)}, recipe)), count, size)
            for stage in curriculum.stages
            if stage.run == "train"
            for count, size in [(stage.processes, gigabytes * GIB)]
        ]
    return [read_plan(_from_root(read_recipe(["--config", str(recipe), str(overlay)])), gpus, gigabytes * GIB)]


def _from_root(recipe: Recipe) -> Recipe:
    """A recipe names DeepSpeed's file from the repository's root, which need not be the current folder."""
    path = recipe.settings.get("deepspeed")
    return Recipe({**recipe.settings, "deepspeed": path and str(ROOT / path)}, recipe.path, recipe.origins)


def _model(model: str) -> str:
    """The hub id that the recipes of a model's folder train."""
    return str(read_files([recipe_path("visionary_r1", model)]).settings["model_name_or_path"])


def _cell(method: str, model: str, hardware: str) -> str:
    """GiB of the peak, struck out where that does not fit; empty without an overlay."""
    found = [(plan, plan.estimate()) for plan in plans(method, model, hardware)]
    if not found:
        return ""
    peak = max(estimate.peak_bytes for _, estimate in found) / GIB
    short = any(estimate.vllm_tokens is not None and estimate.vllm_tokens < plan.longest for plan, estimate in found)
    return f"~~{peak:.0f}~~" if peak > USABLE * HARDWARE[hardware][1] or short else f"{peak:.0f}"


if __name__ == "__main__":
    sys.exit(main())
