"""A machine: processes in namespaces of their own, under a PID 1 of their own.

When PID 1 ends, the kernel ends everything in there and takes back its mounts, network interfaces and iptables rules.
So a machine cannot leave anything behind, and killing its PID 1 is what losing the machine looks like to the others.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.errors import ClusterError
from tests.cluster.layout import REPOSITORY, Layout
from tests.cluster.process import Process, spawn_child_of, tail, wait_until

TUNABLES = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1_000_000,
    "kernel/keys/root_maxbytes": 25_000_000,
}
"""What a kubelet writes into the kernel unless it is there. The host's stay as they are: a machine sees these files."""

_NAMESPACES = ("--mount", "--uts", "--ipc", "--net", "--pid")
# Kubelets and network plugins have places in /run, /var/lib and /var/log that no option moves.
PRIVATE = (Path("/run"), Path("/var/lib"), Path("/var/log"))
"""Folders that a machine has for itself, empty after every start."""
_START = """
set -e
hostname {name}
mount --make-rshared /
{private}
{tunables}
ip link set lo up
echo 1 > /proc/sys/net/ipv4/ip_forward
touch {folder}/started
exec {pause}
"""


@dataclass(frozen=True)
class Component:
    """A long-running program on a machine."""

    name: str
    command: Sequence[str]
    files: Mapping[Path, str] = field(default_factory=dict)
    """Its configuration: written before it starts."""
    inputs: Sequence[str] = ()
    """What else it is to be started anew for when it changes."""

    @property
    def key(self) -> str:
        """Changes with anything that it is started with."""
        files = {str(path): content for path, content in self.files.items()}
        return hashlib.sha256(json.dumps([self.command, files, self.inputs]).encode()).hexdigest()[:16]


class Machine:
    """One machine of the cluster."""

    def __init__(self, layout: Layout, name: str) -> None:
        self.name = name
        self.folder = layout.machine(name)
        self._logs = layout.logs / name
        self._processes = layout.processes / name

    @property
    def init(self) -> Process | None:
        """PID 1 of the machine, if it runs."""
        process = Process.read(self._processes / "init")
        return process if process and process.alive else None

    def start(self, pause: str) -> bool:
        """Start it unless it runs; returns whether it had to be."""
        started = self.folder / "started"
        if self.init and started.exists():
            return False
        self.kill()  # a start that was interrupted
        started.unlink(missing_ok=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        script = _START.format(
            name=self.name,
            private="\n".join(f"mount -t tmpfs -o mode=755 tmpfs {path}" for path in PRIVATE),
            folder=shlex.quote(str(self.folder)),
            pause=shlex.quote(pause),
            tunables=self._tunables(),
        )
        command = [
            "unshare",
            *_NAMESPACES,
            "--fork",
            "--mount-proc",
            "--propagation",
            "private",
            "--",
            "sh",
            "-c",
            script,
        ]
        init = spawn_child_of(command, self.log("init"), REPOSITORY)
        init.write(self._processes / "init")
        wait_until(
            lambda: started.exists() or not init.alive,
            f"{self.name} has started",
            10,
            explain=lambda: tail(self.log("init")),
        )
        if not started.exists():
            raise ClusterError(f"{self.name} did not start\n{tail(self.log('init'))}")
        return True

    def kill(self) -> None:
        """End everything on it, at once."""
        if init := self.init:
            init.kill()

    def ensure(self, component: Component) -> bool:
        """Start a component unless it runs with these very inputs; returns whether it had to be."""
        process = self.process(component.name)
        if process and process.alive and process.key == component.key:
            return False
        if process:
            process.end()
        for path, content in component.files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        started = spawn_child_of(self._entered(component.command), self.log(component.name), REPOSITORY, component.key)
        started.write(self._processes / component.name)
        return True

    def end(self, component: str) -> None:
        """End a component for good."""
        if process := self.process(component):
            process.end()
            (self._processes / component).unlink()

    def forget(self) -> None:
        """Remove what a machine that was killed has left in the cluster's folder."""
        for folder in (self.folder, self._processes, self._logs):
            shutil.rmtree(folder, ignore_errors=True)

    def process(self, component: str) -> Process | None:
        """A component's process, dead or alive, if it was ever started."""
        return Process.read(self._processes / component)

    @property
    def processes(self) -> dict[str, Process]:
        """All that were ever started, by name."""
        found = {file.name: Process.read(file) for file in sorted(self._processes.glob("*")) if not file.suffix}
        return {name: process for name, process in found.items() if process and name != "init"}

    def log(self, component: str) -> Path:
        """What a component printed."""
        return self._logs / f"{component}.log"

    def run(self, *command: str) -> str:
        """Run a command on it and return what it printed.

        :raises ClusterError: it failed.
        """
        done = subprocess.run(self._entered(command), capture_output=True, text=True, cwd=REPOSITORY)
        if done.returncode:
            raise ClusterError(f"{shlex.join(command)} failed on {self.name}: {done.stderr.strip() or done.returncode}")
        return done.stdout

    def call(self, *command: str) -> int:
        """Run a command on it with this terminal, and return its exit status."""
        return subprocess.run(self._entered(command), cwd=REPOSITORY).returncode

    def _entered(self, command: Sequence[str]) -> list[str]:
        if not (init := self.init):
            raise ClusterError(f"{self.name} does not run: python -m tests.cluster up")
        return ["nsenter", "--target", str(init.pid), *_NAMESPACES, f"--wd={REPOSITORY}", "--", *command]

    def _tunables(self) -> str:
        folder = self.folder / "tunables"
        folder.mkdir(exist_ok=True)
        lines = []
        for name, value in TUNABLES.items():
            file = folder / name.replace("/", ".")
            file.write_text(f"{value}\n")
            lines.append(f"mount --bind {shlex.quote(str(file))} /proc/sys/{name}")
        return "\n".join(lines)
