"""Control groups for the nodes' pods, in every hierarchy that the machine has (version 1) or the one (version 2)."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path

from tests.cluster.process import wait_until

ROOT = Path("/sys/fs/cgroup")


def make(name: str) -> None:
    """Make the group, with all controllers."""
    for root in _hierarchies():
        folder = root
        for part in name.split("/"):
            _delegate(folder)
            folder /= part
            folder.mkdir(exist_ok=True)
        _delegate(folder)


def remove(name: str) -> None:
    """Remove the group and all below it; whatever was in there has ended."""
    for root in _hierarchies():
        group = root / name
        if group.exists():
            wait_until(partial(_removed, group), f"the control group {group} can be removed", 20)


def _hierarchies() -> list[Path]:
    if (ROOT / "cgroup.controllers").exists():
        return [ROOT]
    return [folder for folder in ROOT.iterdir() if folder.is_dir() and not folder.is_symlink()]


def _delegate(folder: Path) -> None:
    """Version 2: a group's children have the controllers that it hands on."""
    with contextlib.suppress(FileNotFoundError):
        controllers = (folder / "cgroup.controllers").read_text().split()
        (folder / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in controllers))


def _removed(group: Path) -> bool:
    for folder in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
        with contextlib.suppress(OSError):
            folder.rmdir()
    with contextlib.suppress(OSError):
        group.rmdir()
    return not group.exists()
