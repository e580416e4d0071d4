"""The pages of the documentation, and what they hold, as tests read them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).parents[1]
README = REPO / "README.md"
PAGES = [
    README,
    *(REPO / f"{name}.md" for name in ("CHANGELOG", "CONTRIBUTING", "SECURITY")),
    *sorted((REPO / "docs").glob("*.md")),
    *(REPO / folder / "README.md" for folder in ("images", "tests/cluster")),
]
"""Those of the site, which ``docs/conf.py`` names too."""
FENCE = re.compile(
    r"(?:^<!-- (?P<mark>quotes|file|not run:) (?P<about>.+?) -->\n)?^```(?P<language>[^`\n]*)\n(?P<text>.*?)^```\n",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    :param mark: what a comment above it says to tests: it ``quotes`` a file of the repository, the reader saves it as a
        ``file``, or it is ``not run:``.
    :param about: which file, or why.
    """

    page: Path
    language: str
    text: str
    mark: str = ""
    about: str = ""

    def __str__(self) -> str:
        return f"{page_name(self.page)}: {self.text.strip().splitlines()[0].strip()}"


def page_name(page: Path) -> str:
    """A page as Sphinx and we call it."""
    return str(page.relative_to(REPO).with_suffix(""))


def blocks(page: Path) -> Iterator[Block]:
    """All of a page, in its order."""
    for found in FENCE.finditer(page.read_text()):
        yield Block(page, found["language"], found["text"], found["mark"] or "", found["about"] or "")


def prose(page: Path) -> str:
    """A page without its blocks."""
    return FENCE.sub("", page.read_text())
