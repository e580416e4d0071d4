"""On a real Airflow and a real Kubernetes: what users do, and what goes wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from urllib.parse import quote

import psutil
import pytest

from practicus_provider.backends.kubernetes.labels import MANAGED
from tests.e2e.airflow_home import REPO, Airflow, eventually, running
from tests.kubernetes import Namespace, fresh

SELECTOR = ",".join(f"{key}={value}" for key, value in MANAGED.items())
KINDS = "all,configmaps,secrets,serviceaccounts,roles,rolebindings,networkpolicies,events"


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


def test_who_was_out_of_memory_is_tried_again_with_more_if_asked_and_else_not_at_all(airflow: Airflow, left) -> None:
    for name in ("grows", "does_not_grow"):
        airflow.trigger(f"pods_memory_{name}", "once", {})
    assert airflow.await_state("pods_memory_grows", "once", "success", "failed") == "success"
    assert airflow.xcom("pods_memory_grows", "once") == 256
    assert "the next try has 4 times the memory of coordinator_resources" in airflow.log("pods_memory_grows", "once")
    assert airflow.await_state("pods_memory_does_not_grow", "once", "success", "failed") == "failed"
    tries = [airflow.task(f"pods_memory_{name}", "once")["try_number"] for name in ("grows", "does_not_grow")]
    assert tries == [2, 1], airflow.log("pods_memory_does_not_grow", "once")


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


def test_the_longest_ids_of_all_alphabets_run(airflow: Airflow, left) -> None:
    dag_id, task_id = quote("Über_" + "DAG" * 80), quote("Größe." + "T" * 230)
    airflow.trigger(dag_id, "long", {"seconds": 0})
    assert airflow.await_state(dag_id, "long", "success", "failed", task_id=task_id) == "success"
    assert airflow.xcom(dag_id, "long", task_id)["host"].startswith("c-")
    eventually("nothing of it is left", lambda: not left(), 30)


@pytest.mark.parametrize(("dag_id", "state"), [("pods_last_try", "running"), ("pods_deferred", "deferred")])
def test_a_task_that_is_cleared_runs_anew_and_its_cluster_goes(airflow: Airflow, left, dag_id: str, state: str) -> None:
    airflow.trigger(dag_id, "cleared", {"seconds": 600})
    first = one_pod(left)
    airflow.await_state(dag_id, "cleared", state)
    eventually("its log is read", lambda: "second 1" in airflow.log(dag_id, "cleared"))
    body = {"dry_run": False, "dag_run_id": "cleared", "task_ids": ["job"], "only_failed": False}
    airflow.call("POST", f"/api/v2/dags/{dag_id}/clearTaskInstances", body)
    eventually("it is tried again", lambda: airflow.task(dag_id, "cleared")["try_number"] == 2)
    eventually("its log is read", lambda: "second 1" in airflow.log(dag_id, "cleared", attempt=2))
    assert one_pod(left) != first
    airflow.await_state(dag_id, "cleared", state)
    path = f"/api/v2/dags/{dag_id}/dagRuns/cleared/taskInstances/job"
    airflow.call("PATCH", path, {"new_state": "failed"})
    eventually("nothing of it is left", lambda: not left(), 60)


# These take the triggerer and the scheduler away, so they come last.
def test_a_triggerers_restart_kills_no_job_and_loses_no_line(airflow: Airflow, left) -> None:
    airflow.trigger("pods_deferred", "restarted", {"seconds": 30})
    pod = one_pod(left)
    eventually("its log is read", lambda: "second 1" in airflow.log("pods_deferred", "restarted"))
    triggerer = airflow.component("triggerer")
    triggerer.terminate()
    psutil.wait_procs([triggerer], 30)
    assert one_pod(left) == pod
    with airflow.another("triggerer"):
        assert airflow.await_state("pods_deferred", "restarted", "success", "failed") == "success"
    said = [line for line in airflow.log("pods_deferred", "restarted") if line.startswith("second")]
    assert said == [f"second {number}" for number in range(30)]
    eventually("nothing of it is left", lambda: not left(), 30)


def test_a_triggerer_that_is_killed_leaves_its_job_to_the_next_one(airflow: Airflow, left) -> None:
    with contextlib.ExitStack() as stack:
        try:
            first = airflow.component("triggerer")
        except StopIteration:  # another test has ended it
            first = stack.enter_context(airflow.another("triggerer"))
        airflow.trigger("pods_deferred", "orphaned", {"seconds": 40})
        pod = one_pod(left)
        eventually("its log is read", lambda: "second 1" in airflow.log("pods_deferred", "orphaned"))
        for process in (first, *first.children(recursive=True)):
            process.kill()
    with airflow.another("triggerer"):
        assert airflow.await_state("pods_deferred", "orphaned", "success", "failed") == "success"
    assert pod.startswith(airflow.xcom("pods_deferred", "orphaned")["host"])
    said = [line for line in airflow.log("pods_deferred", "orphaned") if line.startswith("second")]
    assert list(dict.fromkeys(said)) == [f"second {number}" for number in range(40)]
    eventually("nothing of it is left", lambda: not left(), 30)


def test_a_scheduler_that_is_killed_leaves_its_job_to_the_next_one(airflow: Airflow, left) -> None:
    airflow.trigger("pods_retried", "orphaned", {"seconds": 40})
    pod = one_pod(left)
    eventually("its log is read", lambda: "second 1" in airflow.log("pods_retried", "orphaned"))
    airflow.component("scheduler").kill()
    with airflow.another("scheduler"):
        assert airflow.await_state("pods_retried", "orphaned", "success", "failed") == "success"
    assert pod.startswith(airflow.xcom("pods_retried", "orphaned")["host"])
    eventually("nothing of it is left", lambda: not left(), 30)


def test_deleting_a_dag_removes_the_cluster_of_its_deferred_task(airflow: Airflow, left) -> None:
    # Airflow's scheduler may die of it (3.3: ObjectDeletedError in _schedule_all_dag_runs), so this is the last.
    with airflow.another("scheduler"), airflow.another("triggerer"):
        airflow.trigger("pods_deleted", "deleted", {"seconds": 600})
        one_pod(left)
        airflow.await_state("pods_deleted", "deleted", "deferred")
        eventually("its log is read", lambda: "second 1" in airflow.log("pods_deleted", "deleted"))
        airflow.call("DELETE", "/api/v2/dags/pods_deleted")
        eventually("nothing of it is left", lambda: not left(), 60)
