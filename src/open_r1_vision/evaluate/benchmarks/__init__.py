# SPDX-License-Identifier: Apache-2.0
"""Benchmarks by name. Each has a small file that says how it asks, reads answers, scores, and sums up."""

import difflib
import importlib

from open_r1_vision.evaluate.items import Benchmark

#: The file of each benchmark. A name that ends in `_cot` asks for reasoning first.
FILES = {
    "mathvista": "mathvista",
    "mathvision": "mathvision",
    "mathverse": "mathverse",
    "mathverse_cot": "mathverse",
    "mmstar": "mmstar",
    "mmbench": "mmbench",
    "mmmu": "mmmu",
    "mmmu_pro_10c": "mmmu_pro",
    "mmmu_pro_10c_cot": "mmmu_pro",
    "mmmu_pro_vision": "mmmu_pro",
    "mmmu_pro_vision_cot": "mmmu_pro",
    "wemath": "wemath",
    "wemath_cot": "wemath",
    "dynamath": "dynamath",
    "dynamath_noprompt": "dynamath",
    "logicvista": "logicvista",
    "emma": "emma",
    "emma_cot": "emma",
    "geo170k_754": "geo170k",
    "starter_digits": "starter",
    "starter_figures": "starter",
    "rows": "rows",
}


def names() -> list[str]:
    """The benchmarks that there are."""
    return list(FILES)


def find(name: str) -> Benchmark:
    """A benchmark by its name, or by the one that VLMEvalKit gives its data.

    Raises:
        ValueError: there is none of this name.
    """
    if name in FILES:
        return _benchmarks(FILES[name])[name]
    for file in dict.fromkeys(FILES.values()):
        for benchmark in _benchmarks(file).values():
            if name in getattr(benchmark, "kit_names", ()):
                return benchmark
    near = difflib.get_close_matches(name.lower(), FILES, 1)
    raise ValueError(
        f"There is no benchmark {name!r}{f', did you mean {near[0]!r}?' if near else '.'} Choose one of "
        f"{', '.join(FILES)}."
    )


def _benchmarks(file: str) -> dict[str, Benchmark]:
    module = importlib.import_module(f"{__name__}.{file}")
    return {benchmark.name: benchmark for benchmark in module.BENCHMARKS}
