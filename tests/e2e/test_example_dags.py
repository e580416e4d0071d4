"""Every example DAG on every backend, by ``airflow dags test`` and by a scheduler and a triggerer; what comes out is
checked with pandas."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from example_dags.data import make_data
from tests.e2e.airflow_home import Airflow, eventually, running, settings
from tests.e2e.commands import commands
from tests.e2e.kubernetes_place import connection, shared_folder
from tests.kubernetes import fresh

DAGS = Path(__file__).parents[2] / "example_dags"
DATE = "2013-01-05"
PATIENCE = 900
"""Seconds that a DAG run may take."""
ENDING = 60
"""Seconds that pods may take to end on a busy machine."""
TAIL = 8000
"""Characters of a failed run's output to show."""
LIST_DAGS = """
import json
from airflow.configuration import conf
from airflow.dag_processing.dagbag import BundleDagBag

folder = conf.get("core", "dags_folder")
bag = BundleDagBag(folder, bundle_path=folder, bundle_name="dags-folder")
dags = {
    dag.dag_id: (dag.doc_md, sorted(dag.tags), {name: param.schema for name, param in dag.params.items()})
    for dag in bag.dags.values()
}
print(json.dumps({"dags": dags, "errors": {str(path): error for path, error in bag.import_errors.items()}}))
"""


@dataclass(frozen=True)
class Run:
    """What one run of a DAG left."""

    state: str
    output: str
    results: Mapping[str, list[Any]]
    """task id -> its XComs, by map index."""

    def result(self, task_id: str) -> Any:
        [value] = self.results[task_id]
        return value


RunDag = Callable[..., Run]
"""Runs the DAG of an id with the params given by name."""


def airflow_command(home: Path, extra: Mapping[str, Any], *args: str) -> str:
    """What a Python that has the example DAGs and the connection prints."""
    process = subprocess.run(
        [sys.executable, *args],
        cwd=home,
        env=settings(home, DAGS, extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
    )
    assert process.returncode == 0, process.stdout[-TAIL:]
    return process.stdout


def left_by(home: Path, dag_id: str, output: str) -> Run:
    """The only run of a DAG."""
    with sqlite3.connect(home / "airflow.db") as database:
        [[state]] = database.execute("SELECT state FROM dag_run WHERE dag_id = ?", [dag_id])
        rows = database.execute(
            "SELECT task_id, CAST(value AS TEXT) FROM xcom WHERE dag_id = ? AND key = 'return_value' "
            "ORDER BY map_index",
            [dag_id],
        )
        results: dict[str, list[Any]] = {}
        for task_id, value in rows:
            results.setdefault(task_id, []).append(json.loads(value))
    return Run(state, output, results)


@contextlib.contextmanager
def by_dags_test(home: Path, extra: Mapping[str, Any]) -> Iterator[RunDag]:
    """``airflow dags test``: one process, and each task in it to its end."""
    with commands(settings(home, DAGS, extra), home) as airflow:

        def done(*args: str) -> str:
            code, output = airflow(*args)
            assert code == 0, output[-TAIL:]
            return output

        def run(dag_id: str, **params: Any) -> Run:
            return left_by(home, dag_id, done("dags", "test", dag_id, DATE, "--conf", json.dumps(params)))

        done("db", "migrate")
        yield run


@contextlib.contextmanager
def by_scheduler(home: Path, extra: Mapping[str, Any], *, deferrable: bool) -> Iterator[RunDag]:
    """A scheduler, its workers and a triggerer, as a user has them who presses Trigger."""
    with running(home, [DAGS], extra, more={"AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE": str(deferrable)}) as airflow:

        def run(dag_id: str, **params: Any) -> Run:
            airflow.trigger(dag_id, "run", params)
            airflow.await_run(dag_id, "run", PATIENCE)
            return left_by(home, dag_id, logs(airflow, dag_id))

        yield run


def logs(airflow: Airflow, dag_id: str) -> str:
    """All lines that the tasks of the only run have logged."""
    tasks = airflow.call("GET", f"/api/v2/dags/{dag_id}/dagRuns/run/taskInstances")["task_instances"]
    lines = (airflow.log(dag_id, "run", task["task_id"]) for task in tasks if task["map_index"] == -1)
    return "\n".join(itertools.chain.from_iterable(lines))


def way(backend: str, how: Callable[..., Any], **more: Any) -> Any:
    """A way to run all of them."""
    name = " ".join((backend, how.__name__, *(key if value else f"not {key}" for key, value in more.items())))
    marks = [pytest.mark.cluster] if backend == "kubernetes" else []
    return pytest.param((backend, functools.partial(how, **more)), id=name, marks=marks)


@pytest.fixture(
    scope="module",
    params=[
        way("local", by_dags_test),
        way("kubernetes", by_dags_test),
        way("kubernetes", by_scheduler, deferrable=True),
        way("kubernetes", by_scheduler, deferrable=False),
    ],
)
def chosen(request: pytest.FixtureRequest) -> tuple[str, Callable[..., Any]]:
    return request.param


@pytest.fixture(scope="module")
def backend(chosen: tuple[str, Callable[..., Any]]) -> str:
    return chosen[0]


@pytest.fixture(scope="module")
def data(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRACTICUS_DATA", str(tmp_path_factory.mktemp("data")))
        yield make_data()


@pytest.fixture(scope="module")
def extra(backend: str, data: Path, request: pytest.FixtureRequest) -> Iterator[Mapping[str, Any]]:
    """Of the connection: all that differs between the backends."""
    if backend == "local":
        yield {"backend": "local"}
    else:
        kubeconfig, image = request.getfixturevalue("kubernetes"), request.getfixturevalue("image")
        with fresh(str(kubeconfig)) as namespace, shared_folder(namespace, data.parent):
            yield connection(namespace, image, data.parent)


@pytest.fixture(scope="module")
def flights(data: Path) -> pd.DataFrame:
    return pd.read_parquet(data / "flights")


@pytest.fixture(scope="module")
def home(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Airflow's."""
    return tmp_path_factory.mktemp("airflow")


@pytest.fixture(scope="module")
def run_dag(chosen: tuple[str, Callable[..., Any]], home: Path, extra: Mapping[str, Any]) -> Iterator[RunDag]:
    with chosen[1](home, extra) as run:
        yield run


def test_every_dag_file_imports_without_an_error_and_holds_one_documented_dag(tmp_path: Path) -> None:
    found = json.loads(airflow_command(tmp_path, {"backend": "local"}, "-c", LIST_DAGS).splitlines()[-1])
    files = {path.stem for path in DAGS.glob("*.py")} - {"data", "demo", "mapreduce"}
    assert found["errors"] == {}
    assert set(found["dags"]) == {f"practicus_{name}" for name in files}
    for dag_id, (doc, tags, params) in found["dags"].items():
        assert doc.startswith("### "), dag_id
        assert "practicus" in tags, dag_id
        assert params, dag_id
        assert all("type" in schema and "title" in schema for schema in params.values()), dag_id


def test_the_data_holds_every_flight_and_making_it_again_changes_nothing(data: Path, flights: pd.DataFrame) -> None:
    written = {path: path.stat().st_mtime_ns for path in data.rglob("*.parquet") if "out" not in path.parts}
    assert make_data() == data
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert len(flights) == 336_776
    assert flights["date"].is_monotonic_increasing
    assert flights["date"].nunique() == 365
    assert {path.name for path in data.parent.iterdir()} == {data.name}


def test_spark_sums_up_the_flights_of_the_chosen_day_from_the_chosen_airport(
    run_dag: RunDag, flights: pd.DataFrame
) -> None:
    run = run_dag("practicus_spark_etl", day=DATE, origin="JFK", late=30, workers=1)
    assert run.state == "success"
    some = flights[(flights["date"].astype("str") == DATE) & (flights["origin"] == "JFK")]
    expected = {
        carrier: (len(part), int(part["dep_time"].isna().sum()), int((part["arr_delay"] >= 30).sum()))
        for carrier, part in some.groupby("carrier")
    }
    summary = run.result("etl")
    assert {row["carrier"]: (row["flights"], row["cancelled"], row["late"]) for row in summary["carriers"]} == expected
    assert {row["carrier"]: row["mean_delay"] for row in summary["carriers"]} == pytest.approx(
        some.groupby("carrier")["arr_delay"].mean().to_dict(), abs=0.006
    )
    assert pd.read_parquet(summary["path"])["flights"].sum() == len(some) == run.result("check")


def test_dask_trains_models_that_beat_the_naive_forecast(run_dag: RunDag, flights: pd.DataFrame) -> None:
    run = run_dag("practicus_dask_training")
    assert run.state == "success"
    arrived = flights.dropna(subset=["arr_delay"])
    tested = arrived[arrived["month"] >= 10]
    metrics = run.result("train")
    assert metrics["flights"] == len(arrived)
    assert metrics["tested"] == len(tested)
    assert metrics["naive_mae"] == pytest.approx((tested["dep_delay"] - tested["arr_delay"]).abs().mean(), abs=0.001)
    assert metrics["mae"] < metrics["naive_mae"]
    assert metrics["params"] in [{"learning_rate": rate, "max_leaf_nodes": 31} for rate in (0.1, 0.3)]
    assert run.result("judge").endswith("minutes off")


def test_dask_trains_on_what_spark_wrote_and_both_agree(run_dag: RunDag, flights: pd.DataFrame, data: Path) -> None:
    run = run_dag("practicus_spark_then_dask", learning_rate=[0.3])
    assert run.state == "success"
    *carriers, everyone = run.result("report")
    arrived = flights.dropna(subset=["arr_delay"])
    names = pd.read_parquet(data / "airlines.parquet").set_index("carrier")["name"]
    by_carrier = arrived.groupby("carrier")["arr_delay"].agg(["count", "mean"]).rename(index=names)
    assert {row["carrier"]: row["flights"] for row in carriers} == by_carrier["count"].to_dict()
    assert {row["carrier"]: row["mean_delay"] for row in carriers} == pytest.approx(
        by_carrier["mean"].to_dict(), abs=0.001
    )
    assert everyone["flights"] == len(arrived)
    assert everyone["model_error"] < everyone["naive_error"]


def test_three_jobs_share_one_cluster_and_a_sensor_brings_the_third_one_s_result(
    run_dag: RunDag, flights: pd.DataFrame
) -> None:
    run = run_dag("practicus_shared_cluster", month=7)
    assert run.state == "success"
    july = flights[flights["month"] == 7]
    for task_id, column in (("by_origin", "origin"), ("by_carrier", "carrier"), ("by_hour_done", "hour")):
        by = july.groupby(column)
        result = run.result(f"flights.{task_id}")
        assert result["flights"] == {str(key): count for key, count in by["flight"].count().items()}
        delays = {str(key): delay for key, delay in by["dep_delay"].mean().dropna().items()}
        assert {key: delay for key, delay in result["mean_delay"].items() if delay is not None} == pytest.approx(
            delays, abs=0.001
        )
    assert "flights" not in run.result("flights.by_hour")


def test_each_airport_has_a_cluster_of_its_own_and_together_they_have_all_flights(
    run_dag: RunDag, flights: pd.DataFrame
) -> None:
    run = run_dag("practicus_mapped", airports=["LGA", "JFK"])
    assert run.state == "success"
    some = flights[flights["origin"] != "EWR"]
    assert [sum(result.values()) for result in run.results["count"]] == [
        (some["origin"] == airport).sum() for airport in ("LGA", "JFK")
    ]
    assert run.result("total") == some.groupby("carrier")["flight"].count().to_dict()


def test_an_adapter_of_the_user_s_own_runs_by_its_dotted_path(run_dag: RunDag, flights: pd.DataFrame) -> None:
    run = run_dag("practicus_custom_adapter")
    assert run.state == "success"
    routes = (flights["origin"] + "-" + flights["dest"]).value_counts()
    assert run.result("routes") == routes.to_dict()
    assert run.result("busiest") == routes.index[:5].to_list()


def test_plain_spark_and_dask_scripts_run_unchanged_and_print_into_the_task_s_log(run_dag: RunDag) -> None:
    run = run_dag("practicus_plain_scripts", partitions=2)
    assert run.state == "success"
    assert run.output.count("Pi is roughly 3.1") == 2
    assert "Connected to tcp://" in run.output


def test_after_all_of_them_no_cluster_is_left(run_dag: RunDag, home: Path, extra: Mapping[str, Any]) -> None:
    def left() -> list[dict[str, Any]]:
        listed = airflow_command(home, extra, "-m", "airflow", "practicus", "list", "--output", "json")
        found: list[dict[str, Any]] = json.loads(listed.splitlines()[-1])
        return found

    found = left()
    assert [cluster for cluster in found if cluster["note"] != "leaving"] == []
    if found:
        eventually("the last one's pods have ended", lambda: not left(), ENDING)
