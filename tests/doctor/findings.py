# SPDX-License-Identifier: Apache-2.0
"""What the doctor said, as the fixture `ask` gives it."""


def stops(said):
    return {topic: text for topic, lines in said.items() for level, text in lines if level == "STOP"}
