from __future__ import annotations

import re
from dataclasses import replace

import pytest

from practicus_provider.names import TaskKey, job_name

KEY = TaskKey("sales", "manual__2013-01-05T00:00:00+00:00", "etl")
ODD = [
    KEY,
    TaskKey("ÜBER", "r", "größe"),
    TaskKey("日本", "r", "東京"),
    TaskKey("a" * 250, "r" * 250, "b" * 250),
    TaskKey("a-" * 125, "r", "-." * 125),
    TaskKey("UPPER_CASE", "r", "Group.Task.1"),
    TaskKey("_", "r", "."),
    TaskKey("", "", ""),
    TaskKey("a", "r", "-9-"),
]


@pytest.mark.parametrize("key", ODD, ids=range(len(ODD)))
@pytest.mark.parametrize("name", [TaskKey.cluster_name, lambda key: job_name("c-x", key)], ids=["cluster", "job"])
def test_a_name_is_a_dns_label_that_leaves_room_for_an_index(key, name):
    assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name(key))
    assert len(name(key)) <= 52


def test_names_stay_the_same_from_version_to_version():
    assert [KEY.cluster_name(), replace(KEY, map_index=3).cluster_name(), job_name("c-shared", KEY)] == [
        "c-sales-etl-86a11d3bfebcee82",
        "c-sales-etl-850a0bac7cd07c1e",
        "c-job-etl-0bac5ef8f0c039f1",
    ]


@pytest.mark.parametrize("field", ["dag_id", "run_id", "task_id"])
def test_whatever_differs_in_a_task_instance_differs_in_its_name(field):
    assert replace(KEY, **{field: getattr(KEY, field) + "x"}).cluster_name() != KEY.cluster_name()


def test_each_task_instance_has_a_name_of_its_own():
    keys = [
        *ODD,
        *(replace(KEY, map_index=index) for index in range(1000)),
        TaskKey("ab", "r", "c"),
        TaskKey("a", "r", "bc"),
        TaskKey("A", "r", "bc"),
        TaskKey("a.", "r", "bc"),
        TaskKey("a_", "r", "bc"),
        TaskKey("a", "rb", "c"),
        TaskKey("a" * 250, "r", "b" * 249),
        TaskKey("a" * 250, "r", "b" * 250),
    ]
    names = [name for key in keys for name in (key.cluster_name(), job_name("c-1", key), job_name("c-2", key))]
    assert len(set(names)) == 3 * len(keys)


def test_a_name_starts_with_what_a_person_knows_the_task_by():
    assert KEY.cluster_name().startswith("c-sales-etl-")
    assert job_name("c-shared", KEY).startswith("c-job-etl-")
