# SPDX-License-Identifier: Apache-2.0
"""Replies of a judge of facts: exactly the verdicts that were asked for, and nothing else becomes a score."""

import json

import pytest
from fact_chats import FACTS, PROMPT, REQUEST, entries
from scripted_server import ScriptedServer, asked, reply

from open_r1_vision.reasoners import ReasonerConfig
from open_r1_vision.reasoners.facts import FACT_SCHEMA, FactJudge, judge_config, read_verdicts, verdict_schema
from open_r1_vision.reasoners.structured import check_schema
from open_r1_vision.rewards.visual_facts import visual_facts_reward


@pytest.mark.parametrize(
    "text",
    [
        entries(0, 1),
        f" {entries(0, 1)}\n",
        '{"verdicts":[{"stated":0,"fact":1},{"fact":2,"stated":1}]}',
        json.dumps(json.loads(entries(0, 1)), indent=4),
        f"```json\n{entries(0, 1)}\n```",
        f"```\n{entries(0, 1)}\n```",
        f"<think>The text says </think>{entries(1, 1)}, but no.</think>\n{entries(0, 1)}",
    ],
)
def test_replies_that_are_verdicts(text):
    assert read_verdicts(text, 2) == read_verdicts(text) == (0, 1)


BAD_REPLIES = {
    "NaN": '{"verdicts": [{"fact": 1, "stated": NaN}, {"fact": 2, "stated": 1}, {"fact": 3, "stated": 1}]}',
    "NaN as a number": entries(1, 1, 1).replace('"fact": 1', '"fact": NaN'),
    "Infinity": entries(1, 1, 1).replace('"stated": 1', '"stated": Infinity', 1),
    "0.6": entries(1, 0.6, 1),
    "1.0": entries(1, 1.0, 1),
    "true": entries(1, True, 1),
    "a string": entries(1, "1", 1),
    "null": entries(1, None, 1),
    "2": entries(1, 2, 1),
    "-1": entries(1, -1, 1),
    "minus zero": entries(1, 1, 0).replace('"stated": 0', '"stated": -0'),
    "10 to the 999": entries(1, 1, 1).replace('"stated": 1', '"stated": 1e999', 1),
    "one list of a list": entries([1], [1], [1]),
    "missing, the last": entries(1, 1),
    "missing, all but one": entries(1),
    "missing, all": entries(),
    "missing, in between": '{"verdicts": [{"fact": 1, "stated": 1}, {"fact": 3, "stated": 1}]}',
    "extra": entries(1, 1, 1, 1),
    "many": entries(*[1] * 500),
    "out of order": '{"verdicts": [{"fact": 2, "stated": 1}, {"fact": 1, "stated": 1}, {"fact": 3, "stated": 1}]}',
    "twice the same fact": '{"verdicts": [{"fact": 1, "stated": 1}, {"fact": 1, "stated": 1}, '
    '{"fact": 3, "stated": 1}]}',
    "numbered from 0": '{"verdicts": [{"fact": 0, "stated": 1}, {"fact": 1, "stated": 1}, {"fact": 2, "stated": 1}]}',
    "numbered by strings": entries(1, 1, 1).replace('"fact": 1', '"fact": "1"'),
    "a key twice": entries(0, 1, 1).replace('"stated": 0', '"stated": 0, "stated": 1'),
    "a key twice, once escaped": entries(0, 1, 1).replace('"stated": 0', '"stated": 0, "st\\u0061ted": 1'),
    "verdicts twice": f'{entries(0, 0, 0)[:-1]}, "verdicts": {entries(1, 1, 1)[13:]}',
    "a key too many": entries(1, 1, 1).replace('"stated": 1', '"stated": 1, "why": "so"', 1),
    "a field too many": entries(1, 1, 1)[:-1] + ', "score": 1}',
    "no number": '{"verdicts": [{"stated": 1}, {"stated": 1}, {"stated": 1}]}',
    "bare numbers": '{"verdicts": [1, 1, 1]}',
    "a mapping": '{"verdicts": {"1": 1, "2": 1, "3": 1}}',
    "a list": '[{"fact": 1, "stated": 1}, {"fact": 2, "stated": 1}, {"fact": 3, "stated": 1}]',
    "half": entries(1, 1, 1)[:-10],
    "without its end": entries(1, 1, 1)[:-1],
    "single quotes": entries(1, 1, 1).replace('"', "'"),
    "prose before": f"All are stated. {entries(1, 1, 1)}",
    "prose behind": f"{entries(1, 1, 1)} I am sure.",
    "two objects": f"{entries(0, 0, 0)}\n{entries(1, 1, 1)}",
    "two fences": f"```json\n{entries(0, 0, 0)}\n```\nIt said:\n```json\n{entries(1, 1, 1)}\n```",
    "an echo of the response": f"The response says: ```json\n{entries(1, 1, 1)}\n``` which states nothing.",
    "thinking that never ends": f"<think>It says {entries(1, 1, 1)}",
    "prose": "1, 1, 1",
    "the authors' tags": "<info1>1</info1>\n<info2>1</info2>\n<info3>1</info3>",
    "nesting": "[" * 100_000,
    "a number without end": entries(1, 1, 1).replace('"stated": 1', '"stated": ' + "1" * 9999, 1),
    "nothing": "",
}


def test_no_bad_reply_becomes_a_score(connect):
    names = list(BAD_REPLIES)
    bad = {f"response {index}": BAD_REPLIES[name] for index, name in enumerate(names)}

    def script(body, number):
        return reply(bad[REQUEST.fullmatch(asked(body))["response"]])

    with ScriptedServer(script) as server:
        reasoner = connect(server)
        verdicts = FactJudge(reasoner, PROMPT).judge(list(bad), [FACTS] * len(bad))
        stats = reasoner.pop_stats()
    for name, given in zip(names, verdicts, strict=True):
        assert given.verdicts is None, name
        assert given.failure.startswith("unreadable: the reply"), name
        assert given.reply == BAD_REPLIES[name], name
    assert stats["failed/unreadable"] == stats["asked"] == len(BAD_REPLIES)
    rewards = visual_facts_reward(list(bad), [FACTS] * len(bad), fact_verdicts=[row.verdicts for row in verdicts])
    assert rewards == [None] * len(bad)


@pytest.mark.parametrize("name", BAD_REPLIES)
def test_bad_replies_are_refused_for_what_they_are(name):
    with pytest.raises(ValueError, match="^the reply"):
        read_verdicts(BAD_REPLIES[name], 3)


def test_the_schema_says_what_the_reader_wants():
    value = json.loads(entries(1, 0))
    check_schema(value, FACT_SCHEMA)
    check_schema(value, verdict_schema(2))
    for count in (1, 3):
        with pytest.raises(ValueError, match="has 2 items"):
            check_schema(value, verdict_schema(count))
    with pytest.raises(ValueError, match="not one of"):
        check_schema(json.loads(entries(1, 2)), FACT_SCHEMA)


def test_a_schema_of_the_users_own_stays():
    config = ReasonerConfig(max_tokens=77)
    assert judge_config(config) == ReasonerConfig(max_tokens=77, response_schema=FACT_SCHEMA)
    assert config.response_schema is None
    own = ReasonerConfig(response_schema={"type": "object"})
    assert judge_config(own) is own
