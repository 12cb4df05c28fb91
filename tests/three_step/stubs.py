# SPDX-License-Identifier: Apache-2.0
"""A model and a reasoner that note what they are asked, and say what a test tells them to."""

from tiny_models import image

from open_r1_vision.reasoners import Failure, ReasonerConfig, Reply
from open_r1_vision.reasoners.interface import Deferred, Finished

CAPTION_SENTENCE = "Do not answer it yourself."


def text_of(chat):
    """The text of a chat's last message."""
    content = chat[-1]["content"]
    return content if isinstance(content, str) else "".join(part.get("text") or "" for part in content)


class Model:
    """Writes `tentative: <problem>` or `caption: <problem>`, or what `replies` has for the problem."""

    def __init__(self, replies=None):
        self.replies = replies or {}
        self.calls = []

    def __call__(self, chats, max_new_tokens):
        self.calls.append((chats, max_new_tokens))
        return [self._reply(text_of(chat)) for chat in chats]

    def _reply(self, text):
        step = "caption" if CAPTION_SENTENCE in text else "tentative"
        problem = text.removeprefix("Question: ").split("\n")[0]
        return self.replies.get((step, problem), f"{step}: {problem}")


class ScriptedReasoner:
    r"""Replies `\boxed{4}`, or what `script(text)` gives: a text, a failure, or a list of them for each of `n`."""

    in_step = False

    def __init__(self, script=lambda text: r"So \boxed{4}.", deferred=False, **settings):
        self.config = ReasonerConfig(**{"kind": "local", "model": "scripted", **settings})
        self.script = script
        self.deferred = deferred
        self.chats, self.tags = [], []

    def submit(self, chats, *, read=None, tags=None):
        self.chats += chats
        self.tags += tags or []

        def work():
            return [self._outcomes(text_of(chat), read) for chat in chats]

        return Deferred(work) if self.deferred else Finished(work())

    def _outcomes(self, text, read):
        replies = self.script(text)
        replies = replies if isinstance(replies, list) else [replies]
        assert len(replies) == self.config.n
        return [one if isinstance(one, (Failure, Reply)) else Reply(one, verdict=read(one)) for one in replies]

    def pop_stats(self):
        return {}

    def check(self):
        pass

    def close(self):
        pass


def row(index, problem=None, num_images=1, **columns):
    """A row with pictures."""
    images = [image(7 * index + k) for k in range(num_images)]
    return {"id": f"row-{index}", "problem": problem or f"What is {index}?", "images": images, **columns}
