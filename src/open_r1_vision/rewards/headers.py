# SPDX-License-Identifier: Apache-2.0
"""The headed sections of a completion, the format of Mulberry and PeBR-R1 (arXiv 2509.13031).

    ### Image Description: …
    ### Rationales: …
    ### Let's think step by step.
    ### Step 1: …
    ### Step 2: …
    ### The final answer is: …

A header may have any case and any blanks after `###`, and may stand within a line. A section is what stands between
its header and the next one. Every function runs in time linear in the text.
"""

import re
from typing import NamedTuple

from open_r1_vision.rewards.tags import extract_caption

#: Where a completion describes its image: `### Image Description:` up to `### Rationales:`, or `<info>…</info>`.
DESCRIPTION_FORMS = ("sections", "tags")

_HEADER = re.compile(
    r"(?<!#)###[ \t]*(?:(?P<description>image[ \t]+description)[ \t]*:|(?P<rationales>rationales)[ \t]*:"
    r"|(?P<thinking>let['’]s[ \t]+think[ \t]+step[ \t]+by[ \t]+step)\b[.:]?|step[ \t]*(?P<step>\d{1,9})[ \t]*:"
    r"|(?P<answer>the[ \t]+final[ \t]+answer[ \t]+is)\b[ \t]*:?)",
    re.IGNORECASE,
)
#: The authors' rule for the format: these four somewhere, in any order.
_LENIENT = tuple(
    re.compile(rf"###\s*{header}", re.IGNORECASE)
    for header in ("Image Description:", "Rationales:", "Step 1:", "The final answer is:")
)


class Section(NamedTuple):
    """A header with what follows it.

    Attributes:
        name: `description`, `rationales`, `thinking`, `step` or `answer`.
        number: of a step; 0 for the others.
        text: up to the next header, stripped; may be empty.
    """

    name: str
    number: int
    text: str


def split_sections(text: str) -> tuple[str, list[Section]]:
    """What stands before the first header, stripped, and the sections in their order."""
    headers = list(_HEADER.finditer(text))
    starts = [*(header.start() for header in headers), len(text)]
    sections = [
        Section(str(header.lastgroup), int(header["step"] or 0), text[header.end() : end].strip())
        for header, end in zip(headers, starts[1:], strict=True)
    ]
    return text[: starts[0]].strip(), sections


def extract_description(text: str, form: str = "sections") -> str | None:
    """What a completion says of its image.

    Args:
        text: a completion.
        form: one of `DESCRIPTION_FORMS`. `sections`: the first description, which the rationales have to follow.
            `tags`: the first `<info>` section.

    Returns:
        The description; None when there is none or it is empty.

    Raises:
        ValueError: an unknown form.
    """
    check_description_form(form)
    if form == "tags":
        return extract_caption(text)
    _, sections = split_sections(text)
    for section, following in zip(sections, sections[1:], strict=False):
        if section.name == "description":
            return (section.text or None) if following.name == "rationales" else None
    return None


def check_description_form(form: str) -> None:
    """Refuse a form that is none of `DESCRIPTION_FORMS`.

    Raises:
        ValueError: it is none.
    """
    if form not in DESCRIPTION_FORMS:
        raise ValueError(f"description_form is {form!r}: set it to {' or '.join(DESCRIPTION_FORMS)}.")


def extract_final_answer(text: str) -> str | None:
    """The first line with something on it after the last `### The final answer is:`.

    Earlier answers are drafts, so that of several guesses only one can ever be graded.

    Returns:
        The line, stripped; None when there is no such header, or nothing follows it.
    """
    _, sections = split_sections(text)
    answers = [section.text for section in sections if section.name == "answer"]
    return answers[-1].split("\n", 1)[0].strip() or None if answers else None


def has_sections_in_order(text: str) -> bool:
    """Whether the text is a description, rationales, the steps 1 to n with n at least 1, and an answer of one line.

    Each once, none empty, and nothing stands around them. `### Let's think step by step.` may open the steps, with or
    without words of its own.
    """
    before, sections = split_sections(text)
    steps = [section for section in sections if section.name == "step"]
    wanted = ["description", "rationales", *["step"] * max(len(steps), 1), "answer"]
    names = [section.name for section in sections]
    if names[2:3] == ["thinking"]:
        del names[2]
    return (
        not before
        and names == wanted
        and [step.number for step in steps] == list(range(1, len(steps) + 1))
        and all(section.text for section in sections if section.name != "thinking")
        and "\n" not in sections[-1].text
    )


def has_headers_somewhere(text: str) -> bool:
    """The authors' rule: the headers of description, rationales, step 1 and answer occur, in any order."""
    return all(header.search(text) for header in _LENIENT)
