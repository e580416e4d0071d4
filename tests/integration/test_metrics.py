"""What a real job tells Airflow's metrics, by a real StatsD socket, from a task's own process and from a trigger."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk._shared.observability.metrics.base_stats_logger import NoStatsLogger
from airflow.sdk.observability import stats
from airflow.sdk.observability.metrics import stats_utils
from airflow.triggers.base import TaskSuccessEvent
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from practicus_provider.adapters import Adapter, Program
from practicus_provider.backends.local import LocalBackend
from practicus_provider.errors import JobFailed
from practicus_provider.lifecycle import Policy
from practicus_provider.operators.job import PracticusRunJobOperator
from practicus_provider.plan import Here, Launch, Role
from practicus_provider.spec import JobSpec
from practicus_provider.triggers.job import PracticusJobTrigger
from tests.plans import PATIENCE, created, plan, role

PRICES = {"currency": "USD", "cpu_hour": 3600}


class Plain(Adapter):
    """A driver alone, whose application is an exit code."""

    def roles(self, spec: JobSpec, program: Program) -> tuple[Role, ...]:
        return (Role("driver", Launch((Here.PYTHON, "-c", f"raise SystemExit({spec.application_args[0]})"))),)


PLAIN = f"{__name__}.Plain"


@pytest.fixture
def backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalBackend:
    """Where the connection ``practicus_default`` leads."""
    extra = {"backend": "local", "root": str(tmp_path / "root"), "pricing": PRICES}
    monkeypatch.setenv("AIRFLOW_CONN_PRACTICUS_DEFAULT", json.dumps({"conn_type": "practicus", "extra": extra}))
    return LocalBackend(tmp_path / "root")


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], dict[str, float]]]:
    """What Airflow has sent to StatsD: name with tags -> value."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.setblocking(False)
        settings = {"STATSD_ON": "True", "STATSD_PORT": str(server.getsockname()[1]), "STATSD_INFLUXDB_ENABLED": "True"}
        for name, value in ({"STATSD_HOST": "127.0.0.1"} | settings).items():
            monkeypatch.setenv(f"AIRFLOW__METRICS__{name}", value)
        client = stats_utils.get_stats_factory()()
        stats.initialize(factory=lambda: client, export_legacy_names=False)

        def read() -> dict[str, float]:
            found = {}
            for _ in range(100):
                try:
                    name, _, value = server.recv(4096).decode().partition(":")
                except BlockingIOError:
                    break
                if "practicus." in name:
                    found[name] = float(re.fullmatch(r"([\d.]+)\|(ms|c)", value)[1])
            return found

        yield read
        client.statsd.close()
        stats.initialize(factory=NoStatsLogger, export_legacy_names=False)


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """What goes to OpenTelemetry."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    yield exporter
    provider.shutdown()


def names(reason: str, adapter: str) -> set[str]:
    tags = f",adapter={adapter},backend=local,reason={reason}"
    return {f"airflow.practicus.{name}{tags}" for name in ("pending", "run", "teardown", "ended")}


@pytest.mark.parametrize(("code", "reason"), [(0, "Completed"), (3, "Error")])
def test_a_task_that_waits_itself_counts_its_job_and_says_what_it_cost(
    backend: LocalBackend,
    sent: Callable[[], dict[str, float]],
    spans: InMemorySpanExporter,
    code: int,
    reason: str,
) -> None:
    operator = PracticusRunJobOperator(
        task_id="t", adapter=PLAIN, application="local:///job.py", application_args=[str(code)], deferrable=False
    )
    pushed: dict[str, Any] = {}
    task = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1, "try_number": 1, "max_tries": 0}
    ti = SimpleNamespace(**task, task=operator, xcom_push=lambda key, value: pushed.update({key: value}))
    try:
        operator.execute({"ti": ti})
    except JobFailed:
        assert code
    found = sent()
    assert set(found) == {f"airflow.practicus.submit,adapter={PLAIN},backend=local", *names(reason, PLAIN)}
    assert found[f"airflow.practicus.ended,adapter={PLAIN},backend=local,reason={reason}"] == 1
    assert pushed["cost"]["seconds"]["driver"] == pytest.approx(pushed["cost"]["total"], abs=0.001)
    assert [span.name for span in spans.get_finished_spans()] == [
        "practicus.pending",
        "practicus.run",
        "practicus.teardown",
    ]
    pending, run, _ = spans.get_finished_spans()
    assert pending.end_time == run.start_time
    assert dict(run.attributes or {}) == {"adapter": PLAIN, "backend": "local", "reason": reason}


async def test_a_trigger_counts_the_job_that_it_follows(
    backend: LocalBackend, sent: Callable[[], dict[str, float]]
) -> None:
    async with created(backend, "job", plan(role("driver", "pass"))) as handle:
        policy = Policy(time.time() + PATIENCE, (), adapter="test", launched_at=time.time())
        trigger = PracticusJobTrigger("practicus_default", handle.to_json(), policy.to_json())
        async with asyncio.timeout(PATIENCE):
            [_] = [event async for event in trigger.run()]
    assert set(sent()) == names("Completed", "test")


async def test_a_trigger_that_looks_at_another_tasks_job_counts_nothing(
    backend: LocalBackend, sent: Callable[[], dict[str, float]]
) -> None:
    async with created(backend, "job", plan(role("driver", "pass"))) as handle:
        policy = Policy(time.time() + PATIENCE, (), teardown=None, lease="keep")
        trigger = PracticusJobTrigger("practicus_default", handle.to_json(), policy.to_json())
        async with asyncio.timeout(PATIENCE):
            [_] = [event async for event in trigger.run()]
    assert sent() == {}


async def test_a_job_ends_as_it_did_though_nobody_can_be_told_its_metrics(
    backend: LocalBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no such host")

    monkeypatch.setattr(stats, "timing", fail)
    monkeypatch.setattr(stats, "incr", fail)
    async with created(backend, "job", plan(role("driver", "pass"))) as handle:
        policy = Policy(time.time() + PATIENCE, (), adapter="test", launched_at=time.time())
        trigger = PracticusJobTrigger("practicus_default", handle.to_json(), policy.to_json(), ends_task=True)
        async with asyncio.timeout(PATIENCE):
            [event] = [event async for event in trigger.run()]
    assert isinstance(event, TaskSuccessEvent)
