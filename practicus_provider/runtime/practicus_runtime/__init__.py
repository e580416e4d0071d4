"""What an application may use inside a replica. Standard library only, Python 3.8 and later.

Nothing here is needed to run: a plain script of the framework's own tutorial runs unchanged.
"""

from __future__ import annotations

import json
import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .contract import RESULT_LIMIT, Env

if TYPE_CHECKING:
    from practicus_runtime.task import Context

__all__ = ["RESULT_LIMIT", "Context", "context", "get_client", "progress", "set_result"]


def __getattr__(name: str) -> Any:
    if name == "Context":
        from practicus_runtime.task import Context

        return Context
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def context() -> Context:
    """The task instance, role and rank that this process runs for.

    :raises RuntimeError: this is not a replica of ours.
    """
    from practicus_runtime.task import Context

    try:
        task = json.loads(os.environ[Env.TASK])
        index = int(os.environ[Env.INDEX])
        return Context(
            dag_id=task["dag_id"],
            task_id=task["task_id"],
            run_id=task["run_id"],
            map_index=task["map_index"],
            try_number=task["try_number"],
            attempt=task.get("attempt", 1),
            logical_date=task["logical_date"],
            role=os.environ[Env.ROLE],
            index=index,
            rank=int(os.environ.get("RANK", index)),
            world_size=int(os.environ.get("WORLD_SIZE", 1)),
            volumes=json.loads(os.environ.get(Env.VOLUMES, "{}")),
        )
    except KeyError as missing:
        raise RuntimeError(f"not inside a replica: the environment lacks {missing}") from None


def get_client() -> Any:
    """The framework's client, connected to this cluster: a ``SparkSession``, a dask ``Client``, ...

    :raises RuntimeError: this is not a replica, or its adapter has no client.
    """
    path = os.environ.get(Env.CLIENT)
    if not path:
        raise RuntimeError(f"there is no client here: {Env.CLIENT} is not set by the cluster's adapter")
    module, _, attributes = path.partition(":")
    target: Any = import_module(module)
    for attribute in attributes.split("."):
        target = getattr(target, attribute)
    return target()


def set_result(obj: Any) -> None:
    """Make ``obj`` the task's XCom; the last call counts.

    :param obj: anything that JSON can hold, up to :data:`RESULT_LIMIT` bytes. NumPy's numbers, and tensors of one
        number, become Python's; NaN and the infinities are refused, as an XCom's database may refuse them.
    :raises TypeError: JSON cannot hold it, or Airflow would make an object of it; it names the place and the type.
    :raises ValueError: it is too large; write it to storage and pass the path.
    :raises RuntimeError: this is no replica, or one whose results nobody asks for: a Dask worker, or a Spark executor.
    """
    from practicus_runtime.results import plain, refused, unsafe

    if Env.RESULT_OF in os.environ:
        raise RuntimeError(
            f"set_result() has no effect on a {os.environ[Env.ROLE]}: return the value to the application, and "
            f"call it there, in the {os.environ[Env.RESULT_OF]}"
        )
    try:
        text = json.dumps(obj, allow_nan=False, default=plain)
    except (TypeError, ValueError) as error:
        what = next(refused(obj), str(error))
        raise TypeError(f"set_result() takes what JSON can hold: {what}") from None
    for what in unsafe(obj):
        raise TypeError(f"set_result() takes mere data: {what}")
    if len(text) > RESULT_LIMIT:
        raise ValueError(
            f"the result has {len(text)} bytes of JSON, over the {RESULT_LIMIT} that fit: store it, pass its path"
        )
    path = os.environ.get(Env.RESULT)
    if path is None:
        raise RuntimeError(f"not inside a replica: {Env.RESULT} is not set")
    with open(path + ".new", "w") as file:
        file.write(text)
    os.replace(path + ".new", path)


def progress(fraction: float, text: str = "") -> None:
    """Say in the task's log how far the job is.

    :param fraction: from 0 to 1.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction={fraction!r}: give a number from 0 to 1")
    print(f"[progress {fraction:4.0%}] {text}".rstrip(), flush=True)
