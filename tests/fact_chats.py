# SPDX-License-Identifier: Apache-2.0
"""What a judge of facts is asked and replies, as tests write and read it."""

import json
import re

from open_r1_vision.prompts import load_prompt

PROMPT = load_prompt("fact_judge")
FACTS = ["the lamp is green", "CD = 17", "there are 6 chairs"]
REQUEST = re.compile(
    r"Facts:\n(?P<facts>.*?)\n\nThe response, between two lines with the mark (?P<mark>[0-9a-f]{16}):\n"
    r"=== RESPONSE (?P=mark) ===\n(?P<response>.*)\n=== END OF RESPONSE (?P=mark) ===\n\n(?P<last>[^\n]*)",
    re.DOTALL,
)


def entries(*verdicts):
    """A reply with these verdicts."""
    return json.dumps({"verdicts": [{"fact": number, "stated": value} for number, value in enumerate(verdicts, 1)]})
