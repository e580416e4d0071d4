"""What an operator's import costs a DAG file: ``python -m benchmarks.imports --json``.

Each module is imported in processes of its own, after ``airflow.sdk``, which every DAG file imports anyway. The modules
take turns, so that a busy machine slows all of them alike.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from statistics import median
from typing import Any

OURS = [f"practicus_provider.operators.{name}" for name in ("job", "spark", "dask", "cluster")]
BESIDE = "airflow.providers.cncf.kubernetes.operators.pod"
HEAVY = ["kubernetes", "kubernetes_asyncio", "pyspark", "dask", "distributed", "pandas"]

PROBE = """
import importlib, json, sys, time
import airflow.sdk
airflow.sdk.BaseOperator, airflow.sdk.DAG
before = set(sys.modules)
start = time.perf_counter()
importlib.import_module(sys.argv[1])
milliseconds = (time.perf_counter() - start) * 1000
heavy = [name for name in sys.argv[2:] if name in sys.modules]
print(json.dumps({"ms": milliseconds, "modules": len(set(sys.modules) - before), "heavy": heavy}))
"""


def probe(module: str) -> dict[str, Any]:
    """One import in a fresh process: milliseconds, how many modules it brought, and which heavy ones are there."""
    command = [sys.executable, "-c", PROBE, module, *HEAVY]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, Any] = json.loads(answer.splitlines()[-1])
    return found


def measure(runs: int) -> dict[str, dict[str, Any]]:
    """Module -> median milliseconds over ``airflow.sdk``, all of them, modules it brought, and heavy ones."""
    modules = [*OURS, BESIDE]
    for module in modules:
        probe(module)  # the first import may write bytecode, and reads cold files
    rounds = [{module: probe(module) for module in modules} for _ in range(runs)]
    return {
        module: {
            "median_ms": round(median(turn[module]["ms"] for turn in rounds), 1),
            "ms": [round(turn[module]["ms"], 1) for turn in rounds],
            "modules": rounds[0][module]["modules"],
            "heavy": rounds[0][module]["heavy"],
        }
        for module in modules
    }


def main() -> None:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--runs", type=int, default=7, help="imports of each module (default 7)")
    args = parser.parse_args()
    found = measure(args.runs)
    if args.json:
        print(json.dumps(found, indent=2))
        return
    for module, row in found.items():
        print(f"{module:55} {row['median_ms']:8.1f} ms {row['modules']:6} modules  {' '.join(row['heavy'])}")


if __name__ == "__main__":
    main()
