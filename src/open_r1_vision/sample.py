# SPDX-License-Identifier: Apache-2.0
"""Draw several samples of each row from a frozen model, to learn how hard the rows are.

    python -m open_r1_vision.sample --config recipes/starter/grpo.yaml --output_dir runs/samples
    torchrun --nproc_per_node=8 -m open_r1_vision.sample --config RECIPE --backend vllm --output_dir runs/samples

The recipe may be that of the training to come: model, rows, prompts, pixels, sampling and limits are read from the
same keys, and a trainer's other keys are ignored. What was not set there is PeBR-R1's: 8 samples at temperature 1.2
and top_p 0.99. A command that was stopped goes on when it is given again, on any number of processes.
"""

import os
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from open_r1_vision.arguments import print_help, read_recipe
from open_r1_vision.distributed import end_with_launcher, finish, is_main_process


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 1 when samples are missing at the end, 2 when nothing could be done."""
    words = sys.argv[1:] if argv is None else list(argv)
    from open_r1_vision.sampling.options import SampleArguments, check_sampling_keys, read_part

    if {"-h", "--help"} & set(words):
        further = "The other keys of a training recipe are allowed, and ignored."
        print_help("open_r1_vision.sample", [SampleArguments], __doc__, further)
        return 0
    try:
        recipe = read_recipe(words)
        check_sampling_keys(recipe)
        options = read_part(recipe, SampleArguments)
        from open_r1_vision.sampling.run import sample_rows

        summary = sample_rows(options, lambda *parts: make_sampler(options, *parts), _say)
    except (ValueError, FileNotFoundError) as error:
        _say(f"error: {error}")
        if not is_main_process():
            # where the main process fails too, torchrun ends this one before it repeats the message
            time.sleep(5)
            sys.stderr.write(f"error in process {os.environ['RANK']}: {error}\n")
        return 2
    if summary is None:
        return 0
    _say(str(summary))
    return 1 if summary.num_missing else 0


def make_sampler(options: Any, model: str | None, processor: Any, most_images: int) -> Any:
    """The sampler of a backend.

    Raises:
        ValueError: it can't be made.
    """
    if options.backend == "endpoint":
        if find_spec("openai") is None:
            raise ValueError(
                "backend is endpoint, which needs the package openai: `pip install open_r1_vision[reasoners]`, or set "
                "backend to transformers or vllm."
            )
        from open_r1_vision.sampling.endpoint import EndpointSampler

        return EndpointSampler(options, model)
    assert model is not None  # options refuse the other backends without one
    if options.backend == "vllm":
        from open_r1_vision.sampling.vllm import VllmSampler

        return VllmSampler(options, model, processor, most_images)
    from open_r1_vision.sampling.seeded import TransformersSampler

    return TransformersSampler(options, model, processor)


def _say(text: str) -> None:
    if is_main_process():
        sys.stderr.flush()
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def run_command_line() -> None:
    """Entry point: a clean end of every process."""
    end_with_launcher()
    code = main()
    if code == 2:
        # others may still wait for this process: torchrun ends them
        raise SystemExit(code)
    finish(code)


if __name__ == "__main__":
    run_command_line()
