# SPDX-License-Identifier: Apache-2.0
"""Options of the caption trainer."""

from dataclasses import dataclass, field

from open_r1_vision.prompts import load_prompt, load_template
from open_r1_vision.trainers.config import VisionGRPOConfig


@dataclass
class CaptionGRPOConfig(VisionGRPOConfig):
    """Options of CaptionGRPOTrainer."""

    _VALID_DICT_FIELDS = [*VisionGRPOConfig._VALID_DICT_FIELDS, "reasoner", "description_judge"]
    _REASONERS = (*VisionGRPOConfig._REASONERS, "reasoner", "description_judge")

    caption_section: str | None = field(
        default="info",
        metadata={"help": "Tag of the caption in a completion; null where the completion is the caption (RACRO)."},
    )
    reasoner: dict | str | None = field(
        default=None,
        metadata={
            "help": "Who reads captions, a block with `kind`, `model`, sampling and budget: see "
            "open_r1_vision.reasoners.config. By default the live policy, greedily (Visionary-R1)."
        },
    )
    reader_prompt: str = field(
        default="caption_reader",
        metadata={"help": "System prompt of the reader of captions: a packaged prompt's name or a text file's path."},
    )
    reader_template: str | None = field(
        default=None,
        metadata={
            "help": "What the reader is asked: a packaged prompt's name or a text file with {caption} and {problem}; "
            "by default the problem and the caption in <info> tags."
        },
    )
    reader_answer: str = field(
        default="short",
        metadata={
            "help": "How the reader answers. short: the whole reply, or the content of answer tags; boxed: the last "
            "\\boxed{} after its thinking."
        },
    )
    reader_max_tokens: int = field(
        default=64,
        metadata={"help": "Most tokens of a reply of the live policy; a `reasoner` has its own max_tokens."},
    )
    description_judge: dict | str | None = field(
        default=None,
        metadata={
            "help": "Who says whether a caption describes at all, a block as `reasoner`; {kind: policy} asks the live "
            "policy (RAPID). caption_reward takes its no_description_penalty off where it does not."
        },
    )
    description_prompt: str = field(
        default="description_judge",
        metadata={"help": "System prompt of the description judge: a packaged prompt's name or a text file's path."},
    )

    def __post_init__(self) -> None:
        if self.reader_max_tokens < 1:
            raise ValueError(
                f"reader_max_tokens is {self.reader_max_tokens}: a reader needs at least 1 token to reply."
            )
        if self.reader_answer not in ("short", "boxed"):
            raise ValueError(f"reader_answer is {self.reader_answer!r}: set it to short or boxed.")
        super().__post_init__()

    def _check_reasoners(self) -> None:
        super()._check_reasoners()
        load_prompt(self.reader_prompt)
        if self.reader_template is not None:
            load_template(self.reader_template, "caption", "problem")
        if self.description_judge is not None:
            load_prompt(self.description_prompt)
