# SPDX-License-Identifier: Apache-2.0
"""CaptionGRPOTrainer: captions that are worth reading (Visionary-R1, RACRO)."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any, ClassVar

from transformers import PreTrainedModel

from open_r1_vision.prompts import load_prompt, load_template
from open_r1_vision.reasoners import Reasoner, ReasonerConfig, TextReader
from open_r1_vision.reasoners.captions import (
    CaptionReader,
    parse_boxed,
    parse_reply,
    reader_messages,
    template_messages,
)
from open_r1_vision.reasoners.descriptions import DescriptionJudge
from open_r1_vision.rewards.answers import score_answers
from open_r1_vision.rewards.tags import extract_section
from open_r1_vision.trainers.base import VisionGRPOTrainer
from open_r1_vision.trainers.caption_config import CaptionGRPOConfig
from open_r1_vision.trainers.consulting import Findings, usage
from open_r1_vision.trainers.judging import DescriptionJudging


class CaptionGRPOTrainer(VisionGRPOTrainer):
    """Caption-GRPO: a reader answers the question from the caption alone, and the caption is paid by that answer.

    In Visionary-R1 (arXiv 2505.14677) a completion describes the image in `<info>` tags, reasons and answers, and the
    live policy reads; `open_r1_vision.rewards.caption_reward` keeps it from leaving the image out. With the rewards
    accuracy, format and caption, `reward_weights=[1.0, 1.0, 0.1]` is the paper's equation 1.

    In RACRO (arXiv 2506.04559, caption reward optimisation) the completion is nothing but a caption
    (`caption_section=None`), a frozen text model reads (`reasoner`), and the caption reward is the only one.

    Args:
        reader: whoever reads the captions, see :class:`open_r1_vision.reasoners.captions.CaptionReader`; by default
            what `args.reasoner` says, or else the live policy. All other arguments are VisionGRPOTrainer's. Rows need
            `problem`, `solution` and `problem_type` beside `prompt`.

    Every row that reaches a reward function also has `caption` (None where the completion has none) and
    `caption_answer` (None where there is no answer, or the reader found that the caption is not a description; a list
    where a reasoner reads several times); with `description_judge` also `has_description`. Rewards that take
    `caption_answer` or `has_description` as a parameter follow the reasoner's failure policy.

    Overrides nothing.
    """

    _tag_names = ["trl", "grpo", "caption-grpo", "open_r1_vision"]
    _name = "CaptionGRPO"
    _paper = {
        "title": "Visionary-R1: Mitigating Shortcuts in Visual Reasoning with Reinforcement Learning",
        "id": "2505.14677",
    }

    config_class: ClassVar[type[CaptionGRPOConfig]] = CaptionGRPOConfig
    required_columns = ("images", "problem", "solution", "problem_type")
    args: CaptionGRPOConfig

    def __init__(
        self,
        model: str | PreTrainedModel,
        reward_funcs: Any = None,
        args: CaptionGRPOConfig | None = None,
        *rest: Any,
        reader: CaptionReader | None = None,
        **kwargs: Any,
    ) -> None:
        args = args or self.config_class(output_dir="runs/caption_grpo")
        super().__init__(model, reward_funcs, args, *rest, **kwargs)
        config = args.reasoners.get("reasoner") or ReasonerConfig(max_tokens=args.reader_max_tokens)
        self.reader: CaptionReader = reader or build_reader(
            self.build_reasoner(config), args.reader_prompt, args.reader_template, args.reader_answer
        )
        self.verdicts.add(Reading(self, config))
        judge_block = args.reasoners.get("description_judge")
        if judge_block is not None:
            judge = DescriptionJudge(self.build_reasoner(judge_block), load_prompt(args.description_prompt))
            self.verdicts.add(DescriptionJudging(judge, self.extract_caption), "description_judge")

    def extract_caption(self, text: str) -> str | None:
        """The caption of a completion, stripped; None where it has none."""
        section = self.args.caption_section
        return extract_section(text, section) if section else text.strip() or None


def build_reader(reasoner: Reasoner, prompt: str, template: str | None = None, answer: str = "short") -> TextReader:
    """A reader of captions, set up as the options of CaptionGRPOConfig say.

    Args:
        reasoner: whoever reads.
        prompt: `reader_prompt`.
        template: `reader_template`.
        answer: `reader_answer`.
    """
    return TextReader(
        reasoner,
        load_prompt(prompt),
        messages=template_messages(load_template(template, "caption", "problem")) if template else reader_messages,
        parse=parse_boxed if answer == "boxed" else parse_reply,
        cut_replies_count=answer != "boxed",
    )


class Reading:
    """What a reader makes of captions: the columns `caption` and `caption_answer`.

    Args:
        trainer: its `reader` reads, its `extract_caption` finds captions.
        config: how failures are dealt with.
    """

    name, activity, column = "reader", "reading", "caption_answer"

    def __init__(self, trainer: CaptionGRPOTrainer, config: ReasonerConfig) -> None:
        self._trainer = trainer
        self.config = config

    def start(
        self, rows: Sequence[Mapping[str, Any]], starts: Sequence[str], texts: Sequence[str]
    ) -> Callable[[], Findings]:
        """See :class:`open_r1_vision.trainers.consulting.Consultation`."""
        reader = self._trainer.reader
        # a hint may begin the caption, see HintCaptionGRPOTrainer
        captions = [self._trainer.extract_caption(start + text) for start, text in zip(starts, texts, strict=True)]
        problems = [row["problem"] for row in rows]
        # a reader of the user's own may know no more than to read
        pending = (
            reader.start(captions, problems, [{"id": row.get("id")} for row in rows])
            if isinstance(reader, TextReader)
            else None
        )

        def finish() -> Findings:
            readings = pending.result() if pending else reader.read(captions, problems)
            if len(readings) != len(captions):
                raise ValueError(
                    f"{type(reader).__name__}.read returned {len(readings)} readings for {len(captions)} captions: "
                    "it must return one for each, in the same order."
                )
            stats = usage("reader", reader.reasoner) if isinstance(reader, TextReader) else {}
            return _describe(rows, captions, readings, pending.seconds if pending else 0.0, stats)

        return finish


def _describe(
    rows: Sequence[Mapping[str, Any]], captions: list, readings: list, seconds: float, stats: dict[str, list[float]]
) -> Findings:
    scores: list[float] = []
    for row, reading in zip(rows, readings, strict=True):
        if reading.failure is None and row["solution"] is not None:
            count = len(reading.answers)
            columns = ([row[name]] * count for name in ("solution", "problem_type", "problem"))
            scores.append(fmean(score for score in score_answers(reading.answers, *columns) if score is not None))
    answers = [reading.answers if reading.further else reading.answer for reading in readings]
    read = [reading for reading in readings if reading.failure is None]
    return Findings(
        columns={"caption": captions, "caption_answer": answers},
        asked=[caption is not None for caption in captions],
        failures=[reading.failure for reading in readings],
        metrics={
            **stats,
            "reader/accuracy": scores,
            "reader/not_a_description": [float(not reading.is_description) for reading in read],
            "reader/no_answer": [
                float(reading.answer is None)
                for reading, caption in zip(readings, captions, strict=True)
                if reading.failure is None and caption is not None
            ],
            "captions/missing": [float(caption is None) for caption in captions],
        },
        logged={
            "caption": captions,
            "reader_reply": [
                "\n---\n".join([reading.reply, *(r.reply for r in reading.further)]) for reading in readings
            ],
            "caption_answer": [_shown(reading.answers) for reading in readings],
        },
        seconds=seconds,
    )


def _shown(answers: list[str | None]) -> str | None:
    """Answers as one text for the completions' table."""
    return None if answers == [None] else " | ".join(str(answer) for answer in answers)
