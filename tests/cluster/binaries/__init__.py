"""Builds the cluster's programs from pinned Go modules, once for each set of inputs.

Each folder beside this file is a Go module of its own, because the programs need different versions of the same
libraries. What it takes lies in its ``go.mod`` and ``go.sum``, so the module proxy can give nothing else.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.errors import ClusterError
from tests.cluster.process import exclusive

SOURCES = Path(__file__).parent
FLAGS = ("-trimpath", "-buildvcs=false", "-mod=readonly")
CONTAINERD = "2.4.2"
KUBERNETES = "1.34.4"


@dataclass(frozen=True, eq=False)
class Program:
    """A Go module of ours that gives one or more binaries."""

    name: str
    packages: Mapping[str, str]
    """Binary -> the package that it is built from."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """String variables that the linker sets."""

    @property
    def source(self) -> Path:
        return SOURCES / self.name

    @property
    def flags(self) -> tuple[str, ...]:
        variables = " ".join(f"-X {name}={value}" for name, value in self.variables.items())
        return (*FLAGS, "-ldflags", f"-s -w {variables}".strip())


_VERSION = "k8s.io/component-base/version"
PROGRAMS = (
    Program("pause", {"pause": "."}),
    Program(
        "containerd",
        {
            name: f"github.com/containerd/containerd/v2/cmd/{name}"
            for name in ("containerd", "containerd-shim-runc-v2", "ctr")
        },
        {"github.com/containerd/containerd/v2/version.Version": CONTAINERD},
    ),
    Program("etcd", {"etcd": "go.etcd.io/etcd/server/v3"}),
    Program("coredns", {"coredns": "github.com/coredns/coredns"}),
    Program("kwok", {"kwok": "sigs.k8s.io/kwok/cmd/kwok"}),
    Program(
        "kubernetes",
        {
            name: f"k8s.io/kubernetes/cmd/{name}"
            for name in (
                "kube-apiserver",
                "kube-controller-manager",
                "kube-proxy",
                "kube-scheduler",
                "kubectl",
                "kubelet",
            )
        },
        # Without them the API server says that it is v0.0.0, and clients believe it.
        {
            f"{_VERSION}.gitVersion": f"v{KUBERNETES}",
            f"{_VERSION}.gitMajor": KUBERNETES.split(".")[0],
            f"{_VERSION}.gitMinor": KUBERNETES.split(".")[1],
        },
    ),
)
NAMES = frozenset(program.name for program in PROGRAMS)


@dataclass(frozen=True)
class Binaries:
    """Where the built binaries are."""

    paths: Mapping[str, Path]

    def __getitem__(self, name: str) -> str:
        return str(self.paths[name])


def built(cache: Path, names: Collection[str]) -> Binaries:
    """The binaries of some programs, of which the missing ones are built first: minutes on a fresh machine.

    :param cache: the folder that keeps them.
    :param names: of :data:`NAMES`.
    """
    go = _Go.found()
    wanted = [program for program in PROGRAMS if program.name in names]
    folders = {program: cache / f"{program.name}-{_key(program, go)}" for program in wanted}
    with exclusive(cache):
        missing = [program for program, folder in folders.items() if not folder.exists()]
        if missing:
            workspace = cache / "building"
            _remove(workspace)  # of a build that was killed
            try:
                for program in missing:
                    print(f"building {program.name} (once; it stays in {folders[program]})", flush=True)
                    go.build(program, workspace / program.name, workspace)
                    (workspace / program.name).rename(folders[program])
            finally:
                _remove(workspace)
    return Binaries({name: folder / name for program, folder in folders.items() for name in program.packages})


def _key(program: Program, go: _Go) -> str:
    """Changes with anything that the binaries are made of."""
    digest = hashlib.sha256(repr((go.description, program.flags, sorted(program.packages.items()))).encode())
    for source in sorted(program.source.iterdir()):
        content = source.read_bytes()
        digest.update(f"{source.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


@dataclass(frozen=True)
class _Go:
    """The machine's Go."""

    command: str
    description: str

    @classmethod
    def found(cls) -> _Go:
        command = shutil.which("go")
        if command is None:
            raise ClusterError("Go is needed to build the cluster's programs, and no `go` is on PATH: install it")
        version = subprocess.run([command, "version"], check=True, stdout=subprocess.PIPE, text=True, env=_local())
        return cls(command, version.stdout.strip())

    def build(self, program: Program, into: Path, workspace: Path) -> None:
        """Build a program's binaries; what Go keeps of it (gigabytes) goes to the workspace."""
        self._new_enough_for(program)
        into.mkdir(parents=True)
        caches = {"GOCACHE": str(workspace / "go-build"), "GOMODCACHE": str(workspace / "go-modules")}
        environment = _local() | caches | {"CGO_ENABLED": "0", "GOFLAGS": "-modcacherw", "GOWORK": "off"}
        for name, packages in self._targets(program):
            command = [self.command, "build", *program.flags, "-o", str(into / name), *packages]
            done = subprocess.run(command, cwd=program.source, env=environment, capture_output=True, text=True)
            if done.returncode:
                raise ClusterError(
                    f"{program.name} cannot be built (is the Go module proxy to be reached?):\n{done.stderr[-4000:]}"
                )

    @staticmethod
    def _targets(program: Program) -> list[tuple[str, list[str]]]:
        """What to give to each ``go build``: binaries that are named like their packages can share one."""
        if all(Path(package).name == name for name, package in program.packages.items()):
            return [("", list(program.packages.values()))]
        return [(name, [package]) for name, package in program.packages.items()]

    def _new_enough_for(self, program: Program) -> None:
        required = re.search(r"^go (\S+)$", (program.source / "go.mod").read_text(), re.MULTILINE)
        present = re.search(r"\bgo(\d\S*)", self.description)
        assert required, f"{program.name}'s go.mod has no go line"
        if present and _numbers(present[1]) < _numbers(required[1]):
            raise ClusterError(
                f"{program.name} needs Go {required[1]} or newer, and {self.command} is {present[1]}: "
                "install a newer one, or put it first on PATH"
            )


def _local() -> dict[str, str]:
    """The environment in which Go is the one that is there, and never one that it downloads."""
    return os.environ | {"GOTOOLCHAIN": "local"}


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])
