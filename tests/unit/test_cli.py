from __future__ import annotations

import contextlib
import io
import json
import signal
import subprocess
import sys
from argparse import Namespace
from collections.abc import AsyncGenerator, Collection, Iterator
from typing import Any

import pytest
import yaml

from practicus_provider.backends.base import Handle, Listing, LogLine
from practicus_provider.backends.kubernetes import KubernetesBackend
from practicus_provider.backends.kubernetes.access import Access
from practicus_provider.backends.kubernetes.pod_template import Site
from practicus_provider.backends.local import LocalBackend
from practicus_provider.cli import commands
from practicus_provider.status import ReplicaStatus, State, Status
from tests.plans import PATIENCE

ENDLESS = """
import argparse, signal, time
from practicus_provider.cli import commands

signal.signal(signal.SIGINT, signal.default_int_handler)  # also where whoever runs the tests is deaf to it

@commands._command
def endless(args):
    while True:
        print("line", flush=True)
        time.sleep(0.01)

endless(argparse.Namespace(verbose=False))
"""
LIVES = commands._lives
TASK = {"dag_id": "d", "task_id": "t", "run_id": "r", "map_index": -1, "try_number": 2}


class Place:
    """A backend with one cluster."""

    async def list(self) -> list[Listing]:
        return [Listing(Handle("c-1", "u"), Status(State.RUNNING), TASK, 0.0)]

    async def find(self, name: str) -> Listing:
        return (await self.list())[0]


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "_backend", lambda args: Place())
    monkeypatch.setattr(commands, "_lives", lambda tasks: ["lives" for _ in tasks])
    monkeypatch.setattr(commands.time, "time", lambda: 12.4)


@pytest.mark.parametrize(("output", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_numbers_are_numbers_for_who_reads_them_by_a_program(capsys, output, read):
    commands.list_(Namespace(output=output, verbose=False))
    row = {"name": "c-1", "state": "running", "note": "", "age": 12, **TASK, "task": "lives"}
    assert read(capsys.readouterr().out) == [row]


def test_an_age_has_its_unit_in_a_table(capsys):
    commands.list_(Namespace(output="plain", verbose=False))
    assert "12 s" in capsys.readouterr().out


def test_of_a_cluster_that_does_not_say_whose_it_is_nobody_knows_whether_its_task_is_over():
    assert LIVES([{}, {"dag_id": "d", "run_id": "r"}]) == ["unknown", "unknown"]


def test_where_nobody_can_answer_nothing_is_removed(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(SystemExit) as end:
        commands.delete_(Namespace(name="c-1", yes=False, verbose=False))
    assert end.value.code == "BackendError: nobody answers the question: give --yes to remove without one"
    assert "is removed" not in capsys.readouterr().out


@contextlib.contextmanager
def running() -> Iterator[subprocess.Popen[bytes]]:
    """A command that prints for ever."""
    with subprocess.Popen([sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert b"line\n" in process.stdout  # after what Airflow may say as it starts
            yield process
        finally:
            process.kill()


def test_a_reader_that_has_had_enough_ends_a_command_without_a_word():
    with running() as process:
        process.stdout.close()
        assert process.wait(PATIENCE) == 128 + signal.SIGPIPE
        assert b"Error" not in process.stderr.read()


def test_ctrl_c_ends_a_command_without_a_word():
    with running() as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 128 + signal.SIGINT
        assert b"KeyboardInterrupt" not in process.stderr.read()


class Told(LocalBackend):
    """Has one cluster that has written one line."""

    async def find(self, name: str) -> Listing:
        return Listing(Handle(name, "u"), Status(State.RUNNING), {}, 0.0)

    async def watch(self, handle: Handle, **_: Any) -> AsyncGenerator[Status, None]:
        yield Status(State.RUNNING, (ReplicaStatus("driver", 0, State.RUNNING),))

    async def logs(self, handle: Handle, sources: Collection[str], **_: Any) -> AsyncGenerator[LogLine, None]:
        yield LogLine("driver", 0, "\x1b[31mred\x1b[0m\x1b]0;title\x07")


@pytest.mark.parametrize(
    ("is_terminal", "printed"),
    [(True, "[driver-0] red\\x1b]0;title\\x07\n"), (False, "[driver-0] \x1b[31mred\x1b[0m\x1b]0;title\x07\n")],
)
async def test_a_job_s_lines_do_not_steer_a_terminal_and_a_file_gets_what_was_written(
    capsys, monkeypatch, tmp_path, is_terminal, printed
):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    await commands._print_logs(Told(tmp_path), "c-1", None)
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize(
    ("flags", "kinds"),
    [
        ({}, []),
        (
            {"admission": True},
            ["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "ClusterRole", "ClusterRoleBinding"],
        ),
        ({"default_deny": True}, ["NetworkPolicy"]),
    ],
)
def test_what_makes_a_namespace_safer_is_printed_after_the_user_s_rights(capsys, monkeypatch, flags, kinds):
    monkeypatch.setattr(commands, "_backend", lambda args: KubernetesBackend(Access(), Site("jobs")))
    args = {"service_account": "airflow:worker", "admission": False, "default_deny": False, "verbose": False}
    commands.rbac_(Namespace(**args | flags))
    printed = list(yaml.safe_load_all(capsys.readouterr().out))
    assert [manifest["kind"] for manifest in printed] == ["Role", "RoleBinding", *kinds]
