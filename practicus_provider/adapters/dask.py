"""Dask: a scheduler, workers, and a driver that runs the application.

Sources: Dask's ``dask scheduler`` and ``dask worker`` command lines, and its configuration by environment
(https://docs.dask.org/en/stable/configuration.html#environment-variables).
"""

from __future__ import annotations

import ast
import contextlib
import json
import re

from practicus_provider.adapters import DOCKERFILE, NO_RESULT, Adapter, Program
from practicus_provider.errors import SpecError
from practicus_provider.plan import Framework, Here, Host, Launch, Part, Port, Role, Text
from practicus_provider.runtime.practicus_runtime.contract import Env, Limits
from practicus_provider.runtime.practicus_runtime.waiting import PATIENCE
from practicus_provider.spec import JobSpec

SCHEDULER = Port("coordinator", "scheduler")
DASHBOARD = Port("coordinator", "dashboard")
CLIENTS = Port("coordinator", "clients")
CONNECT = "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT"
ADDRESS: tuple[Part, ...] = ("tcp://", Host("coordinator"), ":", SCHEDULER)
_NANNY = "a worker has no nanny here"
_PLAIN = "leave it out: replicas speak plain TCP, which on Kubernetes a NetworkPolicy closes to all others"
REFUSED = {
    "scheduler-address": "leave it out: where the cluster is, the task knows",
    "distributed.comm.default-scheme": _PLAIN,
    "distributed.comm.require-encryption": _PLAIN,
    "distributed.comm.tls.*": _PLAIN,
    "distributed.nanny.environ.*": f"{_NANNY}: give env=",
    "distributed.nanny.*": f"{_NANNY}: leave it out",
    "distributed.worker.memory.terminate": f"{_NANNY} to end it: leave it out; Kubernetes ends what exceeds its memory",
    "distributed.adaptive.minimum": "give workers=Elastic(min, max)",
    "distributed.adaptive.maximum": "give workers=Elastic(min, max)",
}
"""Key, or the beginning of some, of ``conf`` -> what to give instead."""
_WORD = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
"""Of a key: Dask lowers its environment variables' names, and reads ``__`` as a dot."""


class DaskAdapter(Adapter):
    """Dask's distributed scheduler; ``Client()`` without arguments finds it."""

    client = "distributed:Client"
    framework = Framework(
        dict.fromkeys(("distributed", "dask"), "pip install dask[distributed] bokeh"), f"images/dask/{DOCKERFILE}"
    )
    links = {"Dask dashboard": DASHBOARD}
    apart = frozenset()  # the scheduler unpickles what tasks are made of

    def roles(self, spec: JobSpec, program: Program) -> tuple[Role, ...]:
        """Coordinator (the scheduler), ``spec.workers`` workers, and the driver."""
        config = _config(spec)
        preloads = ["practicus_runtime.dask_scheduler"]
        if spec.elastic:
            preloads.append("practicus_runtime.dask_elastic")
            config[Env.ELASTIC] = json.dumps(Limits(spec.elastic.min, spec.elastic.max).to_json())
        coordinator = Launch(
            command=(Here.PYTHON, "-m", "distributed.cli.dask_scheduler", "--host", Here.URL_HOST, "--port", SCHEDULER)
            + ("--dashboard-address", ("127.0.0.1:", DASHBOARD), *_preload(spec, "scheduler", *preloads)),
            env={**spec.env, **config, Env.CLIENTS_PORT: CLIENTS},
            ports={"scheduler": 8786, "dashboard": 8787, "clients": 8788},
            ready="scheduler",
            spawns="worker" if spec.elastic else None,
        )
        worker = Launch(
            command=(Here.PYTHON, "-m", "distributed.cli.dask_worker", ADDRESS, "--host", Here.URL_HOST)
            + ("--name", ("worker-", Here.INDEX), "--nthreads", str(spec.worker_resources.cores))
            + ("--memory-limit", str(spec.worker_resources.memory_bytes), "--local-directory", Here.SCRATCH)
            # Its pages, which it has without a dashboard too, would be at all addresses of IPv4, whoever asks.
            + ("--no-nanny", "--no-dashboard", "--dashboard-address", "127.0.0.1:0")
            + _preload(spec, "worker", "practicus_runtime.dask_worker"),
            env={**spec.env, **config, **NO_RESULT},
        )
        # By default a client gives up after 30 s, and the scheduler's image may still be pulled.
        patience = f"{spec.start_timeout + PATIENCE:g}s"
        driver = Launch(
            command=(Here.PYTHON, "-S", "-m", "practicus_runtime.dask_driver", Host("coordinator"), CLIENTS, *program),
            env={CONNECT: patience, **spec.env, **config} | {"DASK_SCHEDULER_ADDRESS": ADDRESS},
        )
        return (
            Role("coordinator", coordinator, resources=spec.coordinator_resources),
            Role("worker", worker, spec.min_workers, spec.worker_resources, spec.elastic),
            Role("driver", driver, resources=spec.coordinator_resources),
        )


def _config(spec: JobSpec) -> dict[str, Text]:
    """The user's configuration as the variables that Dask reads."""
    for key, value in spec.settings.items():
        words = key.split(".")
        starts = (key, *(".".join([*words[:end], "*"]) for end in range(len(words) - 1, 0, -1)))
        way_out = next((REFUSED[start] for start in starts if start in REFUSED), None)
        if way_out:
            raise SpecError("conf", {key: value}, way_out)
    return {_env_name(key): _literal(key, value) for key, value in spec.settings.items() if key not in _PRELOADS}


_PRELOADS = {f"distributed.{kind}.preload": kind for kind in ("scheduler", "worker")}
"""Given on the command line, where ours would hide the user's."""


def _preload(spec: JobSpec, kind: str, *ours: str) -> Program:
    """Options that have a scheduler or a worker load these modules, and the user's."""
    theirs = spec.settings.get(f"distributed.{kind}.preload", [])
    modules = (*ours, *([theirs] if isinstance(theirs, str) else theirs))
    return tuple(word for module in modules for word in ("--preload", module))


def _env_name(key: str) -> str:
    """``distributed.worker.memory.target`` as the environment variable that Dask reads it from."""
    if not all(map(_WORD.fullmatch, key.split("."))) or key == "config":
        raise SpecError("conf", key, "give a dotted Dask key such as 'distributed.worker.memory.target'")
    return "DASK_" + key.replace(".", "__").replace("-", "_").upper()


def _literal(key: str, value: object) -> str:
    """The text that Dask reads as that very value, by ``ast.literal_eval``."""
    text = repr(value)
    with contextlib.suppress(ValueError, SyntaxError):
        if ast.literal_eval(text) == value:
            return text
    raise SpecError("conf", {key: value}, "give a string, a number, a bool, None, or a list or dict of these")
