"""What the provider and a replica's processes say to each other has one place: ``practicus_runtime.contract``.

Tests may have the names and formats as literals: they hold what is on the wire.
"""

from __future__ import annotations

import ast
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import practicus_provider
from practicus_provider.backends.kubernetes.labels import INDEX, ROLE
from practicus_provider.backends.kubernetes.observe import observe
from practicus_provider.backends.kubernetes.pod import Pod
from practicus_provider.runtime.practicus_runtime import contract
from practicus_provider.runtime.practicus_runtime.contract import (
    FAILURE_LIMIT,
    LATEST,
    MESSAGE_LIMIT,
    PREFIX,
    TEXT_LIMIT,
    End,
    Env,
    Joining,
    LastWords,
    Limits,
    Place,
    ReplicaLaunch,
    Report,
    RoleLaunch,
    Saying,
    Scale,
    Unreached,
    WaitLine,
    parsed,
)
from practicus_provider.runtime.practicus_runtime.files import left_in
from practicus_provider.status import Reason, State, explain_exit
from tests.kubernetes_objects import ALONE, SPAWNED, ends, job, pod, runs
from tests.no_files import NO_FILES

PACKAGE = Path(practicus_provider.__file__).parent
CODE = [path for path in sorted(PACKAGE.rglob("*.py")) if path != Path(contract.__file__)]


def words(source: str) -> Iterator[str]:
    """Every string of the code, parts of f-strings and names of keyword arguments too, but for what only documents."""
    tree = ast.parse(source)
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.value
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.arg


@pytest.mark.parametrize(
    "code", ['x["PRACTICUS_A"]', 'f"{x}.PRACTICUS_A"', "x.update(PRACTICUS_A=1)", 'x("in PRACTICUS_A")']
)
def test_a_name_of_ours_is_found_however_it_is_written(code):
    assert any(PREFIX in word for word in words(code))


def test_what_only_documents_is_no_name():
    assert list(words('"""PRACTICUS_A"""\nX = 1\n"""PRACTICUS_A"""\ndef f():\n    """PRACTICUS_A"""')) == []


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_other_module_names_a_variable_of_ours_by_itself(path):
    found = [word for word in words(path.read_text()) if PREFIX in word]
    assert found == [], "name it in practicus_runtime/contract.py, and take it from there"


KEYS = {*End._fields, "result_lines", *ReplicaLaunch._fields, *RoleLaunch._fields, *Unreached._fields}
COMMON = {"command", "env", "files", "message", "nonce", "rank", "replica", "report", "result", "seconds"}
"""Of these, what formats of others, such as a pod's, and a channel's messages have, too."""
OWN_FORMATS = {
    "backends/codec.py": "a plan in the folder of a local cluster",
    "backends/local/folder.py": "the same",
    "backends/local/__init__.py": "what the provider asks a supervisor that it started",
    "plugins/proxy.py": "what the process that fetches pages tells the API server",
    "plugins/rows.py": "what the page of a cluster reads",
    "status.py": "a status, and a verdict, as they are stored",
}
"""Modules that have some of them in a format of their own, which no replica sees."""


def keys(source: str) -> Iterator[str]:
    """The strings by which the code makes, or looks into, a dict."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Dict(keys=found):
                yield from (key.value for key in found if isinstance(key, ast.Constant))
            case ast.Subscript(slice=ast.Constant(value=str(key))):
                yield key
            case ast.Call(func=ast.Attribute(attr="get" | "pop"), args=[ast.Constant(value=str(key)), *_]):
                yield key
            case ast.Compare(left=ast.Constant(value=str(key)), ops=[ast.In() | ast.NotIn()]):
                yield key


@pytest.mark.parametrize(
    "code", ['x = {"grace": 1}', 'x["grace"]', 'x["grace"] = 1', 'x.get("grace", 1)', 'x.pop("grace")', '"grace" in x']
)
def test_a_key_of_a_format_is_found_however_it_is_used(code):
    assert list(keys(code)) == ["grace"]


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_other_module_makes_or_reads_a_format_by_its_keys(path):
    found = {key for key in keys(path.read_text()) if key in KEYS - COMMON}
    assert bool(found) == (str(path.relative_to(PACKAGE)) in OWN_FORMATS), (
        f"{found}: use a value of practicus_runtime/contract.py; a format that no replica sees is one of OWN_FORMATS"
    )


def test_each_variable_is_named_as_its_constant_is():
    names = {name: value for name, value in vars(Env).items() if not name.startswith("_")}
    assert names == {name: f"{PREFIX}{name}" for name in names}


# ---- values on the wire

UNREACHED = Unreached("worker-0 (w:1)", "connection refused", 3.5)
ENDS = {
    "an exit code": (End(3), {"exit_code": 3, "signal": None}),
    "a signal": (End(signal=9, stopped=True), {"exit_code": None, "signal": 9, "stopped": True}),
    "a rank": (
        End(1, rank=0, at=2.5, replica="worker-1", silent=7, unreached=UNREACHED, oom=True),
        {
            **{"exit_code": 1, "signal": None, "rank": 0, "at": 2.5, "replica": "worker-1", "silent": 7, "oom": True},
            "unreached": {"who": "worker-0 (w:1)", "why": "connection refused", "seconds": 3.5},
        },
    ),
}


@pytest.mark.parametrize("name", ENDS)
def test_an_end_is_written_with_what_there_is_of_it_and_read_back(name):
    end, data = ENDS[name]
    assert (end.to_json(), End.from_json(data)) == (data, end)


@pytest.mark.parametrize(
    ("words", "data"),
    [
        (LastWords(End(0), "[1]"), {"exit_code": 0, "signal": None, "result": "[1]"}),
        (LastWords(End(0)), {"exit_code": 0, "signal": None, "result": None}),
        (LastWords(End(0), result_lines=129), {"exit_code": 0, "signal": None, "result_lines": 129}),
    ],
)
def test_last_words_are_written_with_the_result_or_where_that_is_and_read_back(words, data):
    assert (words.to_json(), LastWords.from_json(data)) == (data, words)


@pytest.mark.parametrize(
    ("report", "data"),
    [
        (Report(pid=7), {"event": "started", "pid": 7}),
        (Report(end=End(0)), {"event": "ended", "exit_code": 0, "signal": None}),
    ],
)
def test_a_report_says_that_a_command_has_started_or_how_it_has_ended(report, data):
    assert (report.to_json(), Report.from_json(data)) == (data, report)


@pytest.mark.parametrize(
    ("saying", "data"),
    [
        (Saying("free"), {"say": "free", "lines": [], "failure": {"exit_code": None, "signal": None}, "result": None}),
        (
            Saying("failed", ["a"], End(1, rank=2)),
            {"say": "failed", "lines": ["a"], "failure": {"exit_code": 1, "signal": None, "rank": 2}, "result": None},
        ),
    ],
)
def test_what_a_member_of_a_training_says_is_written_and_read_back(saying, data):
    assert (saying.to_json(), Saying.from_json(data)) == (data, saying)


def test_what_a_member_says_can_be_written_and_what_is_none_of_its_kind_is_none():
    assert Saying.from_json({"say": "done", "lines": ["\ud800"], "result": "\ud800"}) == Saying(
        "done", ["?"], result="?"
    )
    for wrong in ({"say": "run"}, {"say": []}, {"say": "lines", "lines": "a"}, {"say": "done", "result": 1}, [], None):
        assert Saying.from_json(wrong) is None


def test_who_joins_a_training_says_who_it_is_or_is_nobody():
    data = {"name": "worker-0", "address": "10.0.0.7", "port": 29500, "slots": 2}
    assert (Joining("worker-0", "10.0.0.7", 29500, 2).to_json(), Joining.from_json(data)) == (data, Joining(**data))
    for wrong in ({"name": "a b"}, {"address": None}, {"port": 0}, {"port": True}, {"slots": 0}, {"slots": 10**6}):
        assert Joining.from_json({**data, **wrong}) is None
    assert Joining.from_json([]) is None


def test_of_a_command_that_failed_for_another_process_that_ones_end_is_told():
    own, cause = End(1, oom=True, stopped=True), End(signal=11, rank=2)
    assert own.because(cause) == End(signal=11, rank=2, oom=True, stopped=True)
    assert [own.because(no_failure) for no_failure in (End(), End(0), End(at=1.0))] == [own, own, own]


@pytest.mark.parametrize(
    ("wait", "line"),
    [
        (
            WaitLine("rank 0 (w-0:1)", 12, "connection refused"),
            "waiting for rank 0 (w-0:1) since 12 s: connection refused",
        ),
        (WaitLine("worker-0 ([fd00::7]:1)", 40), "reached worker-0 ([fd00::7]:1) after 40 s"),
        (WaitLine("driver-0 (d)", 300, "x: y", given_up=True), "gave up waiting for driver-0 (d) after 300 s: x: y"),
    ],
)
def test_a_line_that_tells_of_a_wait_is_found_whatever_stands_before_it(wait, line):
    assert (wait.text(), WaitLine.found_in(f"[rank 1] {line}")) == (line, wait)


def test_other_lines_tell_of_no_wait():
    lines = ["", "waiting for godot", "waiting for x (y) since long: z", "waiting for " * 10**5, "reached (" * 10**5]
    assert [WaitLine.found_in(line) for line in lines] == [None] * 5


def test_a_request_for_replicas_is_one_or_none():
    data = {"do": "scale", "role": "worker", "replicas": 3}
    assert (Scale("worker", 3).to_json(), Scale.from_json(data)) == (data, Scale("worker", 3))
    for wrong in ({**data, "do": "delete"}, {**data, "role": 1}, {**data, "replicas": True}, [], None, {}):
        assert Scale.from_json(wrong) is None


LAUNCH = {"command": ["a"], "after": [["worker-0", "w", 1]], "grace": 2.5}


def test_a_launcher_is_told_a_command_what_it_waits_for_and_how_it_is_held():
    launch = ReplicaLaunch(["a"], [Place("worker-0", "w", 1)], 2.5, report=3, leash=True, log="/l", log_bytes=5)
    data = {**LAUNCH, "report": 3, "leash": True, "message": None, "nonce": None, "log": "/l", "log_bytes": 5}
    assert (launch.to_json(), ReplicaLaunch.from_json(data)) == (data, launch)
    assert ReplicaLaunch.from_json(LAUNCH) == ReplicaLaunch(["a"], [Place("worker-0", "w", 1)], 2.5)


def test_a_role_is_launched_with_references_to_what_only_its_pods_know():
    here = [["a", {"here": "index"}]]
    launch = RoleLaunch(here, {"A": ["b"]}, {}, [Place("worker-0", "w", 1)], 2.5, None)
    data = {**LAUNCH, "command": here, "env": {"A": ["b"]}, "files": {}, "spawns": None}
    assert (launch.to_json(), RoleLaunch.from_json(data)) == (data, launch)


def test_what_an_elastic_cluster_may_have_is_one_object_with_defaults():
    data = {"minimum": 1, "maximum": 4, "max_restarts": 3, "join_timeout": 600, "last_call_timeout": 10}
    assert (Limits(1, 4).to_json(), Limits.from_json({"minimum": 1, "maximum": 4})) == (data, Limits(1, 4))


# ---- what a job says

BAD = [None, True, "q", "1", 1.5, math.nan, math.inf, -1, 10**400, [], {}, [[]] * 1000, "\ud800", "a\nb", "x" * 1000]
NEEDED = End(1, rank=0, at=1.0, replica="worker-0", silent=2.0, unreached=UNREACHED)


@pytest.mark.parametrize("value", BAD, ids=lambda value: str(value)[:10].encode("unicode_escape").decode())
@pytest.mark.parametrize("name", ["exit_code", "signal", "rank", "at", "replica", "silent", "unreached", "stopped"])
def test_a_field_that_is_none_of_its_kind_is_left_out_and_all_else_stays(name, value):
    good = {("at", 1.5): 1.5, ("silent", 1.5): 1.5, ("stopped", True): True, ("replica", "q"): "q"}
    good |= {("replica", "1"): "1"}
    found = good.get((name, value)) if isinstance(value, (str, float, bool)) else None
    expected = NEEDED._replace(**{name: bool(found) if name == "stopped" else found})
    assert End.from_json({**NEEDED.to_json(), name: value}) == expected


@pytest.mark.parametrize("name", ["who", "why", "seconds"])
def test_who_was_waited_for_is_told_whole_or_not_at_all(name):
    for value in ([], "a\nb", "\ud800", "x" * (TEXT_LIMIT + 1), LATEST + 1, math.nan):
        assert Unreached.from_json({**UNREACHED.to_json(), name: value}) is None


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"{", b"\xff\xfe", b'{"exit_code": 1}\x00', b"9" * 4000, b'{"a": 1e999', b"{} {}"),
        *(b"[" * 1500 + b"]" * 1500, b'{"exit_code": 1, "a": "' + b"x" * MESSAGE_LIMIT + b'"}'),
    ],
    ids=lambda text: repr(text[:10]),
)
def test_what_is_no_json_or_too_long_tells_nothing(text):
    for said in (text, text.decode(errors="replace")):
        found = parsed(said, MESSAGE_LIMIT)
        assert (End.from_json(found), LastWords.from_json(found), Report.from_json(found)) == (
            End(),
            LastWords(),
            Report(),
        )


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, "is not told of"),
        ({"result": [1]}, "is no JSON text, but of type list"),
        ({"result": 10**4000}, "is no JSON text, but of type int"),
        ({"result_lines": 130}, "is said to have 130 lines of its log; from 1 to 129 fit"),
        ({"result_lines": "3"}, "is said to have lines of its log whose number is of type str; from 1 to 129 fit"),
    ],
)
def test_a_result_that_is_told_wrongly_is_said_to_be_so_and_its_job_is_not_complete(fields, why):
    words = LastWords.from_json({"exit_code": 0, "signal": None, **fields})
    assert (words.unreadable, words.complete) == (why, False)
    kept = LastWords.from_json(words.to_json())
    assert (kept.end, kept.complete) == (words.end, False)


@pytest.mark.parametrize("put", NO_FILES.values(), ids=NO_FILES)
def test_what_is_no_file_is_empty_and_keeps_nobody_waiting(tmp_path, put):
    put(tmp_path / "left")
    assert left_in(str(tmp_path / "left"), 10) == b""


@pytest.mark.parametrize("path", [None, "\0"])
def test_what_is_no_path_is_empty(path):
    assert left_in(path, 10) == b""


def test_of_a_file_that_is_too_long_as_much_is_read_as_shows_it(tmp_path):
    (tmp_path / "left").write_bytes(b"x" * 100)
    assert left_in(str(tmp_path / "left"), 10) == b"x" * 11


TEXTS = st.text(st.characters(codec=None), max_size=20)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
FIELDS = (*End._fields, *LastWords._fields, *Unreached._fields, "event", "pid")
SAID = ANYTHING | st.dictionaries(st.sampled_from(FIELDS), ANYTHING | st.integers(0, 300), max_size=8)
FAILED_ROOT = job(ALONE, *ends("BackoffLimitExceeded"))
FEW = settings(max_examples=60, deadline=None, database=None, derandomize=True)


@FEW
@given(SAID | st.binary(max_size=50))
def test_whatever_a_job_says_is_an_end_that_can_be_told_and_stored(said):
    text = said if isinstance(said, bytes) else json.dumps(said)
    words = LastWords.from_json(parsed(text, MESSAGE_LIMIT))
    assert words.end == End.from_json(parsed(text, FAILURE_LIMIT))
    json.dumps(words.to_json(), allow_nan=False).encode()
    assert End.from_json(json.loads(json.dumps(words.end.to_json()))) == words.end
    report = Report.from_json(parsed(text, FAILURE_LIMIT))
    assert report.end is None or report.end == words.end


@FEW
@given(SAID | st.binary(max_size=50), st.sampled_from([0, 1, 137]))
def test_whatever_a_pod_says_its_cluster_is_seen_and_its_verdict_can_be_stored(said, exit_code):
    message = said.decode(errors="replace") if isinstance(said, bytes) else json.dumps(said)
    found = observe(FAILED_ROOT, [of_words(message, exit_code)]).status
    assert found.state.final
    text = json.dumps(found.to_json(), allow_nan=False)
    assert type(found).from_json(json.loads(text)) == found
    for replica in found.replicas:
        explain_exit(replica, tail=(), decides=True).text().encode()


@FEW
@given(
    st.fixed_dictionaries({}, optional={ROLE: TEXTS, INDEX: TEXTS}), TEXTS, st.sampled_from([job(ALONE), job(SPAWNED)])
)
def test_whatever_labels_a_pod_gives_itself_its_cluster_is_seen(labels, name, root):
    stranger = pod("worker", 0, runs())
    del stranger["metadata"]["labels"][INDEX]
    stranger["metadata"]["labels"].update(labels)
    stranger["metadata"]["name"] = name
    found = observe(root, [stranger, pod("driver", 0, runs())]).status
    assert found.state in (State.PENDING, State.RUNNING)
    assert [replica.name for replica in found.replicas if replica.role == "driver"] == ["driver-0"]


def of_words(message: str, exit_code: int) -> dict[str, Any]:
    return pod("driver", 0, {"terminated": {"exitCode": exit_code, "message": message}})


def test_a_pod_without_a_number_is_no_replica():
    for label in ("", "x", "-1", "\u0663", "1" * 100):
        stranger = pod("worker", 0, runs())
        stranger["metadata"]["labels"][INDEX] = label
        assert Pod(stranger).index == -1
        assert observe(job(SPAWNED), [stranger]).status == observe(job(SPAWNED), []).status


def test_words_that_are_wrong_leave_what_the_container_says_of_itself():
    said = observe(job(ALONE, *ends("BackoffLimitExceeded")), [of_words('{"silent":"q","exit_code":"1"}', 139)])
    assert said.status.verdict is not None
    assert (said.status.verdict.reason, said.status.verdict.signal) == (Reason.KILLED, "SIGSEGV")


# ---- both sides


def test_the_provider_needs_no_runtime_on_its_search_path():
    """It imports that as its own subpackage, where nobody has put it on the search path, as the tests do."""
    code = """
import importlib, pkgutil, sys
from practicus_provider import adapters, backends, lifecycle
for package in (adapters, backends):
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(found.name)
print([name for name in sys.modules if name.startswith("practicus_runtime")])
"""
    env = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert done.stdout == "[]\n"
