# SPDX-License-Identifier: Apache-2.0
"""Facts, responses that state them or state them and their opposite, and what a judge should say of each."""

from open_r1_vision.reasoners.audit import measure_agreement, pair_up, read_log
from open_r1_vision.reasoners.facts import FactJudge

#: Of each fact a response that commits itself to it, and one that states it and takes it back.
_PAIRS = {
    "AB = 3": ("In the triangle AB = 3.", "AB = 3. No, AB = 5."),
    "the circle is red": ("I see that the circle is red.", "The circle is red. The circle is not red, but blue."),
    "there are 4 bars": ("In all there are 4 bars.", "There are 4 bars. On a second look there are 6 bars."),
    "angle C is a right angle": ("Here angle C is a right angle.", "Angle C is a right angle. Angle C is acute."),
    "the lamp is left of the door": (
        "On the picture the lamp is left of the door.",
        "The lamp is left of the door, and the lamp is right of the door.",
    ),
    "there is no dog": ("It is a park, and there is no dog.", "There is no dog. A dog lies under the bench."),
}
#: Fact, response, and whether the response states the fact: 1, or 0 where it contradicts itself.
LABELLED = [
    (fact, response, label)
    for fact, responses in _PAIRS.items()
    for response, label in zip(responses, (1, 0), strict=True)
]


def agreement(reasoner, prompt):
    """How far a reasoner that has a `log` agrees with the labels, and how many verdicts failed."""
    facts, responses, labels = ([row[part] for row in LABELLED] for part in range(3))
    tags = [{"place": place} for place in range(len(LABELLED))]
    verdicts = FactJudge(reasoner, prompt).start(responses, [[fact] for fact in facts], tags).result()
    reasoner.close()
    records = read_log(reasoner.config.log)
    by_id = {record["id"]: [labels[record["tag"]["place"]]] for record in records}
    return measure_agreement(*pair_up(records, by_id)), sum(verdict.failure is not None for verdict in verdicts)
