"""A PostgreSQL of a benchmark's own: Airflow's many processes write at once, which a database of one file refuses."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.cluster import packages

NEEDED = {"pg_ctlcluster": "postgresql"}
"""A command that comes with the server, and not with the client alone -> Debian's package."""
VERSIONS = Path("/usr/lib/postgresql")
"""Where Debian has the server's programs, a folder for each version."""
ACCOUNT = "postgres"
"""Whom Debian's package makes: the server refuses to run as root."""
USER = "airflow"


@dataclass(frozen=True)
class Postgres:
    """A running server, which is reached by a socket in its folder and by no network."""

    folder: Path

    @property
    def settings(self) -> dict[str, str]:
        """Environment of an Airflow that has its database there; one driver serves both of its engines."""
        url = f"postgresql+psycopg://{USER}@/postgres?host={self.folder}"
        return {f"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN{which}": url for which in ("", "_ASYNC")}

    @property
    def process(self) -> psutil.Process:
        """The parent of all of its processes."""
        return psutil.Process(int((self.folder / "data" / "postmaster.pid").read_text().split()[0]))


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """An empty one, which is gone afterwards.

    :raises ClusterError: it is not installed, and cannot be.
    """
    packages.ensure(NEEDED)
    programs = max(VERSIONS.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3])).parent
    owner: dict[str, Any] = {"user": ACCOUNT, "group": ACCOUNT, "extra_groups": []} if os.geteuid() == 0 else {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = folder / "data"
        if owner:
            shutil.chown(folder, ACCOUNT, ACCOUNT)

        def run(program: str, *arguments: str) -> None:
            command = [str(programs / program), f"--pgdata={data}", *arguments]
            # A daemon keeps what it has inherited open: a pipe would never end.
            subprocess.run(
                command, check=True, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, **owner
            )

        run("initdb", f"--username={USER}", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync")
        with (data / "postgresql.conf").open("a") as settings:
            print(f"listen_addresses = ''\nunix_socket_directories = '{folder}'", file=settings)
        run("pg_ctl", f"--log={folder / 'log'}", "--wait", "start")
        try:
            yield Postgres(folder)
        finally:
            run("pg_ctl", "--mode=immediate", "--wait", "stop")
