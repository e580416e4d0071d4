"""On a real Airflow and a real Kubernetes: what users do, and what goes wrong."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator

import psutil
import pytest

from practicus_provider.backends.kubernetes.render import MANAGED
from tests.e2e.airflow_home import REPO, Airflow, eventually, running
from tests.kubernetes import Namespace, fresh

SELECTOR = ",".join(f"{key}={value}" for key, value in MANAGED.items())
KINDS = "pods,jobs,configmaps,services,serviceaccounts,roles,rolebindings,networkpolicies"


@pytest.fixture(scope="module")
def place(kubernetes) -> Iterator[Namespace]:
    with fresh(str(kubernetes)) as namespace:
        yield namespace


@pytest.fixture(scope="module")
def airflow(
    place: Namespace, image: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Airflow]:
    extra = {"namespace": place.name, "kubeconfig": place.kubeconfig, "image": image("python")}
    with running(tmp_path_factory.mktemp("airflow"), [REPO / "tests" / "e2e" / "dags"], extra) as airflow:
        yield airflow


@pytest.fixture
def left(place: Namespace, kubectl: Callable[..., str]) -> Iterator[Callable[[], list[str]]]:
    """What there is of any cluster; afterwards no pod may be, and nothing else once its time to live is over."""

    def look() -> list[str]:
        return kubectl("get", KINDS, "-n", place.name, "-l", SELECTOR, "-o", "name").split()

    yield look
    eventually("no pod is left", lambda: not any(name.startswith("pod/") for name in look()), 30)
    kubectl("delete", "jobs", "-n", place.name, "-l", SELECTOR, "--wait")


def one_pod(left: Callable[[], list[str]]) -> str:
    (pod,) = eventually("the job has its pod", lambda: [name for name in left() if name.startswith("pod/")])
    return pod.removeprefix("pod/")


def test_a_deferred_job_ends_with_its_result_and_its_log_each_line_once(airflow: Airflow, left) -> None:
    airflow.trigger("pods_deferred", "once", {"seconds": 4})
    pod = one_pod(left)
    assert airflow.await_state("pods_deferred", "once", "success", "failed") == "success"
    assert pod.startswith(airflow.xcom("pods_deferred", "once")["host"])
    said = [line for line in airflow.log("pods_deferred", "once") if line.startswith(("second", "Completed"))]
    assert said == [*(f"second {number}" for number in range(4)), "Completed: driver-0 ended"]
    eventually("nothing of it is left", lambda: not left(), 30)


def test_marking_a_deferred_task_failed_removes_its_cluster(airflow: Airflow, left) -> None:
    airflow.trigger("pods_deferred", "marked", {"seconds": 600})
    one_pod(left)
    airflow.await_state("pods_deferred", "marked", "deferred")
    eventually("its log is read", lambda: "second 1" in airflow.log("pods_deferred", "marked"))
    body = {"new_state": "failed"}
    airflow.call("PATCH", "/api/v2/dags/pods_deferred/dagRuns/marked/taskInstances/job", body)
    eventually("nothing of it is left", lambda: not left(), 30)


def test_a_retry_after_the_workers_death_adopts_the_running_job(airflow: Airflow, left) -> None:
    airflow.trigger("pods_retried", "killed", {"seconds": 25})
    pod = one_pod(left)
    worker = eventually("the task has a process", lambda: airflow.task("pods_retried", "killed")["pid"])
    eventually("its log is read", lambda: "second 1" in airflow.log("pods_retried", "killed"))
    psutil.Process(worker).kill()
    eventually("it is tried again", lambda: airflow.task("pods_retried", "killed")["try_number"] == 2)
    assert one_pod(left) == pod
    assert airflow.await_state("pods_retried", "killed", "success", "failed") == "success"
    eventually("nothing of it is left", lambda: not left(), 30)
    assert pod.startswith(airflow.xcom("pods_retried", "killed")["host"])


def test_a_job_whose_last_tries_worker_is_killed_does_not_stay(airflow: Airflow, left) -> None:
    airflow.trigger("pods_last_try", "killed", {"seconds": 600})
    pod = one_pod(left)
    eventually("its log is read", lambda: "second 1" in airflow.log("pods_last_try", "killed"))
    psutil.Process(airflow.task("pods_last_try", "killed")["pid"]).kill()
    assert airflow.await_state("pods_last_try", "killed", "failed", "success") == "failed"
    eventually("its pod has ended", lambda: f"pod/{pod}" not in left(), 60)


# It takes the triggerer away, so it comes last.
def test_a_triggerers_restart_kills_no_job_and_loses_no_line(airflow: Airflow, left) -> None:
    airflow.trigger("pods_deferred", "restarted", {"seconds": 30})
    pod = one_pod(left)
    eventually("its log is read", lambda: "second 1" in airflow.log("pods_deferred", "restarted"))
    triggerer = airflow.component("triggerer")
    triggerer.terminate()
    psutil.wait_procs([triggerer], 30)
    assert one_pod(left) == pod
    with (airflow.home / "triggerer.log").open("ab") as log:
        second = subprocess.Popen(["airflow", "triggerer"], env=airflow.env, stdout=log, stderr=log, cwd=airflow.home)
    try:
        assert airflow.await_state("pods_deferred", "restarted", "success", "failed") == "success"
    finally:
        second.terminate()
        second.wait(30)
    said = [line for line in airflow.log("pods_deferred", "restarted") if line.startswith("second")]
    assert said == [f"second {number}" for number in range(30)]
    eventually("nothing of it is left", lambda: not left(), 30)
