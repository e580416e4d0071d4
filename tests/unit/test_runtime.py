from __future__ import annotations

import json
import os
import re
from pathlib import Path

import practicus_runtime
import pytest
from practicus_runtime import RESULT_LIMIT, Context, context, get_client, progress, set_result

TASK = {
    "dag_id": "sales",
    "task_id": "etl",
    "run_id": "r1",
    "map_index": -1,
    "try_number": 2,
    "attempt": 3,
    "logical_date": "2013-01-05T00:00:00+00:00",
}


@pytest.fixture(autouse=True)
def _outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*(name for name in os.environ if name.startswith("PRACTICUS_")), "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the result goes."""
    monkeypatch.setenv("PRACTICUS_RESULT", str(tmp_path / "result.json"))
    return tmp_path / "result.json"


@pytest.mark.parametrize("value", [None, 0, 1.5, "größe", [1, [2]], {"a": {"b": None}}, True])
def test_a_result_is_written_as_json(result, value):
    set_result(value)
    assert json.loads(result.read_text()) == value
    assert [path.name for path in result.parent.iterdir()] == ["result.json"]


def test_the_last_result_counts(result):
    set_result(1)
    set_result(2)
    assert result.read_text() == "2"


class Number:
    """As NumPy's numbers are, and tensors of one number."""

    shape = ()

    def __init__(self, value: object) -> None:
        self.value = value

    def item(self) -> object:
        return self.value


class Array:
    """As NumPy's arrays are, and tensors of several numbers."""

    shape = (2,)

    def item(self) -> object:
        raise ValueError("only arrays of one number have one")

    def tolist(self) -> object:
        return [1, 2]


RING: list[object] = []
RING.append({"a": RING})


def test_numbers_of_numpy_and_tensors_of_one_number_become_pythons(result):
    set_result({"loss": Number(0.5), "steps": [Number(3), Number(True)]})
    assert json.loads(result.read_text()) == {"loss": 0.5, "steps": [3, True]}


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (object(), "result is of type object; give strings, numbers, lists and dicts"),
        ({1, 2}, "result is of type set; give strings, numbers, lists and dicts"),
        ([b"x"], "result[0] is of type bytes; give strings, numbers, lists and dicts"),
        ({"a": {"b": Path}}, "result['a']['b'] is of type type; give strings, numbers, lists and dicts"),
        ({"a": (1, Array())}, f"result['a'][1] is of type {__name__}.Array; give its .tolist()"),
        ({"a": {(1, 2): 3}}, "result['a'] has the key (1, 2) of type tuple; give strings as keys"),
        (float("nan"), "result is nan, a number that JSON does not have; give None, or a text"),
        ({"loss": [0.5, float("-inf")]}, "result['loss'][1] is -inf, a number that JSON does not have; give None, or"),
        ({"loss": Number(float("nan"))}, "result['loss'] is nan, a number that JSON does not have; give None, or"),
        ([Number(1j)], "result[0] is of type complex; give strings, numbers, lists and dicts"),
        (RING, "result[0]['a'] holds itself (Circular reference)"),
    ],
)
def test_a_result_that_json_cannot_hold_is_refused_with_its_place_and_its_type(result, value, what):
    with pytest.raises(TypeError, match=f"^{re.escape(f'set_result() takes what JSON can hold: {what}')}"):
        set_result(value)
    assert not result.exists()


def test_a_list_that_stands_in_a_result_twice_does_not_hold_itself(result):
    twice = [1]
    set_result({"a": twice, "b": twice})
    with pytest.raises(TypeError, match=r"result\['c'\] is of type set"):
        set_result({"a": twice, "b": twice, "c": set()})


def test_a_result_may_have_as_many_bytes_as_the_limit_says_and_not_one_more(result):
    set_result("x" * (RESULT_LIMIT - 2))
    with pytest.raises(
        ValueError, match=r"^the result has 1048577 bytes of JSON, over the 1048576 that fit: store it, pass its path$"
    ):
        set_result("x" * (RESULT_LIMIT - 1))
    assert result.stat().st_size == RESULT_LIMIT


def test_a_refused_result_leaves_the_one_before(result):
    set_result(1)
    with pytest.raises(TypeError):
        set_result(object())
    assert result.read_text() == "1"


def test_a_result_that_would_be_lost_is_refused_with_where_it_belongs(result, monkeypatch):
    monkeypatch.setenv("PRACTICUS_RESULT_OF", "driver")
    monkeypatch.setenv("PRACTICUS_ROLE", "worker")
    way_out = "return the value to the application, and call it there, in the driver"
    with pytest.raises(RuntimeError, match=f"^{re.escape(f'set_result() has no effect on a worker: {way_out}')}$"):
        set_result(1)
    assert not result.exists()


def test_a_result_outside_a_replica_is_refused():
    with pytest.raises(RuntimeError, match=r"^not inside a replica: PRACTICUS_RESULT is not set$"):
        set_result(1)


@pytest.mark.parametrize(
    ("fraction", "text", "line"),
    [(0, "", "[progress   0%]"), (0.5, "half", "[progress  50%] half"), (1, "", "[progress 100%]")],
)
def test_progress_is_one_line_in_the_log(capsys, fraction, text, line):
    progress(fraction, text)
    assert capsys.readouterr().out == line + "\n"


@pytest.mark.parametrize("fraction", [-0.1, 1.1, 50, float("nan"), float("inf")])
def test_progress_out_of_range_is_refused(capsys, fraction):
    with pytest.raises(ValueError, match=f"^{re.escape(f'fraction={fraction!r}: give a number from 0 to 1')}$"):
        progress(fraction)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("more", "rank", "world_size"), [({}, 3, 1), ({"RANK": "5", "WORLD_SIZE": "8"}, 5, 8)], ids=["alone", "ranks"]
)
def test_the_context_is_the_task_instance_and_the_place_in_the_cluster(monkeypatch, more, rank, world_size):
    env = {"PRACTICUS_TASK": json.dumps(TASK), "PRACTICUS_ROLE": "worker", "PRACTICUS_INDEX": "3"} | more
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert context() == Context(**TASK, role="worker", index=3, rank=rank, world_size=world_size, volumes={})
    assert context().checkpoint_dir is None


def test_the_context_says_where_volumes_are_and_makes_the_folder_for_checkpoints(monkeypatch, tmp_path):
    env = {"PRACTICUS_TASK": json.dumps(TASK), "PRACTICUS_ROLE": "worker", "PRACTICUS_INDEX": "0"}
    folder = str(tmp_path / "checkpoints" / "c-1")
    env |= {"PRACTICUS_VOLUMES": json.dumps({"/data": str(tmp_path)}), "PRACTICUS_CHECKPOINT_DIR": folder}
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    found = context()
    assert (found.volumes, os.path.exists(folder)) == ({"/data": str(tmp_path)}, False)
    assert [found.checkpoint_dir, found.checkpoint_dir] == [folder, folder]
    assert os.path.isdir(folder)


def test_the_context_outside_a_replica_is_refused_with_what_is_missing():
    with pytest.raises(RuntimeError, match=r"^not inside a replica: the environment lacks 'PRACTICUS_TASK'$"):
        context()


def test_the_client_is_what_the_adapter_names_called_without_arguments(monkeypatch):
    monkeypatch.setenv("PRACTICUS_CLIENT", "practicus_runtime:os.getcwd")
    assert get_client() == os.getcwd()


def test_there_is_no_client_where_the_adapter_names_none():
    with pytest.raises(
        RuntimeError, match=r"^there is no client here: PRACTICUS_CLIENT is not set by the cluster's adapter$"
    ):
        get_client()


def test_the_runtime_offers_what_it_names():
    assert sorted(practicus_runtime.__all__) == [
        "Context",
        "RESULT_LIMIT",
        "context",
        "get_client",
        "progress",
        "set_result",
    ]
