"""``python -m benchmarks.training --json``: what a training costs under us, over the same script without us.

A small script of each framework, with two ranks, all in one run; those who are compared take turns. Medians over the
runs; see :mod:`benchmarks.report` for what is printed.

``script``    from the first line of rank 0's script to its last: imports, meeting the other rank, training. Beside it
              the processor time of rank 0's whole process, which other load on the machine changes less
``whole``     from the submission until its end is known; bare: from the launcher's start to its exit
``start``     from the submission until all ranks have met (``init_process_group``, ``hvd.init``); bare: from the
              launcher's start

On this machine (``local``) the bare launch is each framework's own: torchrun, for FairScale too, deepspeed, horovodrun.
Ours is what an operator does once it has its plan: create a cluster of one worker with two ranks, as a launcher's host
has, follow it, and stream its log. The script pins each rank to a core: where the kernel puts their threads makes runs
of one launcher differ by a third, whichever it is.

On ``kubernetes`` there are two workers of one rank. The bare launch is a Job and a Service that are written by hand, by
``kubectl apply``; our own manifests by ``kubectl apply`` are told beside it. The scripts tell the time themselves, so
the nodes' clocks must be this machine's, or agree with it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence

from benchmarks import command
from benchmarks.report import Row
from benchmarks.scripts import SCRIPTS
from tests.cluster import target

BACKENDS = ("local", "kubernetes")


def main() -> None:
    """Print JSON, or nothing: a table goes to standard error as it is made."""
    parser = command.parser(__doc__)
    parser.add_argument("--runs", type=int, default=5, help="rounds (default 5)")
    parser.add_argument("--steps", type=int, default=500, help="of the training, where it is timed (default 500)")
    parser.add_argument("--frameworks", nargs="+", choices=SCRIPTS, default=list(SCRIPTS))
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS))
    options = parser.parse_args()
    rows = []
    with command.airflow_home(), target.as_found():
        for row in _measured(options.backends, options.frameworks, options.runs, options.steps):
            rows.append(row)
            print(row.text(), end="\n\n", file=sys.stderr, flush=True)
    if options.json:
        where = {"processors": os.cpu_count(), "load": [round(load, 1) for load in os.getloadavg()]}
        report = {"runs": options.runs, "where": where, "measures": [row.to_json() for row in rows]}
        print(json.dumps(report, indent=2))


def _measured(backends: Sequence[str], frameworks: Sequence[str], runs: int, steps: int) -> Iterator[Row]:
    if "local" in backends:
        from benchmarks.training.local import lived

        for framework in frameworks:
            yield from lived(framework, runs, steps)
    if "kubernetes" in backends:
        from benchmarks.kubernetes.place import place
        from benchmarks.training.kubernetes import started

        with place("training") as here:
            for framework in frameworks:
                yield started(here, framework, runs)


if __name__ == "__main__":
    main()
