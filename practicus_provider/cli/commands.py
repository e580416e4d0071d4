"""What the commands do: read the connection and Airflow's database, call a backend, print."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import yaml
from airflow.utils.cli import suppress_logs_and_warning
from airflow.utils.providers_configuration_loader import providers_configuration_loaded

from practicus_provider import lifecycle
from practicus_provider.errors import BackendError, PracticusError
from practicus_provider.hooks.practicus import PracticusHook
from practicus_provider.tail import plain

if TYPE_CHECKING:
    import argparse

    from practicus_provider.backends.base import Backend, Listing
    from practicus_provider.backends.kubernetes import KubernetesBackend
    from practicus_provider.lifecycle import TaskLife

Command = Callable[["argparse.Namespace"], None]


def _command(function: Command) -> Command:
    """Our errors become one line and exit code 1; Airflow's own start-up messages stay out of what is printed.

    Who reads what is printed may have had enough, as ``head`` has, and who waits may press Ctrl-C: both end a command
    without a word, with the exit code that shells have for their signals.
    """

    @functools.wraps(function)
    def run(args: argparse.Namespace) -> None:
        # As Airflow's own commands do that read connections: else it does not look for them in its database.
        os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "server"
        try:
            function(args)
            sys.stdout.flush()
        except PracticusError as error:
            sys.exit(f"{type(error).__name__}: {error}")
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # where Python flushes it once more
            sys.exit(128 + signal.SIGPIPE)
        except KeyboardInterrupt:
            sys.exit(128 + signal.SIGINT)

    quiet: Command = suppress_logs_and_warning(providers_configuration_loaded(run))
    return quiet


@_command
def list_(args: argparse.Namespace) -> None:
    """``airflow practicus list``."""
    from airflow.cli.simple_table import AirflowConsole

    backend = _backend(args)
    found = asyncio.run(backend.list())
    lives = _lives([listing.task for listing in found])
    rows = [_row(listing, life) for listing, life in zip(found, lives, strict=True)]
    match args.output:  # of these two, Airflow's console makes everything text
        case "json":
            print(json.dumps(rows))
        case "yaml":
            _print_yaml([rows])
        case _:
            AirflowConsole().print_as(data=[{**row, "age": f"{row['age']} s"} for row in rows], output=args.output)


@_command
def gc_(args: argparse.Namespace) -> None:
    """``airflow practicus gc``."""
    backend = _backend(args)
    orphans = asyncio.run(lifecycle.orphans(backend, _lives))
    for listing in orphans:
        print(f"{listing.handle.name}: {_task(listing.task)} is over")
    if not orphans:
        print("there is no cluster whose task is over")
    elif not args.dry_run and _confirmed(args, f"Remove these {len(orphans)} clusters?"):
        removed = asyncio.run(lifecycle.sweep(backend, orphans, _lives))
        print(f"{len(removed)} removed")


@_command
def logs_(args: argparse.Namespace) -> None:
    """``airflow practicus logs``."""
    asyncio.run(_print_logs(_backend(args), args.name, args.role))


@_command
def delete_(args: argparse.Namespace) -> None:
    """``airflow practicus delete``."""
    backend = _backend(args)
    listing = asyncio.run(backend.find(args.name))
    if _confirmed(args, f"Remove cluster {args.name} of {_task(listing.task)}?"):
        asyncio.run(backend.delete(listing.handle))
        print(f"cluster {args.name} is removed")


@_command
def rbac_(args: argparse.Namespace) -> None:
    """``airflow practicus rbac``."""
    from practicus_provider.backends.kubernetes.admission import default_deny, policy, right_to_look
    from practicus_provider.backends.kubernetes.rbac import role_of_the_user

    namespace, _, account = args.service_account.rpartition(":")
    if not (namespace and account):
        raise BackendError(f"--service-account={args.service_account!r}: give NAMESPACE:NAME")
    home = _kubernetes(args).site.namespace
    printed = [*role_of_the_user(home, namespace, account)]
    if args.admission:
        printed += [*policy(home), *right_to_look(home, namespace, account)]
    if args.default_deny:
        printed.append(default_deny(home))
    _print_yaml(printed)


@_command
def plan_(args: argparse.Namespace) -> None:
    """``airflow practicus plan``."""
    from practicus_provider.cli.rendering import rendered_operator

    operator, context = rendered_operator(args)
    backend = operator.hook.get_conn()
    preview = operator.preview(backend, context)
    _print_yaml(preview)
    if args.server:
        problems = asyncio.run(backend.try_out(preview))
        sys.exit("\n".join(problems) or None)


# ---- parts


def _backend(args: argparse.Namespace) -> Backend:
    return PracticusHook(args.conn_id, args.namespace).get_conn()


def _lives(tasks: Sequence[Mapping[str, Any]]) -> list[TaskLife]:
    """What Airflow's database says of the tasks that clusters were made for."""
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import select

    lives = []
    with create_session() as session:
        for task in tasks:
            if not {"dag_id", "run_id", "task_id", "map_index"} <= task.keys():
                lives.append(lifecycle.life_of(None, None))
                continue
            run = session.scalar(select(DagRun.state).filter_by(dag_id=task["dag_id"], run_id=task["run_id"]))
            keys = {name: task[name] for name in ("dag_id", "run_id", "task_id", "map_index")}
            state = session.scalar(select(TaskInstance.state).filter_by(**keys)) if run else None
            lives.append(lifecycle.life_of(run, state))
    return lives


def _row(listing: Listing, life: TaskLife) -> dict[str, Any]:
    names = ("dag_id", "task_id", "run_id", "map_index", "try_number")
    return {
        "name": listing.handle.name,
        "state": str(listing.state),
        "note": "leaving" if listing.leaving else "kept" if listing.released else listing.trouble,
        "age": max(0, round(time.time() - listing.created_at)),
        **{name: listing.task.get(name) for name in names},
        "task": life,
    }


def _kubernetes(args: argparse.Namespace) -> KubernetesBackend:
    from practicus_provider.backends.kubernetes import KubernetesBackend

    backend = _backend(args)
    if not isinstance(backend, KubernetesBackend):
        raise BackendError(f"connection {args.conn_id!r} is not of the backend kubernetes: nobody needs rights there")
    return backend


def _print_yaml(data: Any) -> None:
    """Documents, if there are several."""
    documents = data if isinstance(data, (list, tuple)) else [data]
    print(yaml.safe_dump_all(json.loads(json.dumps(documents)), sort_keys=False, width=116, allow_unicode=True), end="")


def _task(task: Mapping[str, Any]) -> str:
    mapped = f"[{task['map_index']}]" if task.get("map_index", -1) >= 0 else ""
    return plain(f"{task.get('dag_id')}.{task.get('task_id')}{mapped} ({task.get('run_id')})")


def _confirmed(args: argparse.Namespace, question: str) -> bool:
    try:
        if args.yes or input(f"{question} [y/N] ").strip().lower() in ("y", "yes"):
            return True
    except EOFError:
        print()
        raise BackendError("nobody answers the question: give --yes to remove without one") from None
    print("nothing was removed")
    return False


async def _print_logs(backend: Backend, name: str, role: str | None) -> None:
    listing = await backend.find(name)
    status = await anext(backend.watch(listing.handle))
    roles = {replica.role for replica in status.replicas}
    if role is not None and role not in roles:
        raise BackendError(f"cluster {name} has no role {role!r}; it has {', '.join(sorted(roles))}")
    shown = plain if sys.stdout.isatty() else str  # who has it in a file or a pipe gets what was written
    async for line in backend.logs(listing.handle, [role] if role else roles, whole=True):
        print(f"[{line.role}-{line.index}] {shown(line.text)}", flush=True)
