"""Some seconds of :mod:`tests.attacks.fuzz`, each of whose cases was found wanting once, or could be."""

from __future__ import annotations

import pytest

from tests.attacks.fuzz import Finding, run
from tests.attacks.targets import TARGETS

SECONDS = 3.0


@pytest.mark.parametrize("name", TARGETS)
async def test_whatever_a_job_says_is_read_or_refused_and_nothing_else(name: str, capsys: pytest.CaptureFixture[str]):
    report = await run(name, TARGETS[name], seed=1, seconds=SECONDS)
    assert (report.findings, report.cases > 10) == ([], True), capsys.readouterr().err


async def test_what_is_found_is_found_again_by_its_number():
    found = await run("decoder", TARGETS["decoder"], seed=1, seconds=SECONDS, only=7)
    assert (found.cases, found.findings) == (1, list[Finding]())
