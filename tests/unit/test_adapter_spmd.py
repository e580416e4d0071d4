"""torch, FairScale, Horovod: what all adapters of ranks have in common, and what each adds."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from practicus_provider.adapters import load, make_plan
from practicus_provider.errors import SpecError
from practicus_provider.plan import Framework, Here, Host, Launch, Plan, Port, Role
from practicus_provider.spec import JobSpec, Resources, WorkerGroup

PROGRAM = (Here.PYTHON, (Here.APP, "/train.py"), "--rate", "0.1", "a b")
SCRIPT = PROGRAM[1:]
RENDEZVOUS = Port("worker", "rendezvous", first=True)
RANKED = ("torch", "deepspeed", "fairscale", "horovod")
ALL = pytest.mark.parametrize("adapter", RANKED)


def told(workers: int, procs: int, threads: int = 1, meets: str | None = None) -> dict[str, Any]:
    """What ranks are told whatever their framework."""
    return {
        "OMP_NUM_THREADS": str(threads),
        "MASTER_ADDR": Host("worker"),
        "MASTER_PORT": RENDEZVOUS,
        "WORLD_SIZE": str(workers * procs),
        "LOCAL_WORLD_SIZE": str(procs),
        "GROUP_RANK": Here.INDEX,
        "GROUP_WORLD_SIZE": str(workers),
        **({"PRACTICUS_MEETS": meets} if meets else {}),
    }


def worker(adapter: str, **more: Any) -> Role:
    (role,) = load(adapter).roles(JobSpec(adapter=adapter, **more), PROGRAM)
    return role


def refused(message: str) -> pytest.RaisesExc[SpecError]:
    return pytest.raises(SpecError, match=f"^{re.escape(message)}$")


# ---- the whole plan


def test_a_training_is_one_role_whose_replicas_all_decide():
    job = JobSpec(adapter="torch", workers=3, worker_resources=Resources(4, "16Gi"), timeout=60)
    command = (Here.PYTHON, "-S", "-m", "practicus_runtime.ranks", *SCRIPT)
    launch = Launch(command, told(3, 1, threads=4, meets="torch"), ports={"rendezvous": 29500})
    assert make_plan(job, PROGRAM, {"train.py": b""}) == Plan(
        "torch",
        (Role("worker", launch, 3, Resources(4, "16Gi", shm="8192Mi")),),
        "worker",
        60,
        {"train.py": b""},
        "practicus_runtime.groups:torch_group",
        framework=Framework({"torch": "pip install torch"}, "images/training/Dockerfile of airflow-provider-practicus"),
    )


def test_fairscale_s_processes_are_prepared_for_a_cpu():
    assert worker("fairscale", workers=2).launch == Launch(
        (Here.PYTHON, "-S", "-m", "practicus_runtime.ranks", *SCRIPT),
        {**told(2, 1, meets="torch"), "PRACTICUS_PREPARE": "practicus_runtime.fairscale_cpu"},
        ports={"rendezvous": 29500},
    )


def test_horovod_s_ranks_are_told_what_horovodrun_tells():
    assert worker("horovod", workers=2, procs_per_worker=3).launch == Launch(
        (Here.PYTHON, "-S", "-m", "practicus_runtime.horovod", *SCRIPT),
        {
            **told(2, 3, meets="horovod"),
            "HOROVOD_SIZE": "6",
            "HOROVOD_LOCAL_SIZE": "3",
            "HOROVOD_CROSS_RANK": Here.INDEX,
            "HOROVOD_CROSS_SIZE": "2",
            "HOROVOD_HOSTNAME": ("worker-", Here.INDEX),
            "HOROVOD_GLOO_RENDEZVOUS_ADDR": Host("worker"),
            "HOROVOD_GLOO_RENDEZVOUS_PORT": RENDEZVOUS,
            "HOROVOD_CONTROLLER": "gloo",
            "HOROVOD_CPU_OPERATIONS": "gloo",
        },
        ports={"rendezvous": 29500},
    )


@ALL
def test_the_roles_are_the_same_where_replicas_are_pods(adapter):
    job = JobSpec(adapter=adapter, workers=3)
    assert load(adapter).pod_roles(job, PROGRAM) == load(adapter).roles(job, PROGRAM)


@ALL
def test_a_training_has_no_cluster_to_share(adapter):
    plan = make_plan(JobSpec(adapter=adapter), PROGRAM)
    with refused(f"adapter={adapter!r}: its replicas are the job: there is no cluster to share"):
        plan.serving()


# ---- ranks


@pytest.mark.parametrize(
    ("workers", "procs", "resources", "world", "local", "threads"),
    [
        (1, None, Resources(), "1", "1", "1"),
        (4, None, Resources("7500m", gpu=8), "32", "8", "1"),
        (2, 4, Resources(16, gpu=8), "8", "4", "4"),
        (2, 2, Resources(3, extra={"vendor.com/npu": 1}), "4", "2", "1"),
    ],
)
def test_a_worker_has_as_many_ranks_as_gpus_unless_the_spec_says(workers, procs, resources, world, local, threads):
    env = worker("torch", workers=workers, procs_per_worker=procs, worker_resources=resources).launch.env
    assert (env["WORLD_SIZE"], env["LOCAL_WORLD_SIZE"], env["OMP_NUM_THREADS"]) == (world, local, threads)


def test_more_ranks_than_gpus_are_refused():
    way_out = "a worker has 2 GPUs: give each process one, or leave it out"
    with refused(f"procs_per_worker=3: {way_out}"):
        worker("torch", procs_per_worker=3, worker_resources=Resources(gpu=2))


@pytest.mark.parametrize("adapter", ["dask", "spark"])
def test_a_framework_without_ranks_refuses_their_number(adapter):
    way_out = f"a worker of {adapter} is one process: leave it out, and give more workers or more cpu"
    with refused(f"procs_per_worker=2: {way_out}"):
        make_plan(JobSpec(adapter=adapter, procs_per_worker=2), PROGRAM)


# ---- groups

GROUPS = (
    WorkerGroup(2, Resources(4, "16Gi", gpu=2, shm="1Gi"), image="gpu:1"),
    WorkerGroup(3, node_selector={"disk": "ssd"}, procs_per_worker=1),
    WorkerGroup(1),
)


def test_groups_are_roles_whose_ranks_follow_each_other():
    job = JobSpec(adapter="torch", workers=GROUPS, procs_per_worker=4, worker_resources=Resources(8, "1Gi", shm="1Mi"))
    command = (Here.PYTHON, "-S", "-m", "practicus_runtime.ranks", *SCRIPT)
    with refused("procs_per_worker=4: a worker has 2 GPUs: give each process one, or leave it out"):
        load("torch").roles(job, PROGRAM)
    job = replace(job, procs_per_worker=2)

    def launch(procs: int, threads: int, workers: int, ranks: int, **more: Any) -> Launch:
        world = {"WORLD_SIZE": "9", "LOCAL_WORLD_SIZE": str(procs), "OMP_NUM_THREADS": str(threads)}
        before = {"PRACTICUS_WORKERS_BEFORE": str(workers), "PRACTICUS_RANKS_BEFORE": str(ranks)}
        return Launch(command, {**told(6, procs, meets="torch"), **world, **before}, **more)

    alike, part = Resources(8, "1Gi", shm="1Mi"), {"part_of": "worker"}
    ssd = {"disk": "ssd"}
    plan = make_plan(job, PROGRAM)
    assert (plan.decides, plan.roles) == (
        "worker",
        (
            Role("worker", launch(2, 2, 0, 0, ports={"rendezvous": 29500}), 2, GROUPS[0].resources, image="gpu:1"),
            Role("worker2", launch(1, 8, 2, 4), 3, alike, node_selector=ssd, **part),
            Role("worker3", launch(2, 4, 5, 7), 1, alike, **part),
        ),
    )
    assert [plan.decisive(role) for role in plan.roles] == [True, True, True]
    assert plan.deciding() == plan


def test_horovod_s_workers_are_counted_over_all_groups_and_have_as_many_ranks():
    roles = load("horovod").roles(JobSpec(adapter="horovod", workers=GROUPS[1:]), PROGRAM)
    for role in roles:
        assert role.launch.env["HOROVOD_CROSS_SIZE"] == "4"
        assert role.launch.env.keys().isdisjoint({"HOROVOD_CROSS_RANK", "HOROVOD_HOSTNAME"})
    with pytest.raises(SpecError, match="with Horovod all workers have as many ranks: give one procs_per_worker="):
        load("horovod").roles(JobSpec(adapter="horovod", workers=GROUPS), PROGRAM)


@pytest.mark.parametrize("adapter", ["dask", "spark"])
def test_a_framework_whose_workers_are_alike_refuses_groups(adapter):
    way_out = f"the workers of {adapter} are alike: give their number, and worker_resources="
    with pytest.raises(SpecError, match=re.escape(way_out)):
        make_plan(JobSpec(adapter=adapter, workers=GROUPS), PROGRAM)


# ---- hangs


@ALL
def test_ranks_are_watched_if_the_spec_says_for_how_long_they_may_be_silent(adapter):
    before, after = worker(adapter).launch, worker(adapter, progress_timeout=60.0).launch
    assert after.ports == before.ports | {"hangs": 29501}
    assert dict(after.env) == dict(before.env) | {
        "PRACTICUS_PROGRESS_TIMEOUT": "60.0",
        "PRACTICUS_KEY": Here.KEY,
        "PRACTICUS_HANGS_ADDR": Host("worker"),
        "PRACTICUS_HANGS_PORT": Port("worker", "hangs", first=True),
    }


@pytest.mark.parametrize("adapter", ["dask", "spark"])
def test_a_framework_without_ranks_refuses_to_watch_them(adapter):
    with refused(f"progress_timeout=60: {adapter} has no ranks that could be heard: leave it out, and give timeout="):
        make_plan(JobSpec(adapter=adapter, progress_timeout=60), PROGRAM)


# ---- what the user gives


@ALL
def test_the_environment_wins_over_the_number_of_threads_and_not_over_the_rendezvous(adapter):
    env = worker(adapter, env={"OMP_NUM_THREADS": "7", "MASTER_PORT": "1", "MINE": "x"}).launch.env
    assert (env["OMP_NUM_THREADS"], env["MASTER_PORT"], env["MINE"]) == ("7", RENDEZVOUS, "x")


@pytest.mark.parametrize("adapter", ["torch", "fairscale", "horovod"])
def test_settings_are_refused_where_a_framework_has_none(adapter):
    with refused(f"conf={{'a': 1}}: {adapter} has no settings: give env=, or application_args="):
        worker(adapter, conf={"a": 1})


@ALL
@pytest.mark.parametrize(("given", "shm"), [(None, "512Mi"), ("64Mi", "64Mi")])
def test_half_of_the_memory_may_be_shared_unless_the_spec_says(adapter, given, shm):
    assert worker(adapter, worker_resources=Resources(memory="1Gi", shm=given)).resources.shm == shm
