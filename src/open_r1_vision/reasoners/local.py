# SPDX-License-Identifier: Apache-2.0
"""A frozen model in this process: any causal language model's folder, in batches."""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import AutoConfig, AutoTokenizer

from open_r1_vision.models import find_model
from open_r1_vision.reasoners.backends import Backend, TransformersBackend, VllmBackend
from open_r1_vision.reasoners.config import ReasonerConfig
from open_r1_vision.reasoners.interface import Chat, Deferred, Failure, Outcome, Pending, Read, Reply
from open_r1_vision.reasoners.records import Question, Records, by_chat, shared

logger = logging.getLogger(__name__)


class LocalReasoner:
    """A model that each process holds for itself. It replies when the result is awaited, in the thread that awaits.

    Of a vision-language model the language part is asked. Sampling has random numbers of its own: those that training
    draws stay what they would be without it.

    Args:
        config: of kind `local`.

    Raises:
        ValueError: the folder holds no model, no tokenizer or no chat template, or there is no room for a reply.
    """

    in_step = False

    def __init__(self, config: ReasonerConfig) -> None:
        self.config = config
        self.records = Records(config)
        folder = find_model(str(config.model))
        try:
            model_config = AutoConfig.from_pretrained(folder)
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side="left")
        except (OSError, ValueError) as error:
            raise ValueError(
                f"No model and tokenizer could be loaded from {config.model!r} ({error}). Set the reasoner's `model` "
                "to a complete folder or to a hub id that can be reached."
            ) from error
        if not self._tokenizer.chat_template:
            raise ValueError(
                f"The tokenizer of {config.model!r} has no chat template, so a reasoner can't be asked in chats: set "
                "`model` to an instruction-tuned model."
            )
        limit = getattr(model_config.get_text_config(), "max_position_embeddings", None)
        self._context = config.context_tokens or limit or config.max_tokens + 8192
        if self._context <= config.max_tokens:
            raise ValueError(
                f"max_tokens is {config.max_tokens}, but {config.model!r} has room for {self._context} tokens of "
                "prompt and reply together: lower max_tokens, or raise context_tokens if it is set."
            )
        backend = VllmBackend if config.backend == "vllm" else TransformersBackend
        self._backend: Backend = backend(config, folder, self._tokenizer, self._context)

    def submit(
        self, chats: Sequence[Chat], *, read: Read | None = None, tags: Sequence[Mapping[str, Any]] | None = None
    ) -> Pending:
        """See :class:`open_r1_vision.reasoners.interface.Reasoner`."""
        questions = self.records.questions(chats, tags)
        return Deferred(lambda: self._reply(questions, read))

    def check(self) -> None:
        """See :class:`open_r1_vision.reasoners.interface.Reasoner`. It is loaded, so that it can reply."""

    def pop_stats(self) -> dict[str, float]:
        """See :class:`open_r1_vision.reasoners.interface.Reasoner`."""
        return self.records.pop_stats()

    def close(self) -> None:
        """See :class:`open_r1_vision.reasoners.interface.Reasoner`. The model stays."""
        self.records.close()

    def _reply(self, questions: Sequence[Question], read: Read | None) -> list[list[Outcome]]:
        outcomes = self.records.find(questions, read)
        missing = [index for index in range(len(questions)) if index not in outcomes]
        groups = self.records.groups([questions[index] for index in missing])
        replies = self._generate([questions[missing[places[0]]] for places in groups]) if groups else []
        for places, reply in zip(groups, replies, strict=True):
            outcome = self.records.judge(reply, read) if isinstance(reply, Reply) else reply
            for place in places:
                index = missing[place]
                outcomes[index] = outcome if place == places[0] else shared(outcome)
                self.records.settle(questions[index], outcomes[index])
        self.records.flush()
        return by_chat([outcomes[index] for index in range(len(questions))], self.config.n)

    def _generate(self, questions: Sequence[Question]) -> list[Outcome]:
        """An outcome for each question."""
        start = time.monotonic()
        prompts = self._tokenizer.apply_chat_template(
            [question.messages for question in questions],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            **(self.config.chat_template_kwargs or {}),
        )["input_ids"]
        room = self._context - self.config.max_tokens
        outcomes: dict[int, Outcome] = {
            index: Failure("too_long", f"the prompt has {len(ids)} tokens, but there is room for {room}")
            for index, ids in enumerate(prompts)
            if len(ids) > room
        }
        fitting = [index for index in range(len(prompts)) if index not in outcomes]
        texts = self._backend.generate([prompts[index] for index in fitting], start + self.config.batch_seconds)
        for index, text in zip(fitting, texts, strict=True):
            if text is None:
                limit = f"batch_seconds {self.config.batch_seconds:g} were over before its turn"
                outcomes[index] = Failure("deadline", limit)
            else:
                outcomes[index] = Reply(*text, seconds=time.monotonic() - start)
        return [outcomes[index] for index in range(len(prompts))]
