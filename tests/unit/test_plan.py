from __future__ import annotations

import re
from dataclasses import replace

import pytest

from practicus_provider.errors import SpecError
from practicus_provider.plan import Here, Host, Launch, Plan, Port, Role, parts

GREET = Port("coordinator", "greet")
COORDINATOR = Role("coordinator", Launch(("serve",), ports={"greet": 9000}, ready="greet"))
WORKER = Role("worker", Launch(("work", ("tcp://", Host("coordinator"), ":", GREET)), after=(GREET,)), 2)
DRIVER = Role("driver", Launch(("run", Here.APP)))
PLAN = Plan(
    "test",
    (COORDINATOR, WORKER, DRIVER),
    "driver",
    60,
    {"job.py": b""},
    "distributed:Client",
    {"greeting": GREET},
)


def refused(message: str) -> pytest.RaisesExc[SpecError]:
    return pytest.raises(SpecError, match=f"^{re.escape(f'adapter test: {message}')}")


def with_role(**changes: object) -> Plan:
    return replace(PLAN, roles=(COORDINATOR, WORKER, replace(DRIVER, **changes)))


def with_launch(**launch: object) -> Plan:
    return with_role(launch=replace(DRIVER.launch, **launch))


def test_a_plan_without_roles_is_refused():
    with refused("roles=(): a plan needs at least one role"):
        Plan("test", (), None, 60)


def test_what_is_not_a_role_is_refused():
    with refused("roles='driver': every role must be a practicus_provider.plan.Role"):
        Plan("test", ("driver",), None, 60)


@pytest.mark.parametrize("name", ["", "Worker", "1st", "a_b", "-a", "a-", "a" * 21, "größe", "a\n"])
def test_a_role_whose_name_is_not_a_short_dns_label_is_refused(name):
    with refused(f"role={name!r}: a role's name is a short DNS label such as 'worker'"):
        replace(PLAN, roles=(replace(DRIVER, name=name),), decides=None, links={})


@pytest.mark.parametrize("replicas", [0, -1, True, 1.5, "2", None])
def test_a_role_without_replicas_is_refused(replicas):
    with refused(f"driver.replicas={replicas!r}: give at least 1"):
        with_role(replicas=replicas)


def test_a_role_without_a_command_is_refused():
    with refused("driver.command=(): give a program to start"):
        with_launch(command=())


def test_a_role_that_is_ready_by_a_port_that_it_does_not_have_is_refused():
    with refused("driver.ready='web': name one of ['api']"):
        with_launch(ports={"api": 1}, ready="web")


def test_two_roles_of_one_name_are_refused():
    with refused("roles=['driver', 'driver']: each name may stand once"):
        Plan("test", (DRIVER, DRIVER), "driver", 60)


def test_a_role_named_like_one_of_the_shared_cluster_is_refused():
    with refused("roles=['driver', 'driver']: each name may stand once"):
        Plan("test", (DRIVER,), "driver", 60, outside=(DRIVER,))


def test_a_deciding_role_that_is_not_there_is_refused_with_those_that_are():
    with refused("decides='main': name one of ['coordinator', 'worker', 'driver']"):
        replace(PLAN, decides="main")


def test_a_role_of_the_shared_cluster_cannot_decide_a_job_on_it():
    with refused("decides='coordinator': name one of ['driver']"):
        Plan("test", (DRIVER,), "coordinator", 60, outside=(COORDINATOR,))


@pytest.mark.parametrize("reference", [Host("boss"), Port("boss", "greet"), Port("coordinator", "web")])
@pytest.mark.parametrize(
    "where",
    [
        lambda ref: {"command": ("run", ref)},
        lambda ref: {"command": ("run", ("tcp://", ref))},
        lambda ref: {"env": {"A": ref}},
        lambda ref: {"files": {"a.conf": ("x=", ref)}},
        lambda ref: {"after": (ref,)},
    ],
    ids=["command", "joined", "env", "files", "after"],
)
def test_a_reference_to_what_is_not_there_is_refused_with_what_is(reference, where):
    there = {"coordinator": {"greet": 9000}, "worker": {}, "driver": {}}
    with refused(f"reference={reference!r}: there are only these roles and ports: {there}"):
        with_launch(**where(reference))


def test_a_link_to_a_port_that_is_not_there_is_refused():
    with refused("reference=Port(role='worker', name='web'): there are only these roles and ports"):
        replace(PLAN, links={"web": Port("worker", "web")})


def test_a_launch_knows_every_reference_in_its_command_env_files_and_waits():
    launch = Launch(
        ("x", Here.PYTHON, Host("a"), ("y", Port("b", "p"), Here.HOST)),
        env={"E": Host("c")},
        files={"f": ("z", Host("d"))},
        after=(Port("e", "p"),),
    )
    assert list(launch.references()) == [Host("a"), Port("b", "p"), Host("c"), Host("d"), Port("e", "p")]


def test_a_text_is_a_part_or_a_tuple_of_parts():
    assert [parts("a"), parts(GREET), parts(("a", GREET))] == [("a",), (GREET,), ("a", GREET)]


def test_the_cluster_that_serves_is_all_but_what_decides():
    assert PLAN.serving() == Plan(
        "test", (COORDINATOR, WORKER), None, 60, {}, "distributed:Client", {"greeting": GREET}
    )


def test_a_link_to_the_role_that_decides_is_not_the_serving_clusters():
    driver = replace(DRIVER, launch=replace(DRIVER.launch, ports={"ui": 4040}))
    plan = replace(PLAN, roles=(COORDINATOR, driver), links={"ui": Port("driver", "ui"), "greeting": GREET})
    assert (plan.serving().links, plan.deciding().links) == ({"greeting": GREET}, {"ui": Port("driver", "ui")})


def test_a_cluster_whose_replicas_are_the_job_cannot_be_shared():
    with pytest.raises(SpecError, match=r"^adapter='test': its replicas are the job: there is no cluster to share$"):
        Plan("test", (DRIVER,), "driver", 60).serving()


def test_one_job_on_a_shared_cluster_is_the_role_that_decides_and_refers_to_the_rest():
    assert PLAN.deciding() == Plan(
        "test", (DRIVER,), "driver", 60, {"job.py": b""}, "distributed:Client", {}, (COORDINATOR, WORKER)
    )


def test_the_job_may_refer_to_the_shared_cluster():
    driver = Role("driver", Launch(("run", Host("coordinator"), GREET)))
    plan = replace(PLAN, roles=(COORDINATOR, driver)).deciding()
    assert (plan.roles, plan.outside) == ((driver,), (COORDINATOR,))


@pytest.mark.parametrize(("decides", "coordinator"), [("driver", "driver"), (None, "coordinator")])
def test_the_log_is_that_of_the_role_that_decides_or_else_the_first(decides, coordinator):
    assert replace(PLAN, decides=decides).coordinator == coordinator


def test_a_role_is_found_by_its_name():
    assert PLAN.role("worker") is WORKER
