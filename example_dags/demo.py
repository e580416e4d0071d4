"""``python -m example_dags.demo``: Spark, then Dask, through Airflow, on this machine alone.

It runs ``practicus_spark_then_dask`` for real, in an Airflow of its own in ``.demo/``, and shows what came out. Neither
a cluster nor the network is needed, and your own Airflow is not touched.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from example_dags.data import make_data

DAGS = Path(__file__).parent
HOME = DAGS.parent / ".demo"
LOG = HOME / "demo.log"
DAG, DATE = "practicus_spark_then_dask", "2013-01-01"
TAIL = 25
"""Lines of the log to show after a failure."""
TASK = re.compile(r"\[DAG TEST\] starting task_id=(\w+)")
OURS = re.compile(r"(\[progress .*?|(?:cluster|running:|failed:|Completed:) .*?)\s+\[[\w.]*practicus_provider")
"""What Airflow's console log says of interest."""


class Progress:
    """Says what happens, and when, on the terminal."""

    def __init__(self) -> None:
        self.start = time.monotonic()

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self.start:6.1f} s  {text}", flush=True)


def environment() -> dict[str, str]:
    """An Airflow of our own, with the one connection that it needs; nothing of the user's."""
    own = {key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW_", "_AIRFLOW"))}
    return own | {
        "AIRFLOW_HOME": str(HOME),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
        "AIRFLOW_CONN_PRACTICUS_DEFAULT": '{"conn_type": "practicus", "extra": {"backend": "local"}}',
        "PYTHONUNBUFFERED": "1",
    }


def airflow(progress: Progress, env: Mapping[str, str], *args: str) -> None:
    """Run an Airflow command; its output goes to the log, and what tells something to the terminal too.

    :raises SystemExit: it failed, with the last lines of its output.
    """
    last: deque[str] = deque(maxlen=TAIL)
    command = [sys.executable, "-m", "airflow", *args]
    with (
        LOG.open("a") as log,
        subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            log.write(line)
            log.flush()
            last.append(line)
            if task := TASK.search(line):
                progress.say(f"task {task[1]}")
            elif ours := OURS.search(line):
                progress.say(f"  {ours[1]}")
    if process.returncode:
        sys.exit(f"\nairflow {' '.join(args)} failed ({process.returncode}); the whole log: {LOG}\n\n{''.join(last)}")


def table(rows: list[dict]) -> str:
    """The results, one line for each airline."""
    lines = [f"{'airline':<28} {'flights':>9} {'mean delay':>11} {'naive error':>12} {'model error':>12}   (minutes)"]
    for row in rows:
        errors = [
            f"{error:>12.1f}" if error is not None else f"{'':>12}"
            for error in (row["naive_error"], row["model_error"])
        ]
        lines.append(f"{row['carrier']:<28} {row['flights']:>9,} {row['mean_delay']:>11.1f} {' '.join(errors)}")
    return "\n".join([*lines[:-1], "-" * len(lines[1]), lines[-1]])


def main() -> None:
    """Make the data, run the DAG, show the result."""
    progress = Progress()
    HOME.mkdir(exist_ok=True)
    (HOME / ".gitignore").write_text("*\n")
    LOG.write_text("")
    env = environment()
    progress.say("making the data: every flight that left New York City in 2013")
    data = make_data()
    progress.say(f"making an Airflow in {HOME}")
    airflow(progress, env, "db", "migrate")
    progress.say(f"airflow dags test {DAG} {DATE}")
    started = time.time()
    airflow(progress, env, "dags", "test", DAG, DATE)
    reports = [path for path in data.glob("out/features/*.json") if path.stat().st_mtime >= started]
    if not reports:
        sys.exit(f"the run left no report below {data}/out/features; the whole log: {LOG}")
    progress.say("done")
    print("\nHow late planes arrive, and how well it can be told when they leave:\n")
    print(table(json.loads(reports[0].read_text())))
    print(f"\nnaive: it arrives as late as it left. model: {DAGS.name}/jobs/train.py, tested on October to December.")
    print(f"\nThe whole log    {LOG}\nTask logs        {HOME}/logs\nClusters         {HOME}/practicus")


if __name__ == "__main__":
    main()
