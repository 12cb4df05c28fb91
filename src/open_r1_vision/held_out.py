# SPDX-License-Identifier: Apache-2.0
"""Held-out evaluation: greedy answers, and what a reader makes of the captions in them."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl.data_utils import prepare_multimodal_messages

from open_r1_vision.files import write_whole
from open_r1_vision.reasoners.captions import CaptionReader
from open_r1_vision.rewards.answers import extract_answer, score_answer
from open_r1_vision.rewards.headers import extract_description
from open_r1_vision.rewards.tags import extract_caption
from open_r1_vision.run_log import HELD_OUT
from open_r1_vision.trainers.base import VisionGRPOTrainer
from open_r1_vision.trainers.judging import FactJudging

#: Chats with their images, and a limit of new tokens, to replies.
Generate = Callable[[list[list[dict]], int], list[str]]
#: Completions and their rows to the share of the rows' facts that they state; None where there is none.
ScoreFacts = Callable[[list[str], list[dict]], list[float | None]]

#: Measures of a sample, in the order of the report, and what they are called there.
MEASURES = {
    "accuracy": "accuracy",
    "reader_accuracy": "accuracy of the answer read from the caption alone",
    "caption_exact": "caption exactness",
    "facts_stated": "all visual facts stated",
}


@dataclass(frozen=True)
class Sample:
    """One held-out row, answered greedily. Scores are in [0, 1]; None where a measure doesn't apply, or where the
    reader of the caption failed.
    """

    id: str
    completion: str
    accuracy: float | None
    caption: str | None
    reader_reply: str | None
    reader_accuracy: float | None
    caption_exact: float | None
    facts_stated: float | None = None


def scores_of(samples: Sequence[Sample], measure: str) -> list[float]:
    """The scores of a measure, of the samples that it applies to."""
    return [score for sample in samples if (score := getattr(sample, measure)) is not None]


def shares_of(samples: Sequence[Sample]) -> dict[str, float]:
    """The share of full marks by measure, without those that apply to no sample."""
    scores = {name: scores_of(samples, name) for name in MEASURES}
    return {name: sum(score >= 1 for score in of_one) / len(of_one) for name, of_one in scores.items() if of_one}


def evaluate(
    generate: Generate,
    rows: Dataset,
    *,
    reader: CaptionReader | None = None,
    max_new_tokens: int,
    batch_size: int = 128,
    answer_form: str | None = "tags",
    find_caption: Callable[[str], str | None] = extract_caption,
    score_facts: ScoreFacts | None = None,
) -> list[Sample]:
    """Answer each row once, greedily.

    Under several processes all must call it; they share the rows, and each gets all samples, in the order of the rows.

    Args:
        generate: turns chats with images in them, and a limit of new tokens, into greedy replies.
        rows: rows with a `prompt`; where they have a reference `caption`, captions are compared with it word by word.
        reader: reads the captions; None leaves `reader_accuracy` out.
        max_new_tokens: limit of a completion.
        batch_size: rows that one process generates for at a time.
        answer_form: where a completion gives its answer, see `rewards.answers`; None where it is only a caption.
        find_caption: the caption of a completion.
        score_facts: see :func:`facts_scorer`; None leaves `facts_stated` out.
    """
    state = PartialState()
    rank, world = state.process_index, state.num_processes
    samples: list[Sample] = []
    for start in range(0, len(rows), batch_size * world):
        indices = list(range(start, min(start + batch_size * world, len(rows))))
        # under ZeRO-3 all processes generate equally often, so a short last batch is filled up with its first row
        padded = indices + [indices[0]] * (-len(indices) % world)
        batch = [rows[index] for index in padded[rank::world]]
        answered = _answer(generate, batch, reader, max_new_tokens, answer_form, find_caption, score_facts)
        samples_by_rank = gather_object([answered])
        samples += [sample for group in zip(*samples_by_rank, strict=True) for sample in group][: len(indices)]
    return samples


def _answer(
    generate: Generate,
    batch: list[dict],
    reader: CaptionReader | None,
    max_new_tokens: int,
    answer_form: str | None,
    find_caption: Callable[[str], str | None],
    score_facts: ScoreFacts | None,
) -> list[Sample]:
    prompts = [prepare_multimodal_messages(row["prompt"], images=row["images"]) for row in batch]
    completions = generate(prompts, max_new_tokens)
    captions = [find_caption(completion) for completion in completions]
    readings = reader.read(captions, [row["problem"] for row in batch]) if reader else [None] * len(batch)
    facts = [None] * len(batch) if score_facts is None else score_facts(completions, batch)
    samples = []
    for row, completion, caption, reading, stated in zip(batch, completions, captions, readings, facts, strict=True):
        gold, kind, problem = row["solution"], row["problem_type"], row["problem"]
        reference = row.get("caption")
        answer = extract_answer(completion, answer_form) if answer_form else None
        read = reading if reading is not None and reading.failure is None else None
        samples.append(
            Sample(
                id=row["id"],
                completion=completion,
                accuracy=score_answer(answer, gold, kind, problem=problem) if answer_form else None,
                caption=caption,
                reader_reply=reading.reply if reading else None,
                reader_accuracy=fmean(score_answer(one, gold, kind, problem=problem) for one in read.answers)
                if read
                else None,
                caption_exact=None if reference is None else float((caption or "").split() == reference.split()),
                facts_stated=stated,
            )
        )
    return samples


def caption_finder(answer_form: str | None) -> Callable[[str], str | None]:
    """Where completions describe their image, by the form in which they give their answer.

    Under `###` headers it is the image description, otherwise what stands in `<info>`.
    """
    return extract_description if answer_form == "sections" else extract_caption


def facts_scorer(reward: Callable[..., list[float | None]], judging: FactJudging | None = None) -> ScoreFacts:
    """Score facts as training does: by the recipe's `visual_facts_reward`, with its judge if it has one.

    Args:
        reward: `visual_facts_reward`, with its settings.
        judging: the trainer's; None lets the reward's rule judge.
    """

    def score(completions: list[str], rows: list[dict]) -> list[float | None]:
        columns = {name: [row.get(name) for row in rows] for name in ("visual_facts", "problem")}
        if judging is not None:
            columns |= judging.start(rows, [""] * len(rows), completions)().columns
        return reward(completions, **columns)

    return score


class HeldOutEvaluation(TrainerCallback):
    """Evaluate held-out rows before the first step, every so many steps, and after the last.

    The samples of each evaluation go to `evaluations/step_00000.jsonl` in the output folder, where a resumed run finds
    those of its first part; the shares of full marks are logged as `held_out/accuracy` and so on, for each measure
    that applies.

    Args:
        trainer: see :func:`evaluate`.
        rows: see :func:`evaluate`.
        every: steps between evaluations; None evaluates before and after only.
        answer_form: see :func:`evaluate`.
        score_facts: see :func:`evaluate`.
    """

    def __init__(
        self,
        trainer: VisionGRPOTrainer,
        rows: Dataset,
        every: int | None = None,
        answer_form: str | None = "tags",
        score_facts: ScoreFacts | None = None,
    ) -> None:
        self.trainer = trainer
        self.rows = rows
        self.every = every
        self.answer_form = answer_form
        self.score_facts = score_facts
        self.reader: CaptionReader | None = getattr(trainer, "reader", None)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step == 0:
            self._evaluate(state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        step = state.global_step
        if step == state.max_steps or (self.every is not None and step % self.every == 0):
            self._evaluate(step)

    def _evaluate(self, step: int) -> None:
        trainer: Any = self.trainer
        was_training = trainer.model.training
        trainer.model.eval()
        samples = evaluate(
            trainer.generate_greedy,
            self.rows,
            reader=self.reader,
            max_new_tokens=trainer.max_completion_length,
            batch_size=trainer.args.per_device_eval_batch_size,
            answer_form=self.answer_form,
            find_caption=getattr(trainer, "extract_caption", None) or caption_finder(self.answer_form),
            score_facts=self.score_facts,
        )
        trainer.model.train(was_training)
        if self.trainer.accelerator.is_main_process:
            write_samples(Path(trainer.args.output_dir), step, samples)
        trainer.log_apart({HELD_OUT + name: share for name, share in shares_of(samples).items()})


def write_samples(output_dir: Path, step: int, samples: list[Sample]) -> None:
    """Write the samples of an evaluation, whole or not at all."""
    path = output_dir / "evaluations" / f"step_{step:05d}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, "".join(json.dumps(asdict(sample)) + "\n" for sample in samples))


def read_evaluations(output_dir: Path) -> dict[int, list[Sample]]:
    """The evaluations of a run by step, in order."""
    paths = sorted((output_dir / "evaluations").glob("step_*.jsonl"))
    return {
        int(path.stem.removeprefix("step_")): [
            Sample(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()
        ]
        for path in paths
    }
