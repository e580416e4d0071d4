from __future__ import annotations

import json
from dataclasses import replace

import pytest

from practicus_provider.adapters import make_plan
from practicus_provider.backends.codec import dump_plan, load_plan
from practicus_provider.plan import Framework, Here, Host, Launch, Plan, Port, Role
from practicus_provider.spec import Elastic, JobSpec, Resources, Volume

SCHEDULER = Port("coordinator", "scheduler")
FULL = Plan(
    adapter="test",
    roles=(
        Role(
            "coordinator",
            Launch(
                command=(Here.PYTHON, "-m", "x", "--host", Here.HOST, ("", SCHEDULER)),
                env={
                    "PORT": Port("coordinator", "scheduler", first=True),
                    "A": "{not} a $format %s",
                    "APP": (Here.APP, "/", Here.INDEX),
                },
                files={"conf/x.conf": ("dir=", Here.SCRATCH, "\n")},
                ports={"scheduler": 8786},
                ready="scheduler",
                spawns="worker",
                pod_verbs=("watch",),
                pod_labels=("app", "team"),
            ),
            resources=Resources(0.5, "1Gi"),
        ),
        Role(
            "worker",
            Launch(("x", ("tcp://", Host("coordinator"), ":", SCHEDULER)), after=(SCHEDULER,)),
            2,
            Resources("500m", "16Gi", 2, "8Gi", {"vendor.com/npu": 1}),
            Elastic(2, 20),
        ),
        Role("driver", Launch(("", Host("shared")))),
        Role("driver2", Launch(("x",)), image="mine:2", node_selector={"disk": "ssd"}, part_of="driver"),
    ),
    decides="driver",
    timeout=60.5,
    grace=20.5,
    start_timeout=30.5,
    client="distributed:Client",
    framework=Framework({"distributed": "pip install distributed"}, "images/Dockerfile"),
    links={"Dask dashboard": SCHEDULER},
    outside=(Role("shared", Launch(("x",), ports={"p": 1})),),
    volumes=(Volume(path="/data", claim="data", read_only=True), Volume(path="/tmp/x", empty_dir="1Gi")),
    checkpoints="/data/checkpoints",
)


@pytest.mark.parametrize(
    "plan",
    [FULL, Plan("test", (Role("worker", Launch(("x",))),), None, 1), make_plan(JobSpec.of(adapter="dask"), ("x",))],
    ids=["full", "least", "dask"],
)
def test_a_plan_is_equal_after_its_way_through_json(plan):
    assert load_plan(json.loads(json.dumps(dump_plan(plan)))) == plan


def test_shipped_files_do_not_travel_in_the_json():
    plan = replace(FULL, files={"job.py": b"\xff"})
    assert load_plan(json.loads(json.dumps(dump_plan(plan)))) == FULL


@pytest.mark.parametrize("part", [{"there": 1}, 5, None, {"here": "nowhere"}, {"port": ["a"]}])
def test_what_is_not_a_part_of_a_text_is_refused(part):
    data = dump_plan(FULL)
    data["roles"][0]["command"] = [[part]]
    with pytest.raises(ValueError, match=r"not a part of a text|not a valid Here"):
        load_plan(data)
