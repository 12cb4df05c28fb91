# SPDX-License-Identifier: Apache-2.0
"""Links between the documents, to their pictures and to their headings lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def without_code(text):
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)


def links(text):
    """Where the links and pictures of a document lead; those to other sites are left out."""
    targets = re.findall(r"\]\(([^)\s]+)(?: \"[^\"]*\")?\)", without_code(text))
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchors(text):
    """What headings are called in an address, as GitHub makes it of them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    names, seen = set(), {}
    for heading in headings:
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
        name = re.sub(r"[^\w\- ]", "", shown).replace(" ", "-")
        count = seen[name] = seen.get(name, -1) + 1
        names.add(f"{name}-{count}" if count else name)
    return names


def broken(path):
    """Links of a document that lead nowhere."""
    found = []
    for target in links(path.read_text(encoding="utf-8")):
        place, _, anchor = target.partition("#")
        there = (path.parent / place).resolve() if place else path
        if not there.exists() or (anchor and anchor not in anchors(there.read_text(encoding="utf-8"))):
            found.append(target)
    return found


def test_what_is_broken(tmp_path):
    (tmp_path / "b.md").write_text("# How `it` works, in 3 steps\n## Twice\n## Twice\n", encoding="utf-8")
    page = tmp_path / "a.md"
    page.write_text(
        "# One\n[b](b.md) [c](c.md) ![p](p.png) [x](#one) [y](#two) [z](b.md#twice-1) [z](b.md#twice-2)\n"
        "[h](b.md#how-it-works-in-3-steps) [web](https://example.org/x) `[code](no.md)` [folder](.)\n"
        "```\n# Two\n[code](no.md)\n```\n",
        encoding="utf-8",
    )
    assert broken(page) == ["c.md", "p.png", "#two", "b.md#twice-2"]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    assert broken(path) == []


def test_every_page_is_reached_from_the_readme():
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        places = (target.partition("#")[0] for target in links(page.read_text(encoding="utf-8")))
        waiting += [(page.parent / place).resolve() for place in places if place.endswith(".md")]
    assert set(DOCUMENTS) <= reached
