"""``python -m practicus_runtime.fetch URL ARGS...``: downloads a script and becomes it."""

from __future__ import annotations

import os
import posixpath
import sys
import urllib.request
from urllib.parse import urlsplit

TIMEOUT = 60.0
"""Seconds without an answer after which the server counts as absent."""


def main(url: str, *args: str) -> None:
    """Replace this process by Python running the script at ``url``."""
    os.execv(sys.executable, [sys.executable, download(url), *args])


def download(url: str) -> str:
    """Path of the script, now in the working folder."""
    target = os.path.abspath(posixpath.basename(urlsplit(url).path) or "application.py")
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer, open(target, "wb") as file:
            file.write(answer.read())
    except OSError as error:
        sys.exit(f"cannot fetch the application from {url}: {error}")
    return target


if __name__ == "__main__":
    main(*sys.argv[1:])
