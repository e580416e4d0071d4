"""The example DAGs that train, by ``airflow dags test``, on every backend: they lose what one process alone would."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from example_dags.data import make_data
from practicus_provider.backends.base import Backend
from practicus_provider.hooks.practicus import PracticusHook
from tests.e2e.airflow_home import REPO
from tests.e2e.kubernetes_place import connection, shared_folder
from tests.e2e.test_example_dags import DAGS, Run, by_dags_test
from tests.kubernetes import fresh
from tests.plans import PATIENCE

EPOCHS, KILOBYTES = 2, 20
RATE, OTHER_RATE = 0.02, 0.001
PARAMS: Mapping[str, Mapping[str, Any]] = {
    "training_digits": {"epochs": EPOCHS, "learning_rate": RATE},
    "training_fairscale": {"epochs": EPOCHS, "learning_rate": RATE},
    "training_elastic": {"epochs": EPOCHS},
    "training_search": {"epochs": EPOCHS, "learning_rates": [OTHER_RATE, RATE]},
    "training_gpt": {"epochs": EPOCHS, "kilobytes": KILOBYTES},
    "etl_then_training": {"epochs": EPOCHS},
}
"""DAG -> its params."""
RunExample = Callable[[str], Run]
"""The run of a DAG with its params: one, however often it is asked for."""


@pytest.fixture(scope="module", params=["local", pytest.param("kubernetes", marks=pytest.mark.cluster)])
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def home(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Airflow's."""
    return tmp_path_factory.mktemp("airflow")


@pytest.fixture(scope="module")
def extra(
    backend: str, home: Path, python: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Mapping[str, Any]]:
    """Of the connection: all that differs between the backends."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRACTICUS_DATA", str(tmp_path_factory.mktemp("data")))
        if backend == "local":
            root = str(home / "practicus")
            yield {"backend": "local", "root": root, "python": python, "pythons": {"spark": sys.executable}}
        else:
            kubeconfig, image = request.getfixturevalue("kubernetes"), request.getfixturevalue("image")
            folder = make_data().parent
            with fresh(str(kubeconfig)) as namespace, shared_folder(namespace, folder):
                yield {**connection(namespace, image, folder), "image": image("training")}


@pytest.fixture(scope="module")
def run_example(home: Path, extra: Mapping[str, Any]) -> Iterator[RunExample]:
    with by_dags_test(home, extra) as run:
        yield functools.cache(lambda name: run(f"practicus_{name}", **PARAMS[name]))


@pytest.fixture(scope="module")
def reference(run_example: RunExample, python: str) -> Mapping[str, list[float]]:
    """What is trained -> the loss of each epoch, where one process trains it by PyTorch alone."""
    folder = run_example("etl_then_training").result("etl")["path"]
    path = os.pathsep.join(map(str, (DAGS / "jobs", REPO / "practicus_provider" / "runtime")))
    args = (EPOCHS, KILOBYTES, folder, RATE, OTHER_RATE)
    done = subprocess.run(
        [python, str(Path(__file__).with_name("reference.py")), *map(str, args)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[float]] = json.loads(done.stdout)
    assert all(losses == sorted(losses, reverse=True) for losses in found.values()), found
    return found


def said(run: Run) -> list[tuple[str, str]]:
    """Epoch and loss of each line of progress in the log, in their own order: tasks may run in any."""
    return sorted(re.findall(r"\[progress +\d+%\] epoch (\d): loss ([\d.]+)", run.output))


def lines(*trainings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Those of trainings with these metrics."""
    return sorted((str(epoch), str(loss)) for one in trainings for epoch, loss in enumerate(one["losses"], start=1))


@pytest.mark.parametrize(
    ("name", "alone"), [("training_digits", RATE), ("training_fairscale", RATE), ("training_elastic", "elastic")]
)
def test_digits_are_told_by_a_network_that_two_workers_have_trained(
    run_example: RunExample, reference: Mapping[str, list[float]], name: str, alone: object
) -> None:
    run = run_example(name)
    assert run.state == "success", run.output
    metrics = run.result("train")
    assert metrics["losses"] == pytest.approx(reference[str(alone)], abs=1e-4)
    assert metrics["accuracy"] == pytest.approx(0.95, abs=0.05)
    # How many a worker of an elastic job finds when it starts, nobody knows; nor does it matter to the losses.
    assert metrics["ranks"] == 2 or set(metrics["ranks"]) <= {1, 2}
    assert said(run) == lines(metrics)
    assert run.result("judge").startswith(f"{metrics['accuracy']:.1%} of 360 digits, by ")


def test_fairscale_keeps_the_optimizer_s_state_of_some_parameters_on_each_rank(run_example: RunExample) -> None:
    assert 0 < run_example("training_fairscale").result("train")["kept"] < 4


def test_a_gpt_learns_the_same_by_zero_2_and_by_zero_3_but_of_the_latter_each_rank_keeps_half(
    run_example: RunExample, reference: Mapping[str, list[float]]
) -> None:
    run = run_example("training_gpt")
    assert run.state == "success", run.output
    zero2, zero3 = run.result("zero2"), run.result("zero3")
    for metrics in (zero2, zero3):
        assert metrics["losses"] == pytest.approx(reference["gpt"], abs=1e-4)
        assert (metrics["ranks"], metrics["parameters"]) == (2, 137_216)
        assert re.fullmatch(r"The data.{30,}", metrics["sample"], re.DOTALL)
    assert (zero2["kept_by_rank"], zero3["kept_by_rank"]) == (137_216, 68_608)
    assert said(run) == lines(zero2, zero3)
    assert run.result("judge").endswith("of 137,216 parameters a rank keeps 68,608")


def test_the_learning_rate_is_chosen_whose_network_tells_most_digits(
    run_example: RunExample, reference: Mapping[str, list[float]]
) -> None:
    run = run_example("training_search")
    assert run.state == "success", run.output
    slow, quick = run.results["train"]
    assert slow["losses"] == pytest.approx(reference[str(OTHER_RATE)], abs=1e-4)
    assert quick["losses"] == pytest.approx(reference[str(RATE)], abs=1e-4)
    assert said(run) == lines(slow, quick)
    assert run.result("best") == {"learning_rate": RATE, **quick}


def test_horovod_trains_on_what_spark_wrote_and_beats_the_naive_forecast(
    run_example: RunExample, reference: Mapping[str, list[float]]
) -> None:
    run = run_example("etl_then_training")
    assert run.state == "success", run.output
    metrics = run.result("train")
    assert metrics["losses"] == pytest.approx(reference["flights"], abs=1e-4)
    assert (metrics["ranks"], metrics["flights"]) == (2, run.result("etl")["rows"])
    assert metrics["mae"] < metrics["naive_mae"]
    assert run.result("evaluate") == {name: metrics[name] for name in ("tested", "mae", "naive_mae")}
    assert said(run) == lines(metrics)


def test_after_all_of_them_no_cluster_is_left(
    run_example: RunExample, extra: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {run_example(name).state for name in PARAMS} == {"success"}
    there = json.dumps({"conn_type": "practicus", "extra": dict(extra)})
    monkeypatch.setenv("AIRFLOW_CONN_PRACTICUS_DEFAULT", there)
    asyncio.run(_gone(PracticusHook().get_conn()))


async def _gone(backend: Backend) -> None:
    """Wait for what has been deleted to be gone; nothing else is there."""
    async with asyncio.timeout(PATIENCE):
        while found := await backend.list():
            assert [cluster for cluster in found if not cluster.leaving] == []
            await asyncio.sleep(0.3)
