"""uv, in the version that the Makefile names."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

REPO = Path(__file__).parents[1]


def uv(*arguments: str, stdin: str | None = None) -> str:
    """What uv prints with these arguments.

    :raises RuntimeError: it failed; with what it said.
    """
    done = subprocess.run([_path(), *arguments], input=stdin, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"uv {' '.join(arguments)} failed:\n{(done.stdout + done.stderr)[-4000:]}")
    return done.stdout


@cache
def _path() -> str:
    command = ["make", "--silent", "--directory", str(REPO), "uv"]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ).stdout.strip()
