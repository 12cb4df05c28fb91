# SPDX-License-Identifier: Apache-2.0
"""RACRO's three steps as a backend: a vision-language model describes, a text model answers from what it wrote."""

from collections.abc import Callable, Sequence, Set
from dataclasses import fields
from typing import Any

from open_r1_vision.data.images import encode_images
from open_r1_vision.data.rows import IMAGE_MARKER
from open_r1_vision.evaluate.backends import three_step_config
from open_r1_vision.evaluate.options import RunOptions
from open_r1_vision.reasoners import Reply, build_reasoner
from open_r1_vision.reasoners.config import read_block
from open_r1_vision.sampling.draws import Draw, Prompt
from open_r1_vision.three_step import StepOptions, ThreeStep


def step_options(options: RunOptions) -> StepOptions:
    """Prompts and limits of the steps.

    Raises:
        ValueError: one that the steps don't have, or that can't work.
    """
    given = read_block(options.steps, "steps") if options.steps else {}
    known = [item.name for item in fields(StepOptions)]
    if unknown := [name for name in given if name not in known]:
        raise ValueError(f"--steps has {', '.join(map(repr, unknown))}, but the steps have {', '.join(known)}.")
    return StepOptions(**given)


class ThreeStepBackend:
    """Samples are the reasoner's `n` replies, from one caption and one tentative response, both greedy.

    An item's question is the text that the benchmark, in its prompt style, puts to a model; the prompts of the steps
    stand around it.

    Args:
        options: of the run.
        folder: of the vision-language model.

    Raises:
        ValueError: a model that can't be loaded, or a reasoner that does not answer.
    """

    def __init__(self, options: RunOptions, folder: str) -> None:
        from open_r1_vision.generation import GreedyGenerator

        config = three_step_config(options)
        generate = GreedyGenerator(
            folder,
            min_pixels=options.min_pixels,
            max_pixels=options.max_pixels,
            revision=options.revision,
        )
        reasoner = build_reasoner(config, generate=generate if config.kind == "policy" else None)
        steps = step_options(options)
        given: dict[str, Any] = {item.name: getattr(steps, item.name) for item in fields(StepOptions)}
        self._steps = ThreeStep(generate, reasoner, **given)
        # a server works on a batch while the next one's captions are written
        self.num_ahead = 1 if config.kind == "endpoint" else 0

    def start(self, prompts: Sequence[Prompt], wanted: Set[tuple[str, int]]) -> Callable[[], list[Draw]]:
        """See :class:`open_r1_vision.sampling.draws.Sampler`. Steps 1 and 2 are done now."""
        rows = [
            {"id": prompt.id, "problem": question_of(prompt.chat), "images": encode_images(prompt.images, ".")}
            for prompt in prompts
        ]
        batch = self._steps.start(rows)

        def finish() -> list[Draw]:
            outcomes = iter(batch.pending.result() if batch.pending else [])
            draws = []
            for draft in batch.drafts:
                if draft.failure:
                    count = self._steps.reasoner.config.n
                    draws += [Draw(draft.id, sample, None, failure=draft.failure) for sample in range(count)]
                else:
                    draws += [_draw(draft.id, sample, one) for sample, one in enumerate(next(outcomes))]
            return draws

        return finish

    def close(self) -> None:
        """See :class:`open_r1_vision.sampling.draws.Sampler`."""
        self._steps.close()


def question_of(chat: Sequence[dict[str, Any]]) -> str:
    """The text of a chat's user, with image markers where images stand behind text; a system message is left out."""
    parts = [part for message in chat if message["role"] == "user" for part in _parts(message["content"])]
    kinds = [part["type"] for part in parts]
    first_text = kinds.index("text") if "text" in kinds else len(kinds)
    marker = IMAGE_MARKER if "image" in kinds[first_text:] else ""
    # a marker in the text itself stands for no image
    return "".join(part["text"].replace(IMAGE_MARKER, "") if part["type"] == "text" else marker for part in parts)


def _parts(content: Any) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


def _draw(row_id: str, sample: int, outcome: Any) -> Draw:
    if isinstance(outcome, Reply):
        ended = "length" if outcome.finish_reason == "length" else "stop"
        return Draw(row_id, sample, outcome.text, outcome.num_tokens, ended)
    return Draw(row_id, sample, None, failure=str(outcome))
