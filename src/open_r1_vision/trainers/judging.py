# SPDX-License-Identifier: Apache-2.0
"""What a judge is asked about completions: which visual facts they state, and whether captions describe."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from open_r1_vision.reasoners.descriptions import DescriptionJudge
from open_r1_vision.reasoners.facts import FactJudge
from open_r1_vision.rewards.facts import facts_to_state
from open_r1_vision.trainers.consulting import Findings, usage


class FactJudging:
    """Which of a row's visual facts a completion states: the column `fact_verdicts` for `visual_facts_reward`.

    Args:
        judge: whoever says so.
        leave_out_question: as the reward's.
    """

    name, activity, column = "judge", "judging", "fact_verdicts"

    def __init__(self, judge: FactJudge, leave_out_question: bool = True) -> None:
        self.judge = judge
        self._leave_out_question = leave_out_question
        self.config = judge.reasoner.config

    def start(
        self, rows: Sequence[Mapping[str, Any]], starts: Sequence[str], texts: Sequence[str]
    ) -> Callable[[], Findings]:
        """See :class:`open_r1_vision.trainers.consulting.Consultation`."""
        facts = [self._facts(row) for row in rows]
        pending = self.judge.start(texts, facts, [{"id": row.get("id")} for row in rows])

        def finish() -> Findings:
            results = pending.result()
            verdicts = [None if result.verdicts is None else list(result.verdicts) for result in results]
            shares = [sum(values) / len(values) for values in verdicts if values]
            return Findings(
                columns={"fact_verdicts": verdicts},
                asked=[bool(of_row) for of_row in facts],
                failures=[result.failure for result in results],
                metrics={"judge/facts_stated": shares, **usage("judge", self.judge.reasoner)},
                logged={
                    "fact_verdicts": ["" if values is None else "".join(map(str, values)) for values in verdicts],
                    "judge_reply": [result.reply for result in results],
                },
                seconds=pending.seconds,
            )

        return finish

    def _facts(self, row: Mapping[str, Any]) -> list[str]:
        return facts_to_state(row.get("visual_facts"), row.get("problem") if self._leave_out_question else None)


class DescriptionJudging:
    """Whether a caption describes at all: the column `has_description` for `caption_reward`."""

    name, activity, column = "description_judge", "judging_descriptions", "has_description"

    def __init__(self, judge: DescriptionJudge, extract: Callable[[str], str | None]) -> None:
        self.judge = judge
        self.config = judge.reasoner.config
        self._extract = extract

    def start(
        self, rows: Sequence[Mapping[str, Any]], starts: Sequence[str], texts: Sequence[str]
    ) -> Callable[[], Findings]:
        """See :class:`open_r1_vision.trainers.consulting.Consultation`."""
        captions = [self._extract(start + text) for start, text in zip(starts, texts, strict=True)]
        pending = self.judge.start(captions, [{"id": row.get("id")} for row in rows])

        def finish() -> Findings:
            results = pending.result()
            found = [result.has_description for result in results]
            return Findings(
                columns={"has_description": found},
                asked=[caption is not None for caption in captions],
                failures=[result.failure for result in results],
                metrics={
                    "captions/with_description": [float(value) for value in found if value is not None],
                    **usage("description_judge", self.judge.reasoner),
                },
                logged={"has_description": found},
                seconds=pending.seconds,
            )

        return finish
