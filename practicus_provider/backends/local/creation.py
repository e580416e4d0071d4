"""Makes a cluster's folder, whole, and starts its supervisor: it is there then, or an error says why nothing is."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import shutil
import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from practicus_provider.backends.base import Handle
from practicus_provider.backends.local.folder import ClusterFolder
from practicus_provider.backends.local.peers import DAEMON
from practicus_provider.backends.local.processes import inherited
from practicus_provider.backends.local.refusals import words
from practicus_provider.errors import BackendError

START_PATIENCE = 60.0
"""Seconds that a supervisor has to answer: many of those that a loaded machine needs to start Python."""
_NAME_TAKEN = (errno.EEXIST, errno.ENOTEMPTY)


def write_new(
    folder: ClusterFolder, config: Mapping[str, Any], files: Mapping[str, bytes], executable: Collection[str]
) -> Handle | None:
    """Make the folder aside, whole, and give it its name at once.

    :param config: content of ``cluster.json``.
    :param files: the application's, path -> content.
    :param executable: those of them that may be run as programs.
    :return: None where another creator has given that name to its folder first.
    :raises OSError: it cannot be written.
    """
    aside = ClusterFolder(folder.path.parent / f".new-{config['uid']}")
    try:
        aside.path.mkdir(mode=0o700)
        for name in ("logs", "app"):
            (aside.path / name).mkdir()
        for name, content in files.items():
            target = aside.path / "app" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            if name in executable:
                target.chmod(0o755)
        aside.write("cluster.json", config)
        return Handle(folder.path.name, config["uid"]) if _renamed(aside.path, folder.path) else None
    finally:
        shutil.rmtree(aside.path, ignore_errors=True)


def _renamed(path: Path, name: Path) -> bool:
    try:
        path.rename(name)
    except OSError as error:
        if error.errno not in _NAME_TAKEN:
            raise
        return False
    return True


async def start(folder: ClusterFolder) -> None:
    """Start the supervisor where none lives and none has ended; returns once it answers.

    :raises BackendError: it cannot be started; the folder is gone.
    """
    try:
        code, said = await _started(folder)
    except OSError as error:
        code, said = None, words(error)
    if code == 0:
        return
    said = said or "\n".join(folder.tail("supervisor"))
    with contextlib.suppress(OSError):
        if not folder.supervised():
            shutil.rmtree(folder.path, ignore_errors=True)
    raise BackendError(f"the supervisor of {folder.path.name} cannot be started: {said or f'exit code {code}'}")


async def _started(folder: ClusterFolder) -> tuple[int | None, str]:
    """The exit code of the process that becomes the supervisor's parent, and what it has said."""
    with folder.log("supervisor").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", DAEMON, str(folder.path)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env=inherited(),
            start_new_session=True,
        )
    try:
        async with asyncio.timeout(START_PATIENCE):
            said, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return None, f"it does not answer within {START_PATIENCE:g} s"
    return process.returncode, said.decode(errors="replace").strip()
