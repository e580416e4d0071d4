from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from math import inf
from pathlib import Path
from typing import Any

import dask.config
import pytest

from practicus_provider.adapters import NO_RESULT, load, make_plan
from practicus_provider.adapters.dask import REFUSED
from practicus_provider.errors import SpecError
from practicus_provider.plan import Here, Host, Launch, Plan, Port, Role
from practicus_provider.spec import Elastic, JobSpec, Resources
from practicus_provider.status import State

PROGRAM = (Here.PYTHON, (Here.APP, "/train.py"), "--rate", "0.1", "a b")
SCHEDULER = Port("coordinator", "scheduler")
DASHBOARD = Port("coordinator", "dashboard")
ADDRESS = ("tcp://", Host("coordinator"), ":", SCHEDULER)
SERVE = (
    *(Here.PYTHON, "-m", "distributed.cli.dask_scheduler", "--host", Here.URL_HOST, "--port", SCHEDULER),
    *("--dashboard-address", ("127.0.0.1:", DASHBOARD), "--preload", "practicus_runtime.dask_scheduler"),
)
PORTS = {"scheduler": 8786, "dashboard": 8787, "clients": 8788}
CLIENTS = Port("coordinator", "clients")
TOLD = {"PRACTICUS_CLIENTS_PORT": CLIENTS}
WAITS = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "900s"}
"""Has a client wait for a scheduler that is on its way, for the default start_timeout and what is added to it."""
DRIVE = (Here.PYTHON, "-S", "-m", "practicus_runtime.dask_driver", Host("coordinator"), CLIENTS, *PROGRAM)


def spec(**more: Any) -> JobSpec:
    return JobSpec.of(adapter="dask", **more)


def roles(**more: Any) -> tuple[Role, ...]:
    return load("dask").roles(spec(**more), PROGRAM)


def work(cores: int, memory: int) -> tuple[Any, ...]:
    """A worker's command."""
    return (
        *(Here.PYTHON, "-m", "distributed.cli.dask_worker", ADDRESS, "--host", Here.URL_HOST),
        *("--name", ("worker-", Here.INDEX), "--nthreads", str(cores), "--memory-limit", str(memory)),
        *("--local-directory", Here.SCRATCH, "--no-nanny", "--no-dashboard", "--dashboard-address", "127.0.0.1:0"),
        *("--preload", "practicus_runtime.dask_worker"),
    )


def refused(message: str) -> pytest.RaisesExc[SpecError]:
    return pytest.raises(SpecError, match=f"^{re.escape(message)}$")


BOUNDS = '{"minimum": 2, "maximum": 5, "max_restarts": 3, "join_timeout": 600, "last_call_timeout": 10}'

# ---- the whole plan


def test_a_fixed_cluster_is_a_scheduler_workers_and_the_driver():
    coordinator, worker = Resources(0.5, "1Gi"), Resources("2500m", "4Gi")
    assert roles(workers=3, coordinator_resources=coordinator, worker_resources=worker) == (
        Role("coordinator", Launch(SERVE, TOLD, ports=PORTS, ready="scheduler"), resources=coordinator),
        Role("worker", Launch(work(2, 4 << 30), NO_RESULT), 3, worker),
        Role("driver", Launch(DRIVE, {**WAITS, "DASK_SCHEDULER_ADDRESS": ADDRESS}), resources=coordinator),
    )


def test_an_elastic_clusters_scheduler_is_told_the_bounds_and_starts_with_the_least_workers():
    config = {"PRACTICUS_ELASTIC": BOUNDS}
    assert roles(workers=Elastic(2, 5)) == (
        Role(
            "coordinator",
            Launch(
                (*SERVE, "--preload", "practicus_runtime.dask_elastic"),
                config | TOLD,
                ports=PORTS,
                ready="scheduler",
                spawns="worker",
            ),
        ),
        Role("worker", Launch(work(1, 2 << 30), config | NO_RESULT), 2, elastic=Elastic(2, 5)),
        Role("driver", Launch(DRIVE, WAITS | config | {"DASK_SCHEDULER_ADDRESS": ADDRESS})),
    )


@pytest.mark.parametrize("workers", [3, Elastic(2, 5)])
def test_the_roles_are_the_same_where_replicas_are_pods(workers):
    assert load("dask").pod_roles(spec(workers=workers), PROGRAM) == roles(workers=workers)


def test_the_plan_names_who_decides_the_client_and_the_page():
    job = spec(timeout=60)
    assert make_plan(job, PROGRAM, {"train.py": b""}) == Plan(
        "dask",
        load("dask").roles(job, PROGRAM),
        "driver",
        60,
        {"train.py": b""},
        "distributed:Client",
        {"Dask dashboard": DASHBOARD},
        framework=load("dask").framework,
    )


@pytest.mark.parametrize("application", ["train.py", "local:///train.py", None])
def test_what_runs_is_the_program_and_not_the_specs_application(application):
    assert roles(application=application, application_args=("a", "b"), files=("c",)) == roles()


@pytest.mark.parametrize(
    ("resources", "cores", "memory"),
    [
        (Resources(0.5, "1Mi"), 1, 1 << 20),
        (Resources("100m", "500M"), 1, 500_000_000),
        (Resources(1.9, "1.5Gi"), 1, 3 << 29),
        (Resources(64, "1Ti"), 64, 1 << 40),
    ],
)
def test_a_worker_has_a_thread_for_each_whole_core_and_its_memory_in_bytes(resources, cores, memory):
    assert roles(worker_resources=resources)[1].launch.command == work(cores, memory)


# ---- the environment


def test_the_environment_reaches_every_role():
    env = {"TOKEN": "a=b", "LANG": "C.UTF-8"}
    coordinator, worker, driver = (role.launch.env for role in roles(env=env))
    told = {"DASK_SCHEDULER_ADDRESS": ADDRESS}
    assert (coordinator, worker, driver) == (env | TOLD, env | NO_RESULT, WAITS | env | told)


def test_the_conf_reaches_every_role_as_dasks_environment_variables():
    config = {"DASK_DISTRIBUTED__WORKER__MEMORY__TARGET": "0.7", "DASK_DATAFRAME__SHUFFLE__METHOD": "'p2p'"}
    coordinator, worker, driver = (
        role.launch.env
        for role in roles(conf={"distributed.worker.memory.target": 0.7, "dataframe.shuffle.method": "p2p"})
    )
    assert (coordinator, worker, driver) == (
        config | TOLD,
        config | NO_RESULT,
        WAITS | config | {"DASK_SCHEDULER_ADDRESS": ADDRESS},
    )


def test_the_conf_wins_over_the_environment():
    name = "DASK_DISTRIBUTED__WORKER__MEMORY__TARGET"
    for role in roles(env={name: "0.1"}, conf={"distributed.worker.memory.target": 0.7}):
        assert role.launch.env[name] == "0.7"


def test_the_environment_does_not_lead_the_application_to_another_cluster():
    assert roles(env={"DASK_SCHEDULER_ADDRESS": "tcp://mine"})[2].launch.env == {
        **WAITS,
        "DASK_SCHEDULER_ADDRESS": ADDRESS,
    }


@pytest.mark.parametrize("start", REFUSED)
def test_a_key_that_would_have_no_effect_is_refused_with_what_to_give_instead(start):
    key = start.replace("*", "some.x")
    with refused(f"conf={ {key: 1}!r}: {REFUSED[start]}"):
        roles(conf={key: 1})


@pytest.mark.parametrize(
    ("conf", "more"),
    [
        ({}, ()),
        ({"distributed.worker.preload": ["mine.a", "mine.b"]}, ("--preload", "mine.a", "--preload", "mine.b")),
        ({"distributed.worker.preload": "mine"}, ("--preload", "mine")),
    ],
)
def test_the_users_preloads_come_after_ours(conf, more):
    coordinator, worker, driver = roles(conf=conf)
    assert worker.launch.command == (*work(1, 2 << 30), *more)
    assert coordinator == roles()[0]
    assert driver == roles()[2]


def test_the_users_preloads_of_the_scheduler_come_after_ours():
    coordinator, worker, _ = roles(conf={"distributed.scheduler.preload": ["mine"]}, workers=Elastic(1, 2))
    ours = ("--preload", "practicus_runtime.dask_elastic")
    assert coordinator.launch.command == (*SERVE, *ours, "--preload", "mine")
    assert worker == roles(workers=Elastic(1, 2))[1]


def test_the_bounds_cannot_be_replaced_by_the_environment():
    for role in roles(workers=Elastic(2, 5), env={"PRACTICUS_ELASTIC": "1,100"}):
        assert role.launch.env["PRACTICUS_ELASTIC"] == BOUNDS


# ---- the user's conf, as Dask reads it


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("distributed.worker.memory.target", "DASK_DISTRIBUTED__WORKER__MEMORY__TARGET"),
        ("distributed.scheduler.worker-ttl", "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL"),
        ("distributed.scheduler.worker_ttl", "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL"),
        ("temporary-directory", "DASK_TEMPORARY_DIRECTORY"),
        ("array.chunk-size", "DASK_ARRAY__CHUNK_SIZE"),
    ],
)
def test_a_key_is_the_environment_variable_that_dask_reads_it_from(key, name):
    coordinator = dict(roles(conf={key: 1})[0].launch.env)
    assert coordinator == {name: "1"} | TOLD
    with dask.config.set(dask.config.collect(paths=[], env={name: "1"})):
        assert dask.config.get(key) == 1


@pytest.mark.parametrize(
    "value",
    [
        *(0.7, 1, -1, 1e-7, 10**30, True, False, None, "p2p", "", "None", "true", "0.7", "1GiB", "5s"),
        *('it\'s "quoted"\n\t\\', "größe 🚀", b"\x00\xff", [], [1, "a", None], (1, 2), {"a": {"b-c": [1]}}, {1, 2}),
    ],
)
def test_a_value_is_read_back_as_the_user_gave_it(value):
    env = roles(conf={"distributed.some-key": value})[0].launch.env
    found = dask.config.collect_env(env)["distributed"]["some_key"]
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize("value", [Decimal("0.7"), timedelta(1), Path("/x"), State.FAILED, {"a": inf}, [object]])
def test_a_value_that_dask_would_read_as_another_is_refused(value):
    with refused(
        f"conf={{'distributed.some-key': {value!r}}}: give a string, a number, a bool, None, or a list or dict of these"
    ):
        roles(conf={"distributed.some-key": value})


@pytest.mark.parametrize(
    "key",
    [
        *("", ".", "distributed.", ".distributed", "a..b", "a b", " a", "a ", "a/b", "a=b", "a\n", "a.1b", "a.$(b)"),
        *("1a", "a\0b", "a__b", "_a", "a_", "config", "environ.MALLOC_TRIM_THRESHOLD_"),
    ],
)
def test_a_key_that_cannot_be_dasks_is_refused(key):
    with refused(f"conf={key!r}: give a dotted Dask key such as 'distributed.worker.memory.target'"):
        roles(conf={key: 1})


# ---- the documentation


def test_the_documentation_names_every_key_that_is_refused():
    page = (Path(__file__).parents[2] / "docs" / "dask.md").read_text()
    table = page.split("| what to use |\n")[1].split("\n\n")[0]
    assert {name for row in table.splitlines() for name in re.findall("`([^`]+)`", row.split(" | ")[0])} == {*REFUSED}


def test_how_long_a_client_waits_for_the_scheduler_goes_by_the_start_timeout_and_is_the_users_to_say():
    (name,) = WAITS
    assert roles(start_timeout=60)[2].launch.env[name] == "360s"
    assert roles(conf={"distributed.comm.timeouts.connect": "5s"})[2].launch.env[name] == "'5s'"
    assert roles(env={name: "7s"})[2].launch.env[name] == "7s"
