# SPDX-License-Identifier: Apache-2.0
"""The three steps, for one question or for a data set."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from datasets import Dataset
from tqdm import tqdm

from open_r1_vision.data.images import ImageLimits, encode_images, open_images
from open_r1_vision.data.rows import count_images, to_messages
from open_r1_vision.prompts import fill_prompt
from open_r1_vision.reasoners import Failure, Outcome, Pending, Reasoner, ReasonerConfig, Reply, build_reasoner
from open_r1_vision.reasoners.captions import SHORT_ANSWER_PHRASE, plain_problem
from open_r1_vision.rewards.answers import extract_answer, score_answer
from open_r1_vision.rewards.tags import extract_section
from open_r1_vision.three_step.options import StepOptions, check_reasoner_config, reasoner_config, reasoner_settings
from open_r1_vision.three_step.results import Result, ResultFile, Summary, majority, read_results, summarise
from open_r1_vision.three_step.table import as_table, batches, check_problems, check_rows

#: Chats with their images, and a limit of new tokens, to replies.
Generate = Callable[[list[list[dict]], int], list[str]]

#: Nothing is trained on these images: what can be opened is looked at.
_LIMITS = ImageLimits(min_side=1)


class ThreeStep:
    """RACRO's inference (arXiv 2506.04559): tentative response, caption, and a reasoner that reads both.

    1. The vision-language model answers the question, thinking step by step.
    2. It describes the image with the question in mind, without answering it.
    3. A reasoner, which does not see the image, answers from caption, question and tentative response. It may be any
       text model: another one can take its place without training anything anew.

    Of a question without images only step 3 is done, with the question alone.

    Args:
        model: folder, hub id or dotted path of the vision-language model (see
            :func:`open_r1_vision.models.find_model`), or something that turns chats and a limit of new tokens into
            greedy replies, such as :class:`open_r1_vision.generation.GreedyGenerator`. None where steps 1 and 2 are
            never done here. It is loaded when it is first needed, as the reasoner is.
        reasoner: a reasoner, its config, or its config as a mapping, where the paper's settings fill what is left
            open (see :func:`open_r1_vision.three_step.options.reasoner_config`). Kind `policy` asks `model`.
        device: where the model runs; by default a GPU where there is one.
        options: fields of :class:`open_r1_vision.three_step.options.StepOptions`.

    Raises:
        ValueError: options or settings that can't work.
    """

    def __init__(
        self,
        model: str | Generate | None,
        reasoner: Mapping[str, Any] | ReasonerConfig | Reasoner,
        *,
        device: str | None = None,
        **options: Any,
    ) -> None:
        self.options = StepOptions(**options)
        self._texts = self.options.texts()
        self._model = model
        self._device = device
        if isinstance(reasoner, (Mapping, ReasonerConfig)):
            self._config = reasoner_config(reasoner)
        else:
            check_reasoner_config(reasoner.config)
            self._config = reasoner.config
            self.reasoner = reasoner
        if model is None and self._config.kind == "policy":
            raise ValueError("The reasoner's kind is policy, which asks the model, but there is none: give a model.")

    @cached_property
    def generate(self) -> Generate:
        """The vision-language model, loaded now if it was not.

        Raises:
            ValueError: there is none, or it can't be loaded.
        """
        if self._model is None:
            raise ValueError("Steps 1 and 2 need a vision-language model, but there is none: give a model.")
        if not isinstance(self._model, str):
            return self._model
        from open_r1_vision.generation import GreedyGenerator

        return GreedyGenerator(self._model, self._device)

    @cached_property
    def reasoner(self) -> Reasoner:
        """The reasoner, loaded now, or found to answer, if it was not.

        Raises:
            ValueError: it can't be loaded, or does not answer.
        """
        generate = self.generate if self._config.kind == "policy" else None
        return build_reasoner(self._config, generate=generate)

    def ask(self, problem: str, images: Any = None, problem_type: str | None = None) -> Result:
        """Answer one question.

        Args:
            problem: the question; may hold one `<image>` marker for each image.
            images: an image or a list of them, each as a PIL image, an array, bytes, a path or a `data:` URL; None
                for a question without.
            problem_type: how the reasoner's answers are compared where it gives several, see
                :func:`open_r1_vision.rewards.answers.score_answer`; inferred by default.

        Raises:
            ValueError: an image can't be read, or the markers are not as many as the images.
        """
        row = {"id": "0", "problem": problem, "images": encode_images(images, "."), "problem_type": problem_type}
        result = self.start([row]).result()[0]
        if result.failure and not result.has_drafts:
            raise ValueError(f"{result.failure}. Give an image that can be read.")
        return result

    def start(self, rows: Sequence[Mapping[str, Any]], drafts: Mapping[str, Result] | None = None) -> "Batch":
        """Do steps 1 and 2, and begin step 3: a server is asked from now on.

        Args:
            rows: with `id`, `problem` and `images`; `solution` and `problem_type` where there are any.
            drafts: results of earlier runs by id, whose tentative response and caption are taken.
        """
        drafts = drafts or {}
        taken: dict[str, Result] = {}
        missing: list[tuple[Mapping[str, Any], list]] = []
        for row in rows:
            encoded = encode_images(row.get("images"), ".")
            known = Result(row["id"], row["problem"], num_images=len(encoded))
            if encoded and row["id"] in drafts:
                draft = drafts[row["id"]]
                tentative = draft.tentative if self.options.tentative else None
                failure = None if draft.has_drafts else draft.failure
                known = replace(known, tentative=tentative, caption=draft.caption, failure=failure)
            elif encoded:
                images, findings = open_images(encoded, _LIMITS)
                if findings:
                    message = "; ".join(f"{check}: {what}" for check, what in findings)
                    known = replace(known, failure=message)
                else:
                    missing.append((row, images))
            taken[row["id"]] = known
        if missing:
            taken |= {result.id: result for result in self._draft(missing)}
        return self._ask_reasoner(rows, [taken[row["id"]] for row in rows])

    def run(
        self,
        rows: Dataset | Sequence[Mapping[str, Any]],
        output: str | Path,
        *,
        batch_size: int = 8,
        captions: str | Path | None = None,
        source: Any = None,
        overwrite: bool = False,
        progress: bool | None = False,
    ) -> Summary:
        """Answer the rows of a data set, into a file that a later call goes on with.

        Rows that the file has are left out, but for those that failed. While a server answers one batch, the model
        works on the next; a process that is killed then loses both.

        Args:
            rows: a data set in the row schema, or a list of rows; `solution` may be missing.
            output: JSONL file, a line for each row, see :class:`open_r1_vision.three_step.results.Result`.
            batch_size: rows that are worked on together.
            captions: such a file from before, whose tentative responses and captions are taken: steps 1 and 2 are
                not done, and another reasoner reads the same.
            source: where the rows come from, noted in the settings of the file.
            overwrite: drop what the file holds.
            progress: show a progress bar; None shows it in a terminal only.

        Raises:
            ValueError: rows that can't be asked, or a file that does not fit; nothing is loaded or written then.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}: set at least 1 row.")
        table = as_table(rows)
        ids, problems = check_rows(table)
        drafts = self._read_captions(captions, table, output) if captions is not None else {}
        settings = self._settings() | {"rows": source, "captions": str(Path(captions).resolve()) if captions else None}
        file = ResultFile(output, settings, overwrite)
        try:
            check_problems(file.results, problems, str(output))
            drafts |= {key: result for key, result in file.results.items() if result.failure and result.has_drafts}
            done = {key for key, result in file.results.items() if not result.failure}
            places = [place for place, key in enumerate(ids) if key not in done]
            self._load(table.select(places), drafts)
            file.begin()
            bar = tqdm(total=len(ids), initial=len(ids) - len(places), desc="Rows", disable=_disable(progress))
            with bar:
                self._run_batches(batches(table, places, batch_size), drafts, file, bar)
            file.finish(ids)
        finally:
            file.close()
        return summarise([file.results[key] for key in ids])

    def close(self) -> None:
        """Give back what the reasoner holds. It may be asked again afterwards."""
        if "reasoner" in self.__dict__:
            self.reasoner.close()

    def _load(self, rows: Dataset, drafts: Mapping[str, Result]) -> None:
        """Load what rows need, so that what can't be loaded is known before anything is written."""
        if len(rows):
            _ = self.reasoner
            if any(count and key not in drafts for key, count in zip(rows["id"], count_images(rows), strict=True)):
                _ = self.generate

    def _run_batches(
        self, batches: Iterator[list[dict]], drafts: Mapping[str, Result], file: ResultFile, bar: Any
    ) -> None:
        # a server works on a batch while the next one's captions are written; a model here works when it is waited for
        num_ahead = 1 if self._config.kind == "endpoint" else 0
        started: deque[Batch] = deque()

        def save() -> None:
            results = started.popleft().result()
            file.add(results)
            bar.update(len(results))

        for rows in batches:
            started.append(self.start(rows, drafts))
            while len(started) > num_ahead:
                save()
        while started:
            save()

    def _draft(self, rows: Sequence[tuple[Mapping[str, Any], list]]) -> list[Result]:
        """Steps 1 and 2 of rows with their opened images."""
        section = self.options.caption_section
        tentative: Sequence[str | None] = [None] * len(rows)
        if self.options.tentative:
            tentative = self._generate(rows, "answer", self.options.answer_max_tokens)
        replies = self._generate(rows, "caption", self.options.caption_max_tokens)
        captions = [extract_section(reply, section) if section else reply.strip() or None for reply in replies]
        return [
            Result(row["id"], row["problem"], len(images), response, caption)
            for (row, images), response, caption in zip(rows, tentative, captions, strict=True)
        ]

    def _generate(self, rows: Sequence[tuple[Mapping[str, Any], list]], step: str, max_tokens: int) -> list[str]:
        from trl.data_utils import prepare_multimodal_messages

        system, template = self._texts[f"{step}_system_prompt"], self._texts[f"{step}_prompt"]
        chats = []
        for row, images in rows:
            # as the authors: the caption's prompt has the question as it is
            problem = _without_phrase(row["problem"]) if step == "answer" else row["problem"]
            messages = to_messages({"id": row["id"], "problem": problem, "images": images}, system, template)
            chats.append(prepare_multimodal_messages(messages, images=images))
        return self.generate(chats, max_tokens)

    def _ask_reasoner(self, rows: Sequence[Mapping[str, Any]], drafts: list[Result]) -> "Batch":
        asked = [draft for draft in drafts if draft.failure is None]
        pending = None
        if asked:
            pending = self.reasoner.submit(
                [self._reasoner_chat(draft) for draft in asked],
                read=lambda text: extract_answer(text, self.options.answer_form),
                tags=[{"id": draft.id} for draft in asked],
            )
        # a policy's replies come without the reason for their end
        return Batch(list(rows), drafts, pending, self.options.answer_form, self._config.kind != "policy")

    def _reasoner_chat(self, draft: Result) -> list[dict[str, str]]:
        values = {"problem": plain_problem(draft.problem)}
        name = "text_only_prompt"
        if draft.num_images:
            name = "reasoner_prompt"
            values["caption"] = draft.caption or ""
            if self.options.tentative:
                values["response"] = draft.tentative or ""
        text = fill_prompt(self._texts[name], **values) if self._texts[name] else values["problem"]
        system = self._texts["reasoner_system_prompt"]
        first = [{"role": "system", "content": system}] if system else []
        return [*first, {"role": "user", "content": text}]

    def _read_captions(self, path: str | Path, table: Dataset, output: str | Path) -> dict[str, Result]:
        """Drafts from another file, of all rows with images.

        Raises:
            ValueError: one is missing, belongs to another problem, or lacks its tentative response.
        """
        if Path(path).resolve() == Path(output).resolve():
            raise ValueError(f"The captions and the output are one file, {str(path)!r}: set another output.")
        drafts = read_results(path)
        check_problems(drafts, dict(zip(table["id"], table["problem"], strict=True)), str(path))
        needed = [key for key, count in zip(table["id"], count_images(table), strict=True) if count]
        missing = [key for key in needed if key not in drafts]
        if missing:
            raise ValueError(
                f"{str(path)!r} has no captions of {len(missing)} of the rows, such as {', '.join(missing[:3])}: let "
                "the run that writes it end, or leave `captions` out."
            )
        if self.options.tentative and any(drafts[key].has_drafts and drafts[key].tentative is None for key in needed):
            raise ValueError(f"{str(path)!r} was made without tentative responses: switch `tentative` off here too.")
        return drafts

    def _settings(self) -> dict[str, Any]:
        model = self._model
        if model is not None and not isinstance(model, str):
            model = getattr(model, "__qualname__", type(model).__qualname__)
        return {"model": model, **self.options.settings(), **reasoner_settings(self._config)}


@dataclass
class Batch:
    """Rows whose reasoner is at work.

    Attributes:
        rows: what was asked.
        drafts: what steps 1 and 2 made of each row, or its failure.
        pending: the replies for those without failure; None when there are none of them.
        answer_form: where a reply gives its answer.
        knows_ends: whether the reasoner says which replies were cut.
    """

    rows: list[Mapping[str, Any]]
    drafts: list[Result]
    pending: Pending | None
    answer_form: str
    knows_ends: bool = True

    def result(self) -> list[Result]:
        """The results, in the order of the rows; waits for the last of them."""
        outcomes = iter(self.pending.result() if self.pending else [])
        return [
            draft if draft.failure else self._settle(row, draft, next(outcomes))
            for row, draft in zip(self.rows, self.drafts, strict=True)
        ]

    def _settle(self, row: Mapping[str, Any], draft: Result, outcomes: Sequence[Outcome]) -> Result:
        replies = [outcome.text if isinstance(outcome, Reply) else None for outcome in outcomes]
        answers = [None if reply is None else extract_answer(reply, self.answer_form) for reply in replies]
        failures = [str(outcome) for outcome in outcomes if isinstance(outcome, Failure)]
        solution, problem = row.get("solution"), row["problem"]
        # the type of a row without solution is a guess from nothing
        kind = row.get("problem_type") if solution or solution is None else None
        answer = majority(answers, kind, problem)
        failed = len(failures) == len(outcomes)
        num_cut = sum(isinstance(one, Reply) and one.finish_reason == "length" for one in outcomes)
        return Result(
            id=draft.id,
            problem=draft.problem,
            num_images=draft.num_images,
            tentative=draft.tentative,
            caption=draft.caption,
            replies=replies,
            answers=answers,
            answer=answer,
            failure=failures[0] if failed else None,
            num_cut=num_cut if self.knows_ends else None,
            score=score_answer(answer, solution, kind, problem=problem) if solution and not failed else None,
        )


def _without_phrase(problem: str) -> str:
    return problem.replace(SHORT_ANSWER_PHRASE, "").strip()


def _disable(progress: bool | None) -> bool | None:
    # tqdm takes None for "unless it is a terminal"
    return None if progress is None else not progress
