# SPDX-License-Identifier: Apache-2.0
"""A group of completions as the page wants it: texts cut to a limit, rewards in one order, verdicts fact by fact."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from open_r1_vision.chat_texts import texts_of_chat
from open_r1_vision.gallery.tables import Group
from open_r1_vision.rewards.visual_facts import visual_facts_reward
from open_r1_vision.run_log import finite

#: Columns that the page has a place for; any other one is listed by name.
_KNOWN = frozenset(
    (
        *("step", "prompt", "completion", "advantage", "id", "source", "solution", "group", "image_keys", "facts"),
        *("caption", "caption_answer", "reader_reply", "hint", "hint_level", "fact_verdicts", "judge_reply"),
        "has_description",
    )
)
_FACTS_REWARD = "visual_facts_reward"
#: Of what is left of a text that is too long, so much is its beginning; answers stand at the end.
_HEAD_SHARE = 0.7

#: A text, or `[beginning, number of characters left out, end]`.
Text = str | list


@dataclass
class Describer:
    """Turns groups into plain data.

    Attributes:
        rewards: names of the reward columns, in the order of the page.
        max_text: longest text in characters.
        facts_options: what the recipe binds of `visual_facts_reward`, whose verdicts by rule are shown.
        texts: prompts and systems' texts, each once; groups name them by their place.
        num_cut: texts that were too long.
    """

    rewards: Sequence[str]
    max_text: int
    facts_options: Mapping[str, Any] = field(default_factory=dict)
    texts: dict[str, int] = field(default_factory=dict)
    num_cut: int = 0

    def group(self, group: Group) -> dict[str, Any]:
        """One group, see the module."""
        first = group.rows[0]
        facts = list(first.get("facts") or [])
        return {
            "step": group.step,
            "group": group.number,
            "id": None if first.get("id") is None else str(first["id"]),
            "source": first.get("source"),
            "gold": self._cut(first.get("solution")),
            "prompt": [[role, self._place(text)] for role, text in texts_of_chat(first.get("prompt"))],
            "images": list(first.get("image_keys") or []),
            "facts": [self._cut(fact) for fact in facts],
            "completions": [self._completion(row, facts) for row in group.rows],
        }

    def _completion(self, row: Mapping[str, Any], facts: list[str]) -> dict[str, Any]:
        text = "".join(content for _, content in texts_of_chat(row.get("completion")))
        entry = {
            "text": self._cut(text),
            "rewards": [_number(row.get(name)) for name in self.rewards],
            "advantage": _number(row.get("advantage")),
            "hint": self._cut(row.get("hint") or None),
            "hint_level": row.get("hint_level"),
            "caption": self._cut(row.get("caption")),
            "caption_answer": self._cut(row.get("caption_answer")),
            "reader_reply": self._cut(row.get("reader_reply") or None),
            "has_description": row.get("has_description"),
            "verdicts": self._verdicts(row, text, facts),
            "judge_reply": self._cut(row.get("judge_reply") or None),
            "more": {
                name: self._cut(value if isinstance(value, str) else json.dumps(value, default=str))
                for name, value in row.items()
                if name not in _KNOWN and name not in self.rewards and value is not None
            },
        }
        return {name: value for name, value in entry.items() if value not in (None, {}, [])}

    def _verdicts(self, row: Mapping[str, Any], text: str, facts: list[str]) -> list[int] | None:
        """0 or 1 for each fact: the judge's, else the rule's where these are what the reward is made of."""
        judged = row.get("fact_verdicts")
        if judged is not None or not facts:
            return [int(mark) for mark in judged] if judged and len(judged) == len(facts) else None
        reward = _number(row.get(_FACTS_REWARD))
        if reward is None:
            return None
        options = {**self.facts_options, "leave_out_question": False}
        start = row.get("hint") or ""
        shares = [visual_facts_reward([text], [[fact]], response_start=[start], **options)[0] for fact in facts]
        verdicts = [int(share == 1) for share in shares]
        return verdicts if abs(sum(verdicts) / len(facts) - reward) < 1e-6 else None

    def _place(self, text: str) -> int:
        return self.texts.setdefault(text, len(self.texts))

    def pool(self) -> list[Text | None]:
        """The texts that groups name by place."""
        return [self._cut(text) for text in self.texts]

    def _cut(self, text: Any) -> Text | None:
        """The text, or its two ends where it is too long."""
        if text is None:
            return None
        text = str(text)
        if len(text) <= self.max_text:
            return text
        self.num_cut += 1
        head = int(self.max_text * _HEAD_SHARE)
        tail = self.max_text - head
        return [text[:head], len(text) - self.max_text, text[len(text) - tail :]]


def _number(value: Any) -> float | None:
    return finite(float(value)) if isinstance(value, (int, float)) else None
