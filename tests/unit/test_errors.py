from __future__ import annotations

import inspect

import pytest

from practicus_provider import errors
from practicus_provider.errors import JobFailed, PracticusError, SpecError
from practicus_provider.status import Reason, State, Verdict

TREE = {
    "SpecError": "PracticusError",
    "AdapterError": "SpecError",
    "ConnectionConfigError": "PracticusError",
    "BackendError": "PracticusError",
    "NotFound": "BackendError",
    "ReplicaError": "BackendError",
    "JobFailed": "PracticusError",
}


def test_the_errors_are_the_tree_that_the_module_draws():
    found = {
        name: kind.__base__.__name__
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, PracticusError) and kind is not PracticusError
    }
    assert found == TREE
    assert errors.__doc__ is not None
    assert [word for word in errors.__doc__.split() if word in TREE] == list(TREE)


def test_a_wrong_argument_is_a_value_error_that_names_field_value_and_way_out():
    with pytest.raises(ValueError, match=r"^workers=0: give more$"):
        raise SpecError("workers", 0, "give more")


def test_a_failed_job_reads_as_its_verdict_and_carries_it():
    verdict = Verdict(State.FAILED, Reason.ERROR, "driver-0 exited with code 1", replica="driver-0", log_tail=("bye",))
    error = JobFailed(verdict)
    assert (str(error), error.verdict) == (verdict.text(), verdict)
