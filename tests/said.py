"""What was written into a task's log."""

from __future__ import annotations

from practicus_provider.log import Level


class Said(list[str]):
    """Texts, in their order.

    :ivar levels: text -> the level at which it was said last.
    :ivar sources: text -> whose output it was.
    """

    def __init__(self) -> None:
        super().__init__()
        self.levels: dict[str, Level] = {}
        self.sources: dict[str, str] = {}

    def __call__(self, text: str, level: Level = Level.INFO, source: str = "", /) -> None:
        self.append(text)
        self.levels[text] = level
        self.sources[text] = source
