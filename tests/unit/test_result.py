"""What a job has left as its result is taken, or not, as it is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from practicus_runtime import RESULT_LIMIT, set_result
from practicus_runtime.results import DEPTH

from practicus_provider.backends.local.folder import ClusterFolder
from practicus_provider.result import ADVICE, taken
from practicus_provider.status import Reason, State, Verdict
from tests.no_files import NO_FILES

WELL = Verdict(State.SUCCEEDED, Reason.COMPLETED, "driver-0 ended", exit_code=0)
OBJECT = "by which Airflow would make an object of it; name them otherwise"


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


@pytest.mark.parametrize(
    "text",
    [
        None,
        "null",
        '"größe"',
        '{"a": [1, 2.5, true]}',
        '{"__type": "model", "__version__": 2}',
        nested(DEPTH),
        '"\\u0000"',
    ],
)
def test_what_is_mere_data_is_taken_as_it_is(text):
    assert taken(WELL, text) == (WELL, text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is no JSON that can be read: Expecting value: line 1 column 1 (char 0)"),
        ("{'a': 1}", "is no JSON that can be read: Expecting property name enclosed in double quotes"),
        ("[NaN]", "is no JSON that can be read: it holds NaN, a number that JSON does not have"),
        ("9" * 5000, "is no JSON that can be read: Exceeds the limit (4300 digits)"),
        (nested(100_000), "is no JSON that can be read: maximum recursion depth exceeded"),
        (nested(DEPTH + 1), f"cannot be taken: result{'[0]' * 31}[... lies over {DEPTH} lists and dicts deep"),
        (
            json.dumps("x" * RESULT_LIMIT),
            f"has {RESULT_LIMIT + 2} characters of JSON, over the {RESULT_LIMIT} that fit",
        ),
        ('{"a": "\\ud800"}', "cannot be taken: result['a'] is '\\ud800', with half of a pair of surrogates"),
        ('{"\\ud800": 1}', "cannot be taken: a key of result is '\\ud800', with half of a pair of surrogates"),
        ('{"__classname__": "a.B"}', f"cannot be taken: result has '__classname__', {OBJECT}"),
        ('[{"a": {"__type": 1, "__var": 2}}]', f"cannot be taken: result[0]['a'] has '__type' and '__var', {OBJECT}"),
        (5, "is no JSON text, but of type int"),
    ],
)
def test_what_is_not_fails_the_job_and_says_where_it_is(text, why):
    verdict, result = taken(WELL, text)
    assert (verdict.state, verdict.reason, verdict.advice, result) == (State.FAILED, Reason.ERROR, ADVICE, None)
    assert verdict.message.startswith(f"the job ended well, but left a result that {why}")


def test_of_a_job_that_failed_nobody_looks_at_the_result():
    failed = Verdict(State.FAILED, Reason.ERROR, "driver-0 exited with code 1")
    assert taken(failed, "no JSON") == (failed, "no JSON")


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ({"connection": {"__type": "airflow.sdk.Connection", "__var": {}}}, "result['connection'] has '__type' and"),
        (["\ud800"], "result[0] is '\\ud800'"),
    ],
)
def test_what_would_not_be_taken_is_refused_where_it_is_written(tmp_path, monkeypatch, value, what):
    monkeypatch.setenv("PRACTICUS_RESULT", str(tmp_path / "result"))
    with pytest.raises(TypeError, match=f"^{re.escape(f'set_result() takes mere data: {what}')}"):
        set_result(value)
    assert not (tmp_path / "result").exists()


@pytest.fixture
def folder(tmp_path: Path) -> ClusterFolder:
    folder = ClusterFolder(tmp_path)
    folder.scratch("driver-0").mkdir(parents=True)
    return folder


def test_a_result_without_an_end_is_read_up_to_where_it_is_too_long(folder):
    with (folder.scratch("driver-0") / "result.json").open("wb") as file:
        file.truncate(100 << 30)
    assert folder.result("driver-0") == "\0" * (RESULT_LIMIT + 1)


@pytest.mark.parametrize("put", NO_FILES.values(), ids=NO_FILES)
def test_what_is_no_file_of_the_job_s_own_is_no_result_and_keeps_nobody_waiting(folder, put):
    put(folder.scratch("driver-0") / "result.json")
    assert folder.result("driver-0") is None
