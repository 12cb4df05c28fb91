# SPDX-License-Identifier: Apache-2.0
"""Any reasoner reads captions; the policy's readings are what they were."""

import json

from open_r1_vision.reasoners import Failure, ReasonerConfig, Reply, TextReader, build_reasoner
from open_r1_vision.reasoners.captions import Reading, parse_boxed
from open_r1_vision.reasoners.interface import Finished
from open_r1_vision.reasoners.policy import policy_reader


class Scripted:
    """Replies to each question with what its caption says."""

    in_step = False
    config = ReasonerConfig()

    def __init__(self):
        self.asked = []
        self.tags = None

    def submit(self, chats, *, read=None, tags=None):
        self.tags = tags
        self.asked = [chat[-1]["content"][0]["text"] for chat in chats]
        failure = Failure("timeout", "no answer within 1 s")
        return Finished([[failure if "slow" in text else Reply(text.split()[2])] for text in self.asked])


def test_captions_become_readings():
    reasoner = Scripted()
    reader = TextReader(reasoner, "Answer.")
    readings = reader.read(["8 cats", None, "slow one", "Not"], ["a?", "b?", "c?", "d?"])
    assert readings == [
        Reading("8", "8"),
        Reading("", None),
        Reading("", None, failure="timeout: no answer within 1 s"),
        Reading("Not</info>", "Not</info>"),
    ]
    assert reasoner.asked == [
        "a?\n<info> 8 cats</info>",
        "c?\n<info> slow one</info>",
        "d?\n<info> Not</info>",
    ]


def test_tags_stay_with_their_captions():
    reasoner = Scripted()
    TextReader(reasoner, "Answer.").start([None, "8 x"], ["a?", "b?"], tags=[{"id": "r0"}, {"id": "r1"}]).result()
    assert reasoner.tags == [{"id": "r1"}]


def test_a_method_may_ask_and_read_in_its_own_words():
    def messages(caption, problem, system_prompt):
        return [{"role": "user", "content": [{"type": "text", "text": f"{system_prompt} {problem} {caption}"}]}]

    reader = TextReader(Scripted(), "S", messages=messages, parse=lambda text: Reading(text, text.upper()))
    assert reader.read(["abc"], ["b?"]) == [Reading("abc", "ABC")]


def test_the_policy_reads_as_before_and_in_step(tmp_path):
    calls = []

    def generate(chats, max_tokens):
        calls.append((chats, max_tokens))
        return [["8", "5", "Not a description"][index] for index in range(len(chats))]

    captions, problems = ["a", None, "c"], ["x?", "y?", "z?"]
    expected = policy_reader(generate, "Answer.", 7).read(captions, problems)
    log = tmp_path / "log.jsonl"
    config = ReasonerConfig(kind="policy", max_tokens=7, log=str(log))
    reasoner = build_reasoner(config, generate=generate, ddp_timeout=1)
    reader = TextReader(reasoner, "Answer.")
    pending = reader.start(captions, problems)
    assert len(calls) == 1  # nothing is generated before it is wanted
    assert pending.result() == pending.result() == expected
    assert calls[0] == calls[1]
    assert len(calls) == 2
    verdicts = [json.loads(line)["verdict"] for line in log.read_text().splitlines()]
    assert verdicts == ["8", "5", "(not a description)"]
    assert reasoner.pop_stats()["asked"] == 3
    reasoner.close()


def test_several_replies_to_a_caption_are_further_readings():
    class Several(Scripted):
        def submit(self, chats, *, read=None, tags=None):
            return Finished(
                [[Reply("3."), Failure("timeout", "too late"), Reply("4")], [Failure("timeout", "too late")] * 3]
            )

    first, second = TextReader(Several(), "read").read(["three", "four"], ["How many?"] * 2)
    assert (first.answers, first.failure) == (["3", "4"], None)
    assert (second.answers, second.failure) == ([None], "timeout: too late")


def test_a_reply_that_was_cut_has_no_boxed_answer():
    class Cut(Scripted):
        def submit(self, chats, *, read=None, tags=None):
            return Finished([[Reply(r"first \boxed{3}, no", "length")], [Reply(r"so \boxed{4}")]])

    reader = TextReader(Cut(), "read", parse=parse_boxed, cut_replies_count=False)
    assert [reading.answer for reading in reader.read(["a", "b"], ["How many?"] * 2)] == [None, "4"]
