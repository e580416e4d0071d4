"""torch and Horovod on a number of workers that may change."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from practicus_provider.adapters import load, make_plan
from practicus_provider.errors import SpecError
from practicus_provider.plan import Here, Host, Launch, Plan, Port, Role
from practicus_provider.spec import Elastic, JobSpec, Resources

PROGRAM = (Here.PYTHON, (Here.APP, "/train.py"), "--rate", "0.1")
MEETING, STORE = Port("coordinator", "rendezvous"), Port("coordinator", "store")
BOUNDS = Elastic(2, 5)
ALL = pytest.mark.parametrize("adapter", ["torch", "horovod"])


def planned(adapter: str, **more: Any) -> Plan:
    return make_plan(JobSpec.of(adapter=adapter, workers=BOUNDS, **more), PROGRAM)


def refused(message: str) -> pytest.RaisesExc[SpecError]:
    return pytest.raises(SpecError, match=f"^{re.escape(message)}$")


def coordinator(rules: str, **limits: float) -> Role:
    defaults = {"max_restarts": 3, "join_timeout": 600, "last_call_timeout": 10}
    launch = Launch(
        (Here.PYTHON, "-m", "practicus_runtime.elastic", rules, Here.HOST, MEETING, STORE),
        {
            "PRACTICUS_KEY": Here.KEY,
            "PRACTICUS_ELASTIC": json.dumps({"minimum": 2, "maximum": 5, **defaults, **limits}),
        },
        ports={"rendezvous": 29500, "store": 29501},
        ready="rendezvous",
        spawns="worker",
    )
    return Role("coordinator", launch, resources=Resources(memory="1Gi"))


def worker(rules: str, procs: int, **env: Any) -> Role:
    told = {
        "OMP_NUM_THREADS": "2",
        "MINE": "x",
        "LOCAL_WORLD_SIZE": str(procs),
        "MASTER_PORT": Port("worker", "rendezvous"),
        "PRACTICUS_KEY": Here.KEY,
        "PRACTICUS_COORDINATOR": (Host("coordinator"), ":", MEETING),
        "PRACTICUS_STORE": (Host("coordinator"), ":", STORE),
        **env,
    }
    launch = Launch(
        (Here.PYTHON, "-m", "practicus_runtime.member", rules, *PROGRAM[1:]),
        told,
        ports={"rendezvous": 29500},
        after=(MEETING,),
    )
    return Role("worker", launch, 2, Resources(4, "4Gi", shm="2048Mi"), BOUNDS)


def test_torch_s_workers_join_at_a_coordinator_that_decides():
    job = {"procs_per_worker": 2, "env": {"MINE": "x"}, "conf": {"max_restarts": 9}}
    resources = {"worker_resources": Resources(4, "4Gi"), "coordinator_resources": Resources(memory="1Gi")}
    roles = (coordinator("torch", max_restarts=9), worker("torch", 2))
    assert planned("torch", timeout=60, **job, **resources) == Plan(
        *("torch", roles, "coordinator", 60),
        client="practicus_runtime.groups:torch_group",
        framework=load("torch").framework,
    )


def test_horovod_s_do_so_too_and_notice_others():
    job = {"procs_per_worker": 2, "env": {"MINE": "x"}}
    resources = {"worker_resources": Resources(4, "4Gi"), "coordinator_resources": Resources(memory="1Gi")}
    told = {
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
        "HOROVOD_ELASTIC": "1",
        "PRACTICUS_PREPARE": "practicus_runtime.horovod_elastic",
    }
    roles = (coordinator("horovod"), worker("horovod", 2, **told))
    assert planned("horovod", timeout=60, **job, **resources) == Plan(
        *("horovod", roles, "coordinator", 60),
        client="practicus_runtime.groups:horovod",
        framework=load("horovod").framework,
    )


@ALL
@pytest.mark.parametrize(
    ("conf", "message"),
    [
        (
            {"max_restart": 1},
            "conf={'max_restart': 1}: an elastic job has these settings: max_restarts, join_timeout, last_call_timeout",
        ),
        ({"max_restarts": 1.5}, "conf['max_restarts']=1.5: give a whole number of at least 0"),
        ({"max_restarts": True}, "conf['max_restarts']=True: give a whole number of at least 0"),
        ({"join_timeout": -1}, "conf['join_timeout']=-1: give a number of seconds of at least 0"),
        ({"last_call_timeout": "1"}, "conf['last_call_timeout']='1': give a number of seconds of at least 0"),
        ({"join_timeout": float("inf")}, "conf['join_timeout']=inf: give a number of seconds of at least 0"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(adapter, conf, message):
    with refused(message):
        planned(adapter, conf=conf)


@ALL
def test_the_environment_does_not_win_over_where_workers_join(adapter):
    env = planned(adapter, env={"PRACTICUS_COORDINATOR": "x", "OMP_NUM_THREADS": "7"}).role("worker").launch.env
    assert (env["PRACTICUS_COORDINATOR"], env["OMP_NUM_THREADS"]) == ((Host("coordinator"), ":", MEETING), "7")


@pytest.mark.parametrize("adapter", ["deepspeed", "fairscale"])
def test_what_trains_on_a_fixed_number_of_workers_refuses_another(adapter):
    with refused(f"workers=Elastic(min=2, max=5): {adapter} trains on a fixed number of workers: give a number"):
        planned(adapter)


@ALL
def test_workers_that_come_and_go_are_not_watched_for_hangs(adapter):
    way_out = "workers that come and go are not watched for hangs: leave it out, and give timeout="
    with refused(f"progress_timeout=60: {way_out}"):
        planned(adapter, progress_timeout=60)
