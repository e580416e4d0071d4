"""Volumes without mounts: a folder of this machine stands for each, and replicas are told which."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from practicus_provider.backends.local.folder import ClusterFolder
from practicus_provider.checks import is_below
from practicus_provider.errors import BackendError
from practicus_provider.plan import Plan
from practicus_provider.runtime.practicus_runtime.contract import Env
from practicus_provider.spec import Volume


def prepare_volumes(volumes: Iterable[Volume], root: Path) -> None:
    """Make the folders of claims, and see that those are there which are not ours to make.

    :param root: the backend's.
    :raises BackendError: no folder stands for a volume.
    """
    for volume in volumes:
        folder = _shared(volume, root)
        if folder is None and volume.nfs is not None:
            raise BackendError(
                f"the local backend mounts nothing: give Volume(path={volume.path!r}, nfs={volume.nfs!r}, local=...), "
                "a folder of this machine that stands for it"
            )
        if folder is None:
            continue
        if volume.claim is not None and volume.local is None:
            folder.mkdir(parents=True, exist_ok=True)
        if not folder.is_dir():
            way_out = "make it, or give local=, another one that stands for it"
            raise BackendError(f"there is no folder {folder} for Volume(path={volume.path!r}): {way_out}")


def volume_env(plan: Plan, folder: ClusterFolder, replica: str) -> dict[str, str]:
    """What a replica is told of where its volumes are, and its cluster's folder for checkpoints; makes its own ones."""
    if not plan.volumes:
        return {}
    found = {}
    for number, volume in enumerate(plan.volumes):
        found[volume.path] = _shared(volume, folder.path.parent) or folder.scratch(replica) / f"volume-{number}"
        if volume.empty_dir is not None:
            found[volume.path].mkdir(exist_ok=True)
    env = {Env.VOLUMES: json.dumps({path: str(here) for path, here in found.items()})}
    if plan.checkpoints is not None:
        on = max((path for path in found if is_below(plan.checkpoints, path)), key=len)
        here = found[on] / plan.checkpoints[len(on) :].lstrip("/") / folder.path.name
        env[Env.CHECKPOINT_DIR] = str(here)
    return env


def _shared(volume: Volume, root: Path) -> Path | None:
    """The folder that stands for a volume, whichever replica asks; None where each has its own, or there is none."""
    if volume.local is not None:
        return Path(volume.local)
    if volume.claim is not None:
        return root / "volumes" / volume.claim
    return None if volume.host_path is None else Path(volume.host_path)
