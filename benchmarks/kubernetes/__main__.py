"""``python -m benchmarks.kubernetes --json``: what Kubernetes jobs cost, over Kubernetes itself and beside others.

All in one run on one cluster, in a namespace of its own. Medians over the runs, in turn; see :mod:`.contestants` for
who is compared and :mod:`benchmarks.report` for what is printed:

``submit``    from the call until the user's code runs in all pods
``delete``    from the call until nothing is left of that, pods and all
``end``       from the end of the user's code to the event of its deferred task's trigger
``waiting``   requests to the API server, and processor time, of many tasks that only wait in one triggerer

The user's code tells the time itself. So the nodes' clocks must be this machine's, or agree with it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks import command
from tests.cluster import target


def main() -> None:
    """Print JSON, or nothing: a table goes to standard error as it is made."""
    parser = command.parser(__doc__)
    parser.add_argument("--runs", type=int, default=7, help="rounds of what is timed; 0: none of it (default 7)")
    parser.add_argument("--pods", type=int, nargs="+", default=[1, 4], help="of what is timed (default 1 4)")
    parser.add_argument("--tasks", type=int, default=100, help="that wait; 0: nothing of it (default 100)")
    parser.add_argument("--seconds", type=float, default=60.0, help="for which they are watched (default 60)")
    options = parser.parse_args()
    with command.airflow_home(), target.as_found():
        report = measure(options.runs, options.pods, options.tasks, options.seconds)
    if options.json:
        print(json.dumps(report, indent=2))


def measure(runs: int, sizes: Sequence[int], tasks: int, seconds: float) -> dict[str, Any]:
    """All of it: where it was measured, and a row for each question.

    :param sizes: pods of the workloads that are timed.
    """
    from airflow.sdk.bases.operator import ExecutorSafeguard

    from benchmarks.kubernetes.life import ended, submitted_and_deleted
    from benchmarks.kubernetes.place import place
    from benchmarks.kubernetes.waiting import waiting
    from benchmarks.report import Row

    ExecutorSafeguard.test_mode = True  # it would warn that no task runner calls the operators
    rows: list[Row] = []

    def found(*new: Row) -> None:
        """It takes minutes: what is known so far is said."""
        rows.extend(new)
        print(*(row.text() for row in new), sep="\n\n", end="\n\n", file=sys.stderr, flush=True)

    with place() as here:
        for pods in sizes if runs else ():
            found(*submitted_and_deleted(here, pods, runs))
            found(*ended(here, pods, runs))
        if tasks:
            found(*waiting(here, tasks, seconds))
        where = {
            "kubernetes": here.version,
            "namespace": here.namespace,
            "processors": os.cpu_count(),
            "load": round(os.getloadavg()[2], 1),
        }
    return {"runs": runs, "where": where, "measures": [row.to_json() for row in rows]}


if __name__ == "__main__":
    main()
