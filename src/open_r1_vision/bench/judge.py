# SPDX-License-Identifier: Apache-2.0
"""Judging which facts the completions of one step state, by a server of a set latency that answers so many at once.

"one by one" is a reward function that sends a request, waits for the verdicts and sends the next one: what stock TRL's
users write first. "authors" does as the code of Perception-R1, which doesn't wait: a task for each completion, at most
512 under way, one `gather`; openai's client with its own retries, verdicts in tags that a regular expression reads,
and no cache. "ours" is FactJudge at its defaults, with an empty cache file: as many requests as `--concurrency` under
way, replies held to a schema, equal questions asked once. "ours, cached" asks the same again from that file, in a new
reasoner, as a run that resumes or repeats does.

All ask the same server, which runs in a process of its own, in turn, and connect to it anew each time. It takes the
same time for every reply, so that what it would gain from prompts of a common beginning, or lose to long replies, is
not measured.
"""

import argparse
import asyncio
import random
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from open_r1_vision.bench.judge_server import JudgeServer, serving
from open_r1_vision.bench.measuring import compare, equal_share, take_turns
from open_r1_vision.prompts import load_prompt
from open_r1_vision.reasoners import ReasonerConfig, build_reasoner
from open_r1_vision.reasoners.facts import FactJudge, judge_config

NAMES = ("one by one", "authors", "ours", "ours, cached")
#: Of the authors' code.
_MOST_AT_ONCE = 512
_MAX_TOKENS = 512
#: In our words; the authors' holds three worked examples besides, which a server keeps.
_PROMPT = (
    "You get numbered key facts of a problem and a response to it. Say for each fact whether the response states it: "
    "1 if it does, 0 if not. Reply with the same numbered tags alone, such as <info1>1</info1>."
)

#: For each completion: what it says, and the facts of its row.
Completions = list[tuple[str, list[str]]]
Verdicts = list[list[int] | None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sizes of the run."""
    parser.add_argument("--prompts", type=int, default=16, help="different prompts of the step")
    parser.add_argument("--generations", type=int, default=8, help="completions of each prompt, G")
    parser.add_argument("--facts", type=int, default=4, help="facts of a prompt")
    parser.add_argument("--words", type=int, default=200, help="words of a completion beside facts")
    parser.add_argument("--same", type=int, default=0, help="completions of each group that repeat its first")
    parser.add_argument("--milliseconds", type=float, default=50, help="that the server takes for a reply")
    parser.add_argument("--limit", type=int, default=16, help="requests that the server answers at once")
    parser.add_argument("--concurrency", type=int, default=64, help="requests that ours has under way at once")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each, after one that doesn't count")


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure.

    Returns:
        A row for each way: median seconds with the least and the most; how many times as fast as one by one that is;
        verdicts, of one fact each, per second; the server's count of the requests of one step, and of those under way
        at once; and the share of completions whose verdicts are those of one by one in the first round.
    """
    completions = draw_completions(args)
    verdicts: dict[str, list[Verdicts]] = {name: [] for name in NAMES}
    counts: dict[str, dict[str, int]] = {}
    with serving(args.milliseconds, args.limit) as server, tempfile.TemporaryDirectory() as folder:
        asking = _Asking(server, args.concurrency, Path(folder), completions)

        def prepare(name: str, number: int) -> None:
            settle()
            asking.prepare(name)
            server.pop_counts()

        def work(name: str, number: int) -> int:
            verdicts[name].append(asking.ask())
            return 0

        def settle() -> None:
            """Note the requests of the last turn; here, where nothing is measured."""
            if asking.name is not None:
                counts[asking.name] = server.pop_counts()
            asking.close()

        turns = take_turns(NAMES, work, repeats=args.repeats, prepare=prepare)
        settle()
    num_verdicts = sum(len(facts) for _, facts in completions)
    return [
        {
            "judging": name,
            **{key: columns[key] for key in ("seconds", "least", "most", "times as fast")},
            "verdicts/s": num_verdicts / columns["seconds"],
            "requests": counts[name]["requests"],
            "at once": counts[name]["most_at_once"],
            "equal": equal_share(verdicts[name][0], verdicts["one by one"][0]),
        }
        for name, columns in compare(turns, "one by one").items()
    ]


def draw_completions(args: argparse.Namespace) -> Completions:
    """Completions that state some of their row's facts, the same at each call."""
    rng = random.Random(0)
    completions: Completions = []
    for prompt in range(args.prompts):
        facts = [f"figure {prompt} has {3 + number} corners in row {number}" for number in range(args.facts)]
        group = []
        for index in range(args.generations):
            stated = [fact for fact in facts if rng.random() < 0.5]
            text = f"Attempt {index}. I see: {'; '.join(stated)}. " + " ".join(["therefore"] * args.words)
            group.append((text, facts))
        completions += [group[0] if index <= args.same else pair for index, pair in enumerate(group)]
    return completions


class _Asking:
    """The ways of asking, one at a time.

    Args:
        server: that is asked.
        concurrency: of ours.
        folder: for cache files.
        completions: about which.
    """

    def __init__(self, server: JudgeServer, concurrency: int, folder: Path, completions: Completions) -> None:
        self.name: str | None = None
        self.ask: Callable[[], Verdicts] = list
        self.close: Callable[[], None] = lambda: None
        self._server = server
        self._concurrency = concurrency
        self._folder = folder
        self._completions = completions
        self._num_caches = 0

    def prepare(self, name: str) -> None:
        """Set `ask` and `close` to those of a way, with clients that haven't connected yet."""
        self.name = name
        if name == "one by one":
            self.ask, self.close = _one_by_one(self._server.url, self._completions)
        elif name == "authors":
            self.ask, self.close = _all_at_once(self._server.url, self._completions), lambda: None
        else:
            self._num_caches += 1
            cache = self._folder / f"{self._num_caches}.sqlite"
            if name == "ours, cached":
                ask, close = self._ours(cache)
                ask()
                close()
            self.ask, self.close = self._ours(cache)

    def _ours(self, cache: Path) -> tuple[Callable[[], Verdicts], Callable[[], None]]:
        config = ReasonerConfig(
            kind="endpoint",
            model="judge",
            base_url=self._server.url,
            concurrency=self._concurrency,
            cache=str(cache),
        )
        judge = FactJudge(build_reasoner(judge_config(config), check=False), load_prompt("fact_judge"))
        responses, facts = (list(column) for column in zip(*self._completions, strict=True))

        def ask() -> Verdicts:
            results = judge.judge(responses, facts)
            return [None if result.verdicts is None else list(result.verdicts) for result in results]

        return ask, judge.reasoner.close


def _one_by_one(url: str, completions: Completions) -> tuple[Callable[[], Verdicts], Callable[[], None]]:
    import openai

    client = openai.OpenAI(base_url=url, api_key="EMPTY")

    def ask() -> Verdicts:
        replies = [client.chat.completions.create(**_request(*pair)) for pair in completions]
        return [_read_tags(reply.choices[0].message.content) for reply in replies]

    return ask, client.close


def _all_at_once(url: str, completions: Completions) -> Callable[[], Verdicts]:
    import openai

    client = openai.AsyncOpenAI(base_url=url, api_key="EMPTY", max_retries=2)

    async def gather() -> Verdicts:
        places = asyncio.Semaphore(_MOST_AT_ONCE)

        async def ask(response: str, facts: Sequence[str]) -> list[int]:
            async with places:
                reply: Any = await client.chat.completions.create(**_request(response, facts))
            return _read_tags(reply.choices[0].message.content)

        async with client:
            return list(await asyncio.gather(*(ask(*pair) for pair in completions)))

    return lambda: asyncio.run(gather())


def _request(response: str, facts: Sequence[str]) -> dict[str, Any]:
    """What the authors send."""
    tagged = "\n".join(f"<info{number}>{fact}</info{number}>" for number, fact in enumerate(facts, 1))
    return {
        "model": "judge",
        "messages": [
            {"role": "system", "content": _PROMPT},
            {"role": "user", "content": f"Key facts: {tagged}\nResponse: {response}"},
        ],
        "temperature": 0.0,
        "n": 1,
        "max_completion_tokens": _MAX_TOKENS,
    }


def _read_tags(text: str | None) -> list[int]:
    """What the authors read: of each number the last tag, up to the first number that is missing."""
    verdicts: list[int] = []
    while found := re.findall(rf"<info{len(verdicts) + 1}>(.*?)</info{len(verdicts) + 1}>", text or ""):
        verdicts.append(int(float(found[-1])))
    return verdicts
