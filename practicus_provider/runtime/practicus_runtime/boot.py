"""First process of a container: ``python3 -I -S boot.py ROLE``. Unpacks what travels with the job, then launches.

It lies beside ``launches.json`` and ``bundle.tgz`` (our runtime, and the user's application), needs nothing else, and
is the launcher from then on, as PID 1.
"""

from __future__ import annotations

import json
import os
import sys
import tarfile
from importlib import import_module
from typing import Any

SAFELY: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
"""Python 3.12 and 3.13 warn without it; 3.8 does not know it."""
MESSAGE = "/dev/termination-log"
"""Where Kubernetes reads a container's last words (``terminationMessagePath``)."""


def main(role: str) -> None:
    """Be the launcher of that role's command."""
    bundle, scratch = os.path.dirname(os.path.abspath(__file__)), os.getcwd()
    ours = os.path.join(scratch, ".practicus")
    with tarfile.open(os.path.join(bundle, "bundle.tgz")) as archive:
        archive.extractall(ours, **SAFELY)
    sys.path.append(os.path.join(ours, "runtime"))  # after Python's own modules
    from practicus_runtime.contract import FAILURE_FILE, LAUNCHES_FILE, RESULT_FILE, Env, ReplicaLaunch, RoleLaunch

    with open(os.path.join(bundle, LAUNCHES_FILE)) as file:
        launch = RoleLaunch.from_json(json.load(file)[role])
    for name, parts in launch.files.items():
        path = os.path.join(scratch, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text(parts))
    os.environ.update({name: text(parts) for name, parts in launch.env.items()})
    search = [os.path.join(ours, "app"), os.path.join(ours, "runtime"), os.environ.get("PYTHONPATH", "")]
    if not os.access(os.environ.get("HOME", ""), os.W_OK):
        os.environ["HOME"] = scratch
    os.environ.update(
        {
            "PYTHONPATH": os.pathsep.join(filter(None, search)),
            "PYTHONUNBUFFERED": "1",
            Env.BUNDLE: bundle,
            Env.RESULT: os.path.join(ours, RESULT_FILE),
            Env.FAILURE: os.path.join(ours, FAILURE_FILE),
            **({Env.SPAWNS: launch.spawns} if launch.spawns else {}),
        }
    )
    order = ReplicaLaunch(
        command=[text(parts) for parts in launch.command],
        after=launch.after,
        grace=launch.grace,
        message=MESSAGE,
        nonce=os.environ.pop(Env.NONCE, None),
    )
    # In this process: another interpreter would take as long as this one has.
    import_module("practicus_runtime.launcher").main(order)


def text(parts: list[Any]) -> str:
    """A text of the plan; what only this pod knows stands in it as a reference."""
    from practicus_runtime.contract import Env

    host = os.environ[Env.HOST]
    facts = {
        "python": sys.executable,
        "host": host,
        "url_host": f"[{host}]" if ":" in host else host,
        "index": os.environ[Env.INDEX],
        "key": os.environ.get(Env.KEY, ""),
    }
    return "".join(part if isinstance(part, str) else facts[part["here"]] for part in parts)


if __name__ == "__main__":
    main(sys.argv[1])
