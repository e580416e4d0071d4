"""The first process of a container, run for real; a folder stands in for the container's file system."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from practicus_provider.backends.kubernetes.pod_template import MOUNT, SCRATCH, Site
from practicus_provider.backends.kubernetes.render import render
from practicus_provider.plan import Here, Launch, Plan, Role
from practicus_provider.runtime.practicus_runtime.boot import MESSAGE
from practicus_provider.runtime.practicus_runtime.contract import (
    END_MARK,
    FAILURE_LIMIT,
    MESSAGE_LIMIT,
    RESULT_LINE,
    RESULT_MARK,
)
from practicus_provider.spec import Elastic
from tests.plans import PATIENCE, TASK, plan, role

HOST, INDEX = "10.0.0.7", "3"
Boot = Callable[..., "Container"]


@dataclass
class Container:
    """A container that has ended."""

    exit_code: int
    output: str
    scratch: Path
    message: Path

    def said(self) -> Any:
        """The lines of JSON in its output."""
        return [json.loads(line) for line in self.lines()]

    def lines(self) -> list[str]:
        return self.output.split("\n")[:-1]

    def last_words(self) -> Any:
        assert len(self.message.read_bytes()) <= MESSAGE_LIMIT
        return json.loads(self.message.read_text())


@pytest.fixture
def boot(tmp_path: Path) -> Boot:
    """Runs a plan's driver as its pod would, with the ConfigMap that travels with it."""

    def run(plan: Plan, *, name: str = "driver", **env: str) -> Container:
        bundle, scratch, message = tmp_path / "bundle", tmp_path / "scratch", tmp_path / "message"
        manifests = render("c-job", plan, Site("jobs", "python:3"), TASK, lease=None, parent=None)
        (config,) = [manifest for manifest in manifests.others if manifest["kind"] == "ConfigMap"]
        for folder in (bundle, scratch):
            folder.mkdir(exist_ok=True)
        for file, text in config["data"].items():
            (bundle / file).write_text(text.replace(SCRATCH, str(scratch)).replace(MESSAGE, str(message)))
        for file, data in config["binaryData"].items():
            (bundle / file).write_bytes(base64.b64decode(data))
        (container,) = manifests.root["spec"]["template"]["spec"]["containers"]
        command = [part.replace(MOUNT, str(bundle)) for part in container["command"]]
        assert (command[0], command[-1], container["workingDir"]) == ("python3", "driver", SCRATCH)
        done = subprocess.run(
            [sys.executable, *command[1:-1], name],
            cwd=scratch,
            env={"PATH": os.environ["PATH"], "PRACTICUS_HOST": HOST, "PRACTICUS_INDEX": INDEX, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return Container(done.returncode, done.stdout, scratch, message)

    return run


def python(code: str, *args: Any, **more: Any) -> Plan:
    """A plan of one driver that runs this code."""
    launch = {name: more.pop(name) for name in ("env", "files") if name in more}
    files = more.pop("shipped", {})
    return plan(role("driver", code, *args, **launch), files=files, **more)


# ---- what a replica is given


def test_the_application_is_unpacked_and_comes_first_on_the_search_path_then_our_runtime_then_the_users(boot):
    code = "import sys, json, os; print(json.dumps([sys.path[1:4], os.environ['PYTHONPATH'].split(os.pathsep)]))"
    shipped = {"job.py": b"", "lib/tools.py": b"X = 1\n", "data.bin": bytes(range(256))}
    done = boot(python(code, shipped=shipped, env={"PYTHONPATH": "/of/the/user"}))
    ours = done.scratch / ".practicus"
    path = [str(ours / "app"), str(ours / "runtime"), "/of/the/user"]
    assert done.said() == [[path, path]]
    assert {name: (ours / "app" / name).read_bytes() for name in shipped} == shipped


def test_the_images_search_path_stays_at_the_end(boot):
    done = boot(python("import os, json; print(json.dumps(os.environ['PYTHONPATH']))"), PYTHONPATH="/of/the/image")
    assert done.said()[0].split(os.pathsep)[2:] == ["/of/the/image"]


def test_without_another_search_path_there_is_no_empty_part_which_would_be_the_working_folder(boot):
    done = boot(python("import os, json; print(json.dumps(os.environ['PYTHONPATH']))"))
    assert done.said()[0].split(os.pathsep) == [str(done.scratch / ".practicus" / name) for name in ("app", "runtime")]


@pytest.mark.parametrize(("host", "in_url"), [("10.0.0.7", "10.0.0.7"), ("fd00::7", "[fd00::7]")])
def test_a_pods_address_is_joined_with_a_port_as_in_a_url(boot, host, in_url):
    code = "import sys, json; print(json.dumps(sys.argv[1:]))"
    done = boot(python(code, Here.HOST, (Here.URL_HOST, ":1")), PRACTICUS_HOST=host)
    assert done.said() == [[host, f"{in_url}:1"]]


def test_who_asks_for_replicas_is_told_of_which_role(boot):
    code = "import os, json; print(json.dumps(os.environ.get('PRACTICUS_SPAWNS')))"
    mappers = role("mapper", "", elastic=Elastic(1, 2))
    assert boot(plan(role("driver", code, spawns="mapper"), mappers)).said() == ["mapper"]
    assert boot(python(code)).said() == [None]


def test_references_become_what_the_pod_is(boot):
    code = "import sys, json, os; print(json.dumps([sys.argv[1:], os.environ['AT'], open('a/b').read()]))"
    arguments = (Here.INDEX, ("<", Here.HOST, ">"), Here.PYTHON, (Here.SCRATCH, "/x"), (Here.APP, "/y"))
    done = boot(python(code, *arguments, env={"AT": (Here.HOST, ":1")}, files={"a/b": ("i=", Here.INDEX, "\n")}))
    app = done.scratch / ".practicus" / "app"
    found = [INDEX, f"<{HOST}>", sys.executable, f"{done.scratch}/x", f"{app}/y"]
    assert done.said() == [[found, f"{HOST}:1", f"i={INDEX}\n"]]


def test_what_a_user_writes_is_passed_on_as_it_is(boot):
    nasty = 'it\'s "${HOME}" $(PRACTICUS_HOST) `id` %s {here} größe\n{"here": "host"}'
    code = "import sys, json, os; print(json.dumps([sys.argv[1], os.environ['A'], open('f').read()]))"
    assert boot(python(code, nasty, env={"A": nasty}, files={"f": nasty})).said() == [[nasty] * 3]


def test_a_replica_is_told_its_place_and_its_task(boot):
    code = "import practicus_runtime as p, dataclasses, json; print(json.dumps(dataclasses.asdict(p.context())))"
    expected = TASK | {"attempt": 1, "role": "driver", "index": 3, "rank": 3, "world_size": 1, "volumes": {}}
    assert boot(python(code)).said() == [expected]


def test_the_adapters_client_is_the_replicas(boot):
    code = "import practicus_runtime as p, json; print(json.dumps(p.get_client()))"
    done = boot(python(code, shipped={"mine.py": b"def connect():\n    return 'connected'\n"}, client="mine:connect"))
    assert done.said() == ["connected"]


def test_another_role_runs_its_own_command(boot):
    done = boot(plan(role("worker", "print('\"work\"')"), role("driver", "")), name="worker")
    assert done.said() == ["work"]


def test_output_is_not_held_back(boot):
    assert boot(python("import os; print(os.environ['PYTHONUNBUFFERED'])")).said() == [1]


@pytest.mark.parametrize("home", [{}, {"HOME": "/nowhere"}], ids=["none", "that cannot be written to"])
def test_a_home_that_does_not_serve_is_the_scratch_folder(boot, home):
    done = boot(python("import os, json; print(json.dumps(os.environ['HOME']))"), **home)
    assert done.said() == [str(done.scratch)]


def test_a_home_that_can_be_written_to_stays(boot, tmp_path):
    done = boot(python("import os, json; print(json.dumps(os.environ['HOME']))"), HOME=str(tmp_path))
    assert done.said() == [str(tmp_path)]


# ---- what it leaves


def test_the_last_words_are_the_exit_code_and_the_result(boot):
    done = boot(python("import practicus_runtime as p; p.set_result({'answer': 42}); p.set_result({'größe': 43})"))
    assert (done.exit_code, done.output) == (0, "")
    assert done.last_words() == {"exit_code": 0, "signal": None, "result": '{"gr\\u00f6\\u00dfe": 43}'}


def test_without_a_result_the_last_words_say_so(boot):
    assert boot(python("pass")).last_words() == {"exit_code": 0, "signal": None, "result": None}


def test_a_command_that_fails_as_another_process_did_has_that_ones_end_there(boot):
    cause = {"rank": 3, "exit_code": None, "signal": 9, "at": 1.5}
    code = f"import os, sys; open(os.environ['PRACTICUS_FAILURE'], 'w').write({json.dumps(cause)!r}); sys.exit(137)"
    done = boot(python(code))
    assert (done.exit_code, done.last_words()) == (137, {**cause, "result": None})


def test_a_command_that_fails_has_its_exit_code_there_and_as_the_containers(boot):
    done = boot(python("import sys; sys.exit(3)"))
    assert (done.exit_code, done.last_words()) == (3, {"exit_code": 3, "signal": None, "result": None})


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_command_that_a_signal_ends_has_its_number_there(boot, number):
    done = boot(python(f"import os; os.kill(os.getpid(), {number.value})"))
    words = {"exit_code": None, "signal": number, "result": None}
    assert (done.exit_code, done.last_words()) == (128 + number, words)


def test_a_command_that_is_not_there_is_127_and_its_name_is_in_the_log(boot):
    done = boot(plan(Role("driver", Launch(("no-such-program",)))))
    assert (done.exit_code, done.output) == (127, "cannot start no-such-program: No such file or directory\n")
    assert done.last_words() == {"exit_code": 127, "signal": None, "result": None}


SETS = "import practicus_runtime as p, sys; p.set_result('x' * int(sys.argv[1])); print('last line')"
AROUND = len(json.dumps({"exit_code": 0, "signal": None, "result": '""'}))
"""What stands in the last words beside the letters of a result that is a string."""


def test_a_result_that_just_fits_is_in_the_last_words(boot):
    most = MESSAGE_LIMIT - AROUND
    done = boot(python(SETS, str(most)))
    assert len(done.message.read_bytes()) == MESSAGE_LIMIT
    assert (json.loads(done.last_words()["result"]), done.output) == ("x" * most, "last line\n")


@pytest.mark.parametrize(
    ("size", "count"),
    [(MESSAGE_LIMIT - AROUND + 1, 1), (RESULT_LINE - 2, 1), (RESULT_LINE - 1, 2), ((1 << 20) - 2, 128)],
)
def test_a_result_that_does_not_fit_is_at_the_end_of_the_log_in_as_many_lines_as_the_last_words_say(boot, size, count):
    done = boot(python(SETS, str(size)))
    assert done.last_words() == {"exit_code": 0, "signal": None, "result_lines": count}
    assert done.lines()[:2] == ["last line", RESULT_MARK]
    lines = done.lines()[2 : 2 + count]
    assert all(line.startswith(RESULT_MARK) for line in lines)
    assert all(len(line) <= len(RESULT_MARK) + RESULT_LINE for line in lines)
    assert json.loads("".join(line.removeprefix(RESULT_MARK) for line in lines)) == "x" * size


def test_a_long_result_stands_on_lines_of_its_own_though_the_commands_last_line_has_no_end(boot):
    done = boot(python(f"{SETS}; print('no end', end='')", "10000"))
    assert (
        sum(line.startswith(RESULT_MARK) and line != RESULT_MARK for line in done.lines())
        == done.last_words()["result_lines"]
    )


@pytest.mark.parametrize(
    ("leaves", "result"),
    [
        ("open(path, 'wb').write(b'\\xff')", "\ufffd"),
        ("os.mkfifo(path)", None),
        ("os.symlink('/dev/zero', path)", None),
        ("os.mkdir(path)", None),
    ],
    ids=["no UTF-8", "a pipe", "a link without an end", "a folder"],
)
def test_whatever_a_command_leaves_as_its_result_its_end_is_told(boot, leaves, result):
    done = boot(python(f"import os; path = os.environ['PRACTICUS_RESULT']; {leaves}"))
    assert (done.exit_code, done.last_words()) == (0, {"exit_code": 0, "signal": None, "result": result})


@pytest.mark.parametrize(
    "said",
    [
        b"\xff",
        b"[" * 1500,
        b"[]",
        b'{"exit_code": 0}',
        b'{"exit_code": "1", "signal": NaN, "silent": "q"}',
        b'{"exit_code": 1, "x": "' + b"x" * FAILURE_LIMIT + b'"}',
    ],
    ids=["no UTF-8", "deep", "no object", "no failure", "other types", "long"],
)
def test_a_command_that_fails_and_says_what_cannot_be_read_has_its_own_end(boot, said):
    code = f"import os, sys; open(os.environ['PRACTICUS_FAILURE'], 'wb').write({said!r}); sys.exit(3)"
    done = boot(python(code))
    assert (done.exit_code, done.last_words()) == (3, {"exit_code": 3, "signal": None, "result": None})


# ---- the end of its output


def test_both_outputs_end_with_the_nonce_and_the_last_words(boot):
    done = boot(python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"), PRACTICUS_NONCE="n")
    end = f"{END_MARK}n {done.message.read_text()}"
    assert (sorted(done.lines()[:2]), done.lines()[2:]) == (["err", "out"], [end, end])


def test_the_end_comes_after_what_the_commands_children_wrote_last(boot):
    child = "trap 'echo late; exit' TERM; echo up; while :; do sleep 0.01; done"
    starts = f"""
import subprocess, sys
child = subprocess.Popen(["sh", "-c", {child!r}], stdout=subprocess.PIPE, start_new_session=True)
print(child.stdout.readline().decode(), end="")
subprocess.Popen(["cat"], stdin=child.stdout, start_new_session=True)
"""
    done = boot(python(starts), PRACTICUS_NONCE="n")
    assert [line.startswith(END_MARK) for line in done.lines()][-3:] == [False, True, True]
    assert done.lines()[0] == "up"


def test_the_end_stands_behind_an_unfinished_last_line(boot):
    done = boot(python("print('no end', end='')"), PRACTICUS_NONCE="n")
    assert done.lines()[0] == f"no end{END_MARK}n {done.message.read_text()}"


def test_the_command_does_not_see_the_nonce_in_its_environment(boot):
    done = boot(python("import os; print('PRACTICUS_NONCE' in os.environ)"), PRACTICUS_NONCE="n")
    assert done.lines()[0] == "False"


def test_nothing_of_the_replica_is_left_in_the_bundle(boot, tmp_path):
    boot(python("pass"))
    assert {path.name for path in (tmp_path / "bundle").iterdir()} == {"boot.py", "launches.json", "bundle.tgz"}
