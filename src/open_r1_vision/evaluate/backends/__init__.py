# SPDX-License-Identifier: Apache-2.0
"""Who is evaluated: a model by transformers or vLLM in this process, one behind a server, or RACRO's three steps.

All are samplers, see :class:`open_r1_vision.sampling.draws.Sampler`; the first three are those that draw samples for
difficulty.
"""

from pathlib import Path
from typing import Any

from open_r1_vision.evaluate.options import RunOptions
from open_r1_vision.sampling.draws import Sampler, seed_of


def make_backend(options: RunOptions, most_images: int) -> Sampler:
    """Load the model, or find that its server answers.

    Args:
        options: of the run.
        most_images: of an item.

    Raises:
        ValueError: it can't be loaded, or does not answer.
    """
    from open_r1_vision.sample import make_sampler

    if options.backend == "endpoint":
        return make_sampler(options.draw_arguments(options.model), None, None, most_images)
    from open_r1_vision.models import find_model

    assert options.model is not None  # options refuse to be without one
    folder = find_model(options.model)
    try:
        return _load(options, folder, most_images)
    except (ValueError, OSError) as error:
        if Path(folder).is_dir():
            raise
        reason = str(error.__cause__ or error).splitlines()[0].rstrip(".")
        raise ValueError(
            f"--model is {folder!r}: there is no such folder, and no hub model of that name can be loaded ({reason}). "
            "Give a folder that holds config.json, weights and processor."
        ) from error


def _load(options: RunOptions, folder: str, most_images: int) -> Sampler:
    if options.backend == "three_step":
        from open_r1_vision.evaluate.backends.three_step import ThreeStepBackend

        return ThreeStepBackend(options, folder)
    from open_r1_vision.models import load_processor
    from open_r1_vision.sample import make_sampler

    processor = load_processor(folder, options.min_pixels, options.max_pixels, options.revision)
    arguments = options.draw_arguments(folder)
    if options.calibration > 0:
        from open_r1_vision.evaluate.backends.calibrated import CalibratedSampler

        return CalibratedSampler(arguments, folder, processor, calibration(options))
    return make_sampler(arguments, folder, processor, most_images)


def calibration(options: RunOptions) -> Any:
    """The calibration of a run; of scale 0 where decoding is plain.

    Raises:
        ValueError: settings that can't work.
    """
    from open_r1_vision.decoding import Calibration

    return Calibration(options.calibration, options.plausibility, options.calibration_span)


def seed_of_sample(options: RunOptions, index: str, sample: int) -> int | None:
    """The seed of a sample's record: what its engine gets; None where decoding is greedy, or takes no seed.

    With transformers it is the run's own, which decides a sample together with index and number, see
    :func:`open_r1_vision.sampling.draws.uniforms`.
    """
    if options.backend == "three_step":
        seed = three_step_config(options).seed
        return None if seed is None else seed + sample
    if options.temperature == 0:
        return None
    return options.seed if options.backend == "transformers" else seed_of(options.seed, index, sample)


def three_step_config(options: RunOptions) -> Any:
    """The reasoner of three steps, as :class:`open_r1_vision.reasoners.ReasonerConfig`.

    Raises:
        ValueError: settings that can't work.
    """
    from open_r1_vision.reasoners.config import read_block
    from open_r1_vision.three_step.options import reasoner_config

    assert options.reasoner is not None  # options refuse to be without one
    return reasoner_config(read_block(options.reasoner))


def num_samples(options: RunOptions) -> int:
    """Samples of each item: in three steps the reasoner's `n`."""
    return three_step_config(options).n if options.backend == "three_step" else options.samples


def backend_settings(options: RunOptions) -> dict[str, Any]:
    """What of a backend decides samples, beside model, prompts and data.

    Raises:
        ValueError: settings that can't work.
    """
    if options.backend == "three_step":
        from open_r1_vision.evaluate.backends.three_step import step_options
        from open_r1_vision.three_step.options import reasoner_settings

        steps = {f"steps.{name}": value for name, value in step_options(options).settings().items()}
        return {**steps, **reasoner_settings(three_step_config(options))}
    names = ("temperature", "top_p", "max_tokens", "stop_token", "seed", "dtype", "attn_implementation")
    settings = {name: getattr(options, name) for name in names}
    if options.temperature == 0:
        # neither has an effect on greedy decoding
        settings |= {"top_p": None, "seed": None}
    if options.backend == "transformers":
        how = calibration(options)
        settings |= {"calibration": how.scale, "calibration_span": how.span, "plausibility": how.plausibility}
    if options.backend == "endpoint":
        settings["extra_body"] = options.draw_arguments(options.model).endpoint_config().extra_body
    return settings
