"""``python -m benchmarks.local --json``: what the local backend costs over launching the same processes by hand.

For Dask and Spark with two workers, in turn: an operator's ``execute()``, and a bare launch of the very commands that
its plan holds, with fixed ports and no supervisor. Seconds, medians over the runs:

``first_line``      from the start to the user script's first line
``script``          the user script's own wall time
``end_noticed``     from its last line to our knowing its end (the bare launch: its parent's ``wait()``)
``teardown``        from there to nothing being left
``total``           from the start to nothing being left
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

SCRIPTS = {
    "dask": """
from distributed import Client
client = Client()
client.wait_for_workers(2)
assert sum(client.gather(client.map(lambda x: x * x, range(1000)))) == 332833500
""",
    "spark": """
from pyspark.sql import SparkSession
spark = SparkSession.builder.getOrCreate()
assert spark.sparkContext.parallelize(range(1000), 4).map(lambda x: x * x).sum() == 332833500
spark.stop()
""",
}
STAMPED = "import time\nstart = time.time()\n{body}\nopen({path!r}, 'w').write(f'{{start}} {{time.time()}}')\n"
FIGURES = ("first_line", "script", "end_noticed", "teardown", "total")


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON (the only format)")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["AIRFLOW_HOME"] = home
        report = {adapter: _compare(adapter, options.runs) for adapter in SCRIPTS}
    print(json.dumps(report, indent=2))


def _compare(adapter: str, runs: int) -> dict[str, Any]:
    ours, bare = [], []
    for _ in range(runs):
        ours.append(_measure(adapter, _execute))
        bare.append(_measure(adapter, _by_hand))
    medians = {
        name: {figure: round(statistics.median(run[figure] for run in took), 3) for figure in FIGURES}
        for name, took in (("ours", ours), ("bare", bare))
    }
    overheads = [
        mine["total"] - mine["script"] - (his["total"] - his["script"]) for mine, his in zip(ours, bare, strict=True)
    ]
    ratios = [mine["script"] / his["script"] for mine, his in zip(ours, bare, strict=True)]
    return medians | {
        "overhead_s": round(statistics.median(overheads), 3),
        "script_ratio": round(statistics.median(ratios), 3),
        "runs": runs,
    }


def _measure(adapter: str, run: Any) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        stamps, script = Path(folder) / "stamps", Path(folder) / "script.py"
        script.write_text(STAMPED.format(body=SCRIPTS[adapter], path=str(stamps)))
        begin = time.time()
        noticed = run(adapter, script, Path(folder))
        gone = time.time()
        first, last = map(float, stamps.read_text().split())
        return {
            "first_line": first - begin,
            "script": last - first,
            "end_noticed": noticed - last,
            "teardown": gone - noticed,
            "total": gone - begin,
        }


def _execute(adapter: str, script: Path, folder: Path) -> float:
    """Our operator, as a worker runs it; the time at which it knew the end."""
    from airflow.sdk.bases.operator import ExecutorSafeguard

    from practicus_provider.operators.job import PracticusRunJobOperator
    from practicus_provider.spec import Resources

    connection = {"conn_type": "practicus", "extra": {"backend": "local", "root": str(folder / "clusters")}}
    os.environ["AIRFLOW_CONN_PRACTICUS_DEFAULT"] = json.dumps(connection)
    small = Resources(cpu=1, memory="1Gi")
    operator = PracticusRunJobOperator(
        task_id="job",
        adapter=adapter,
        application=str(script),
        workers=2,
        worker_resources=small,
        coordinator_resources=small,
        deferrable=False,
    )
    noticed: list[float] = []

    def say(text: str, *args: object) -> None:
        if text.startswith("Completed"):
            noticed.append(time.time())

    operator.log.info = say  # type: ignore[method-assign,assignment]
    ti = SimpleNamespace(
        dag_id="benchmark",
        run_id=str(folder),
        task_id="job",
        map_index=-1,
        try_number=1,
        max_tries=0,
        xcom_push=lambda **_: None,
    )
    ExecutorSafeguard.test_mode = True  # it would warn that no task runner calls us
    operator.execute({"ti": ti})  # type: ignore[typeddict-item]
    return noticed[0]


def _by_hand(adapter: str, script: Path, folder: Path) -> float:
    """The same commands, started as one would in a shell; the time at which the driver's parent knew its end."""
    ports = _free_ports(5)
    with contextlib.ExitStack() as stack:
        commands = _dask(ports) if adapter == "dask" else _spark(ports, folder)
        for command, env, after in commands[:-1]:
            _await_port(after)
            stack.enter_context(_running(command, env, folder))
        _, env, after = commands[-1]
        _await_port(after)
        subprocess.run([sys.executable, str(script)], env=os.environ | env, cwd=folder, check=True, **_quiet())
        noticed = time.time()
    return noticed


Command = tuple[list[str], dict[str, str], int]
"""Command, environment over ours, and the port that must accept before it starts (0: none)."""


def _dask(ports: list[int]) -> list[Command]:
    address = f"tcp://127.0.0.1:{ports[0]}"
    scheduler = ["--host", "127.0.0.1", "--port", str(ports[0]), "--dashboard-address", f"127.0.0.1:{ports[1]}"]
    worker = [address, "--host", "127.0.0.1", "--nthreads", "1", "--memory-limit", str(1 << 30)]
    python = [sys.executable, "-m"]
    return [
        ([*python, "distributed.cli.dask_scheduler", *scheduler], {}, 0),
        *(([*python, "distributed.cli.dask_worker", *worker, "--no-nanny", "--no-dashboard"], {}, 0) for _ in range(2)),
        ([], {"DASK_SCHEDULER_ADDRESS": address}, 0),
    ]


def _spark(ports: list[int], folder: Path) -> list[Command]:
    import pyspark

    spark_class = str(Path(pyspark.__file__).parent / "bin" / "spark-class")
    master, ui, *web = ports
    place = {"SPARK_LOCAL_IP": "127.0.0.1", "SPARK_NO_DAEMONIZE": "1", "SPARK_DAEMON_MEMORY": "256m"}
    (folder / "conf").mkdir()
    settings = {
        "spark.master": f"spark://127.0.0.1:{master}",
        "spark.executor.memory": "731m",
        "spark.driver.memory": "731m",
        "spark.executor.cores": "1",
        "spark.cores.max": "2",
        "spark.scheduler.minRegisteredResourcesRatio": "0.8",
        "spark.ui.port": str(web[2]),
    }
    (folder / "conf" / "spark-defaults.conf").write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
    deploy = "org.apache.spark.deploy"
    at = ["--host", "127.0.0.1"]
    return [
        ([spark_class, f"{deploy}.master.Master", *at, "--port", str(master), "--webui-port", str(ui)], place, 0),
        *(
            (
                [spark_class, f"{deploy}.worker.Worker", *at, "--webui-port", str(port), "--cores", "1"]
                + ["--memory", "1024M", "--work-dir", str(folder / f"work-{port}"), settings["spark.master"]],
                place,
                master,
            )
            for port in web[:2]
        ),
        ([], place | {"SPARK_CONF_DIR": str(folder / "conf"), "PYSPARK_PYTHON": sys.executable}, master),
    ]


@contextlib.contextmanager
def _running(command: list[str], env: dict[str, str], folder: Path) -> Iterator[None]:
    process = subprocess.Popen(command, env=os.environ | env, cwd=folder, start_new_session=True, **_quiet())
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _quiet() -> dict[str, Any]:
    return {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        return [stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(count)]


def _await_port(port: int) -> None:
    while port:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            time.sleep(0.05)


if __name__ == "__main__":
    main()
