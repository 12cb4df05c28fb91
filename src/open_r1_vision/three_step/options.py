# SPDX-License-Identifier: Apache-2.0
"""What each of the three steps is told, how long it may write, and how the answer is read."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from open_r1_vision.prompts import load_prompt, load_template
from open_r1_vision.reasoners.config import DECIDING, ReasonerConfig
from open_r1_vision.rewards.answers import check_answer_form

#: What a mapping that names none of a group's settings gets: the paper's sampling, and time for replies so long.
_LENGTH: dict[str, Any] = {"max_tokens": 8192}
_SAMPLING: dict[str, Any] = {"temperature": 0.6, "top_p": 0.95}
_TIME: dict[str, Any] = {"request_seconds": 600.0, "batch_seconds": 3600.0}


@dataclass(frozen=True)
class StepOptions:
    """The three steps. Prompts are names of packaged ones or text files.

    Raises:
        ValueError: a prompt that is not there or lacks a placeholder, or a value that can't work.
    """

    tentative: bool = field(
        default=True, metadata={"help": "Step 1; without it the reasoner gets caption and question only."}
    )
    answer_prompt: str | None = field(
        default="boxed_answer", metadata={"help": "Step 1, user: {problem}. None is the problem alone."}
    )
    answer_system_prompt: str | None = field(default="assistant", metadata={"help": "Step 1, system."})
    answer_max_tokens: int = field(
        default=4096, metadata={"help": "Step 1: most tokens. RACRO's authors 8192, later 4096."}
    )
    caption_prompt: str | None = field(
        default="racro_caption_question", metadata={"help": "Step 2, user: {problem}. None is the problem alone."}
    )
    caption_system_prompt: str | None = field(default="racro_caption", metadata={"help": "Step 2, system."})
    caption_max_tokens: int = field(default=4096, metadata={"help": "Step 2: most tokens."})
    caption_section: str | None = field(
        default=None,
        metadata={"help": "The caption is this tag's content, such as info; by default the whole reply of step 2."},
    )
    reasoner_prompt: str | None = field(
        default=None,
        metadata={
            "help": "Step 3, user: {caption}, {problem} and, with step 1, {response}. By default racro_joint, or "
            "racro_reader without step 1."
        },
    )
    reasoner_system_prompt: str | None = field(default="assistant", metadata={"help": "Step 3, system."})
    text_only_prompt: str | None = field(
        default="racro_text_only", metadata={"help": "Step 3 of a row without images, user: {problem}."}
    )
    answer_form: str = field(
        default="boxed",
        metadata={
            "help": r"Where the reasoner's answer stands: boxed (\boxed{}), tags (<answer>), or sections (### The "
            "final answer is:)."
        },
    )

    def __post_init__(self) -> None:
        check_answer_form(self.answer_form)
        for name in ("answer_max_tokens", "caption_max_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: set at least 1 token.")
        self.texts()

    def texts(self) -> dict[str, str]:
        """The text of each prompt by the name of its option; an option that is None has an empty one."""
        response = ("response",) if self.tentative else ()
        reasoner_prompt = self.reasoner_prompt or ("racro_joint" if self.tentative else "racro_reader")
        texts = {
            "reasoner_prompt": load_template(reasoner_prompt, "caption", "problem", *response),
            **{
                name: load_template(getattr(self, name), "problem") if getattr(self, name) else ""
                for name in ("answer_prompt", "caption_prompt", "text_only_prompt")
            },
            **{
                name: load_prompt(getattr(self, name)) if getattr(self, name) else ""
                for name in ("answer_system_prompt", "caption_system_prompt", "reasoner_system_prompt")
            },
        }
        if not self.tentative and "{response}" in texts["reasoner_prompt"]:
            raise ValueError(
                f"reasoner_prompt is {reasoner_prompt!r}, which has a {{response}}, but without step 1 there is none: "
                "name a prompt without it, or leave tentative on."
            )
        return texts

    def settings(self) -> dict[str, Any]:
        """What decides the results, with the prompts' texts in place of their names."""
        return {**asdict(self), **self.texts()}


def reasoner_config(reasoner: Mapping[str, Any] | ReasonerConfig) -> ReasonerConfig:
    """The reasoner's config. A mapping gets the paper's settings for what it leaves open.

    These are 8192 tokens, and for a local model or a server temperature 0.6 with top_p 0.95 and limits of time to
    match: :class:`ReasonerConfig`'s own defaults are for short readings in training.

    Raises:
        ValueError: settings that can't work.
    """
    if not isinstance(reasoner, ReasonerConfig):
        groups = [_LENGTH] if reasoner.get("kind", "policy") == "policy" else [_LENGTH, _SAMPLING, _TIME]
        defaults = {name: group[name] for group in groups if not group.keys() & reasoner.keys() for name in group}
        reasoner = ReasonerConfig.from_mapping({**defaults, **reasoner})
    check_reasoner_config(reasoner)
    return reasoner


def check_reasoner_config(config: ReasonerConfig) -> None:
    """Refuse a reasoner that replies in JSON.

    Raises:
        ValueError: it does.
    """
    if config.response_schema is not None:
        raise ValueError(
            "The reasoner has a response_schema, but here it thinks in free text and its answer is read by "
            "answer_form: leave response_schema out."
        )


def reasoner_settings(config: ReasonerConfig) -> dict[str, Any]:
    """What of a reasoner decides its replies."""
    return {f"reasoner.{name}": getattr(config, name) for name in DECIDING}
