"""On the newest Airflow, what an older one lacks is taken away; on an older one it is not there."""

from __future__ import annotations

import subprocess
import sys

import pytest

from practicus_provider import compat
from practicus_provider.errors import SpecError
from practicus_provider.operators.dask import PracticusDaskOperator
from practicus_provider.operators.spark import PracticusSparkOperator

WITHOUT_POLICIES = """
import sys
sys.modules["airflow.sdk.definitions.retry_policy"] = None
from practicus_provider.errors import SpecError
from practicus_provider.operators.retry_policy import VerdictRetryPolicy
try:
    VerdictRetryPolicy()
except SpecError as error:
    sys.exit(str(error))
"""


@pytest.mark.parametrize("operator", [PracticusDaskOperator, PracticusSparkOperator])
def test_more_memory_at_the_next_try_is_refused_by_name_where_airflow_keeps_nothing_between_tries(
    monkeypatch, operator
):
    monkeypatch.setattr(compat, "HAS_TASK_STATE", False)
    monkeypatch.setattr(compat, "AIRFLOW", "3.2.2")
    operator(task_id="t", application="local:///job.py")
    with pytest.raises(SpecError) as refused:
        operator(task_id="t", application="local:///job.py", oom_memory_factor=2)
    way_out = "Airflow 3.2.2 cannot do that: leave it out, or use Airflow 3.3 or newer"
    assert str(refused.value) == f"oom_memory_factor=2: {way_out}"


def test_a_retry_policy_is_refused_by_name_where_airflow_has_none():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WITHOUT_POLICIES], capture_output=True, text=True, timeout=60
    )
    way_out = f"Airflow {compat.AIRFLOW} cannot do that: leave it out, or use Airflow 3.3 or newer"
    assert done.stderr.splitlines()[-1] == f"retry_policy='VerdictRetryPolicy': {way_out}"


def test_metrics_find_where_airflow_has_set_them_up():
    found = compat.stats()
    assert callable(found.timing)
    assert callable(found.incr)
