"""``python -m practicus_runtime.requirements FOLDER REQUIREMENT... -- COMMAND...``: installs, then becomes the command.

pip installs into a virtual environment of the replica's own, in its working folder. What this Python has already counts
as installed and is not touched; what it has in a version that will not do is hidden. Where pip takes packages from, its
own settings say (``PIP_INDEX_URL`` and the like); wheels in ``FOLDER``, the shipped application's, count too.
"""

from __future__ import annotations

import glob
import os
import site
import subprocess
import sys
import time
import venv
from importlib.util import find_spec


def main(folder: str, *arguments: str) -> None:
    """Replace this process by the command, which can import what is required."""
    end = arguments.index("--")
    installed, command = install(arguments[:end], folder), arguments[end + 1 :]
    os.environ["PYTHONPATH"] = os.pathsep.join([os.environ["PYTHONPATH"], installed])
    os.execvp(command[0], command)


def install(requirements: tuple[str, ...], wheels: str) -> str:
    """Folder that they can now be imported from."""
    what = ", ".join(requirements)
    has_pip = find_spec("pip") is not None
    if not has_pip and find_spec("ensurepip") is None:
        sys.exit(
            f"cannot install {what}: {sys.executable} has neither pip nor ensurepip. Have the image (or, locally, the "
            "connection's 'python') hold one of them, or these packages themselves"
        )
    began = time.monotonic()
    environment = os.path.abspath("requirements")
    venv.create(environment, symlinks=True, with_pip=not has_pip)
    (packages,) = glob.glob(os.path.join(glob.escape(environment), "lib", "python*", "site-packages"))
    with open(os.path.join(packages, "around.pth"), "w") as file:
        file.writelines(f"{path}\n" for path in site.getsitepackages())
    # Isolated: what the application calls a module of its own is none of pip's.
    pip = [os.path.join(environment, "bin", "python"), "-I", "-m", "pip", "--disable-pip-version-check", "--no-input"]
    code = subprocess.call([*pip, "install", "--quiet", "--find-links", wheels, *requirements])
    if code:
        sys.exit(
            f"cannot install {what}: pip ended with exit code {code}. On Kubernetes a replica reaches a package index "
            "only if egress= names it"
        )
    print(f"installed {what} in {time.monotonic() - began:.1f} s", flush=True)
    return packages


if __name__ == "__main__":
    main(*sys.argv[1:])
