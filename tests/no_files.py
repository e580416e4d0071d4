"""What may stand where a file is looked for, and is none: as whoever writes there can put it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

Put = Callable[[Path], object]
PIPE: Put = os.mkfifo
FOLDER: Put = Path.mkdir


def endless(path: Path) -> None:
    """A link to a device that never ends."""
    path.symlink_to("/dev/zero")


NO_FILES: dict[str, Put] = {"nothing": lambda path: None, "link": endless, "pipe": PIPE, "folder": FOLDER}
