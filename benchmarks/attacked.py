"""``python -m benchmarks.attacked --json``: how soon Airflow answers while jobs' dashboards attack who passes them on.

An Airflow of the command's own has three clusters whose pages attack, each looked at by six connections, and one whose
page does not. While an attack goes on, both a page of Airflow's own and that one's are asked for. Told is in how many
milliseconds they came, the median and the longest, beside what it takes while nobody attacks.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import command
from tests.attacks.pages import AT_ONCE, ATTACKS, PATIENCE, Page, Visitors, airflow_with_a_dag, browser, opened_pages
from tests.e2e.airflow_home import Airflow, eventually


def main() -> None:
    """Print the figures."""
    parser = command.parser(__doc__)
    parser.add_argument("--looks", type=int, default=20, help="at each page, while an attack goes on")
    parser.add_argument("--attack", choices=ATTACKS, action="append", help="some; by default all")
    options = parser.parse_args()
    command.end_by_sigterm()
    with (
        tempfile.TemporaryDirectory() as folder,
        airflow_with_a_dag(Path(folder)) as airflow,
        opened_pages(airflow) as pages,
    ):
        report = {"nobody": _looked(airflow, pages[-1], options.looks)}
        for attack in options.attack or ATTACKS:
            report[attack] = _attacked(airflow, pages, attack, options.looks)
    print(json.dumps(report, indent=2))


def _attacked(airflow: Airflow, pages: list[Page], attack: str, looks: int) -> dict[str, Any]:
    *attackers, honest = pages
    before = [page.attacks()[1] for page in attackers]
    with Visitors([f"{page.url}{attack}" for page in attackers for _ in range(AT_ONCE)]):
        for page, begun in zip(attackers, before, strict=True):
            eventually("it attacks", lambda page=page, begun=begun: page.attacks()[1] > begun, PATIENCE)  # type: ignore[misc]
        return _looked(airflow, honest, looks)


def _looked(airflow: Airflow, honest: Page, looks: int) -> dict[str, Any]:
    return {
        "Airflow's own page": _timed(lambda: browser.get(f"{airflow.url}/api/v2/version"), looks),
        "another dashboard": _timed(lambda: browser.get(f"{honest.url}/fine"), looks),
    }


def _timed(look: Callable[[], Any], looks: int) -> dict[str, float]:
    """Milliseconds."""
    took = []
    for _ in range(looks):
        since = time.perf_counter()
        look().raise_for_status()
        took.append(1000 * (time.perf_counter() - since))
    return {"median": round(median(took), 1), "longest": round(max(took), 1)}


if __name__ == "__main__":
    main()
