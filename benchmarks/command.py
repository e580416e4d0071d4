"""What the commands of benchmarks have in common."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Of a module's docstring; with ``--json``."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--json", action="store_true", help="print JSON too, on standard output")
    return made


def on_the_test_cluster(measure: Callable[[argparse.Namespace], Any], options: argparse.Namespace) -> None:
    """Measure there, with an Airflow of the command's own, and print what came of it if JSON is asked for."""
    from tests.cluster import target

    with airflow_home(), target.as_found():
        report = measure(options)
    if options.json:
        print(json.dumps(report, indent=2))


def end_by_sigterm() -> None:
    """Leave in an orderly way, so that nothing is left behind."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


@contextlib.contextmanager
def airflow_home() -> Iterator[None]:
    """A quiet Airflow of the command's own, which is gone afterwards, also after SIGTERM."""
    end_by_sigterm()
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {"AIRFLOW_HOME": home, "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR"}
        yield
