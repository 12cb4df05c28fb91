# SPDX-License-Identifier: Apache-2.0
"""A benchmark of sums, and a backend that replies by a script."""

from statistics import fmean

from open_r1_vision.evaluate.items import Item, Metric
from open_r1_vision.evaluate.options import RunOptions
from open_r1_vision.evaluate.runner import evaluate
from open_r1_vision.rewards.answers import extract_answer
from open_r1_vision.sampling.draws import Draw


class Sums:
    """Item k asks for k + 1. The answer stands in tags. The item `broken` has an image that is none."""

    name = "sums"
    needs_file = False

    def __init__(self, count=6, broken=None, gold=True, name="sums"):
        self.name = name
        self.items = [
            Item(str(k), f"What is {k} + 1?", (_no_image,) if k == broken else (), str(k + 1) if gold else None)
            for k in range(count)
        ]

    def read(self, path):
        return list(self.items)

    def messages(self, item, style, *, system_prompt=None, user_prompt=None):
        images = [{"type": "image", "image": image} for image in item.open_images()]
        system = [{"role": "system", "content": [{"type": "text", "text": system_prompt}]}] if system_prompt else []
        return [*system, {"role": "user", "content": [*images, {"type": "text", "text": item.question}]}]

    def extract(self, item, text):
        answer = extract_answer(text)
        return answer, "tags" if answer else "none"

    def score(self, item, answer):
        return None if item.answer is None else float(answer == item.answer)

    def metrics(self, items, records):
        scores = [record.score for record in records if record.score is not None]
        return [Metric("sums_accuracy", fmean(scores), len(scores), (0.0, 1.0))] if scores else []


def _no_image():
    raise ValueError("bytes 0 to 9 are no image")


class Backend:
    """Replies with the sum, or what `script` has for an item; `calls` has the items of each batch."""

    num_ahead = 0

    def __init__(self, script=None, samples=1):
        self.script = script or {}
        self.samples = samples
        self.calls = []
        self.closed = 0

    #: Items whose presence in a batch makes the backend refuse it, at its start or while it is waited for.
    refuses: tuple[str, ...] = ()
    refuses_later: tuple[str, ...] = ()

    def __call__(self, options, most_images):
        self.most_images = most_images
        return self

    def start(self, prompts, wanted):
        self.calls.append([prompt.id for prompt in prompts])
        self._refuse(prompts, self.refuses)

        def finish():
            self._refuse(prompts, self.refuses_later)
            draws = []
            for prompt in prompts:
                for sample in range(self.samples):
                    act = self.script.get(prompt.id, f"<answer>{int(prompt.id) + 1}</answer>")
                    act = act[sample] if isinstance(act, list) else act
                    if isinstance(act, BaseException):
                        raise act
                    if isinstance(act, str):
                        act = {"completion": act, "num_tokens": 10}
                    draws.append(Draw(prompt.id, sample, **act))
            return draws

        return finish

    def _refuse(self, prompts, refused):
        if {prompt.id for prompt in prompts} & set(refused):
            raise ValueError("the prompt (length 9000) is longer than\n8192")

    def close(self):
        self.closed += 1


def options(folder, **settings):
    """A run of the sums; its model is the folder itself, which stays as it is."""
    model = folder / "model"
    model.mkdir(exist_ok=True)
    return RunOptions(**{"benchmark": "sums", "output": str(folder / "out"), "model": str(model), **settings})


def run(folder, backend=None, benchmark=None, said=None, **settings):
    """Evaluate; `said` gets what is told to the person at the terminal."""
    say = (said if said is not None else []).append
    return evaluate(options(folder, **settings), benchmark or Sums(), say, backend or Backend())


def samples_file(folder):
    """Where the samples are."""
    return folder / "out" / "sums" / "samples.jsonl"
