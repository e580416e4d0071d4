"""Images: archives that are built once for each set of inputs, and given to every node.

An image is built by buildah from an ordinary Dockerfile. The base, ``debian:trixie-slim`` in every Dockerfile, is made
here from Debian's packages, because a registry for images is more than a test machine can be expected to reach.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import io
import json
import platform
import shutil
import ssl
import subprocess
import tarfile
import tempfile
from pathlib import Path

from tests.cluster.binaries import Binaries
from tests.cluster.errors import ClusterError
from tests.cluster.layout import REPOSITORY
from tests.cluster.machine import Machine
from tests.cluster.process import exclusive, tail, wait_until

PREFIX = "localhost/practicus/"
PAUSE = f"{PREFIX}pause:dev"
SOURCES = REPOSITORY / "images"

_BASE = f"{PREFIX}base:trixie"
# Without what Debian's own slim images are without.
_NOT_SLIM = [f"path-exclude=/usr/share/{folder}/*" for folder in ("doc", "info", "locale", "man")]
_MMDEBSTRAP = ["mmdebstrap", "--variant=minbase", *(f"--dpkgopt={option}" for option in _NOT_SLIM), "trixie"]
_NAMESPACE = ("--namespace", "k8s.io")


def names() -> list[str]:
    """Images that can be built: a folder each."""
    return sorted(file.parent.name for file in SOURCES.glob("*/Dockerfile"))


def archive(image: str, cache: Path) -> Path:
    """An archive of an image: that file itself, or one of ours, built if it must be.

    :param image: a file, or ``NAME`` or ``localhost/practicus/NAME:dev`` of a folder ``images/NAME``.
    """
    if Path(image).is_file():
        return Path(image).resolve()
    name = image.removeprefix(PREFIX).removesuffix(":dev")
    if name not in names():
        raise ClusterError(f"{image} is neither a file nor one of {', '.join(names())}: see images/README.md")
    base, built = _base_file(cache), _file(name, cache)
    if built.exists():  # whoever builds another may take minutes
        return built
    with exclusive(cache):
        if not built.exists():
            workspace = cache / "building"
            _remove(workspace)  # of a build that was killed
            workspace.mkdir(parents=True)
            try:
                if not base.exists():
                    _build_base(base, workspace)
                _Buildah(workspace, base).build(name, built)
            finally:
                _remove(workspace)
    return built


def give(ctr: str, node: Machine, archive: Path) -> None:
    """Let a node have all images of an archive, as ``docker save`` and ``buildah push docker-archive:`` make them."""
    given = _given(node, archive)
    if not given.exists():
        node.run(ctr, *_NAMESPACE, "images", "import", str(archive))
        given.parent.mkdir(exist_ok=True)
        given.touch()


def _given(node: Machine, archive: Path) -> Path:
    """A file that is there once the node has the archive's images."""
    state = archive.stat()
    return node.folder / "images" / _digest([str(archive), state.st_mtime_ns, state.st_size])


def stock(cache: Path, binaries: Binaries) -> None:
    """Build all images, and with them the store that nodes start from: minutes on a fresh machine.

    :param binaries: containerd's.
    """
    archives = [archive(name, cache) for name in names()]
    store = _store(cache, archives, binaries)
    with exclusive(cache):
        if not store.exists():
            workspace = cache / "building"
            _remove(workspace)
            workspace.mkdir(parents=True)
            print(f"unpacking the images (once; they stay in {store})", flush=True)
            try:
                _import(archives, workspace, binaries)
                (workspace / "root").rename(store)
            finally:
                _remove(workspace)


def furnish(node: Machine, folder: Path, cache: Path, binaries: Binaries) -> None:
    """Let a node that has never run start with what is in stock, if there is any.

    Files are shared, as hard links: containerd never changes what is unpacked, and keeps account of it in databases,
    of which each node has its own. Importing instead writes 3 GB a node.

    :param folder: for its containerd.
    """
    archives = [_file(name, cache) for name in names()]
    store = _store(cache, archives, binaries)
    if folder.exists() or not store.exists() or store.stat().st_dev != node.folder.stat().st_dev:
        return
    aside = folder.with_suffix(".new")
    _remove(aside)
    _run(["cp", "--archive", "--link", str(store), str(aside)])
    for database in store.rglob("*.db"):
        own = aside / database.relative_to(store)
        own.unlink()
        shutil.copy2(database, own)
    for each in archives:
        given = _given(node, each)
        given.parent.mkdir(exist_ok=True)
        given.touch()
    aside.rename(folder)


def _store(cache: Path, archives: list[Path], binaries: Binaries) -> Path:
    containerd = Path(binaries["containerd"]).parent.name  # changes with anything that it is built from
    return cache / f"store-{_digest([containerd, inspect.getsource(_import), [each.name for each in archives]])}"


def _import(archives: list[Path], workspace: Path, binaries: Binaries) -> None:
    """Let a containerd of its own unpack them to ``root`` in that folder."""
    with tempfile.TemporaryDirectory() as state:  # a socket's path must be short
        settings, log, socket = workspace / "containerd.toml", workspace / "containerd.log", f"{state}/containerd.sock"
        settings.write_text(
            f'version = 4\nroot = "{workspace}/root"\nstate = "{state}"\nimports = []\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]\n'
            f'[plugins."io.containerd.server.v1.grpc"]\naddress = "{socket}"\n'
            f'[plugins."io.containerd.server.v1.ttrpc"]\naddress = "{socket}.ttrpc"\n'
        )
        command = ["unshare", "--mount", "--", binaries["containerd"], "--config", str(settings)]
        with log.open("wb") as output:
            containerd = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            ctr = [binaries["ctr"], "--address", socket, *_NAMESPACE]
            answers = functools.partial(subprocess.run, [*ctr, "version"], capture_output=True)
            wait_until(lambda: answers().returncode == 0, "containerd answers", 30, explain=lambda: tail(log))
            for each in archives:
                _run([*ctr, "images", "import", str(each)])
        finally:
            containerd.terminate()
            containerd.wait(30)


def pause_archive(binary: Path, folder: Path) -> Path:
    """An archive of the image that holds every pod's namespaces: one static binary."""
    layer = _tar({"pause": binary.read_bytes()}, mode=0o755)
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    config = json.dumps(
        {
            "architecture": architecture,
            "os": "linux",
            "config": {"Entrypoint": ["/pause"], "User": "65535"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
    ).encode()
    manifest = json.dumps([{"Config": "config.json", "RepoTags": [PAUSE], "Layers": ["layer.tar"]}]).encode()
    file = folder / "pause.tar"
    if not file.exists():
        file.write_bytes(_tar({"config.json": config, "layer.tar": layer, "manifest.json": manifest}))
    return file


class _Buildah:
    """Buildah with a storage of its own, that is gone after the build."""

    def __init__(self, workspace: Path, base: Path) -> None:
        self._workspace = workspace
        # Its mounts are made in a namespace of their own: none can stay.
        self._command = ["unshare", "--mount", "--", "buildah", "--storage-driver", "overlay"]
        self._command += ["--root", str(workspace / "storage"), "--runroot", str(workspace / "run")]
        (workspace / "base").mkdir()
        (workspace / "base" / base.name).hardlink_to(base)
        (workspace / "base" / "Dockerfile").write_text(f'FROM scratch\nADD {base.name} /\nCMD ["bash"]\n')
        self._run("build", "--tag", _BASE, str(workspace / "base"))

    def build(self, name: str, into: Path) -> None:
        """Build ``images/NAME`` and publish its archive."""
        print(f"building the image {PREFIX}{name}:dev (once; it stays in {into})", flush=True)
        tag = f"{PREFIX}{name}:dev"
        base = ["--pull-never", "--build-arg", f"BASE={_BASE}"]
        self._run("build", "--isolation", "chroot", *base, *self._trust(), "--tag", tag, str(SOURCES / name))
        aside = self._workspace / into.name
        self._run("push", "--quiet", tag, f"docker-archive:{aside}:{tag}")
        aside.rename(into)

    def _trust(self) -> list[str]:
        """Let pip in there trust whom this machine trusts.

        As root's home, which is there already: a file that is mounted where none is leaves an empty one in the image.
        """
        home = self._workspace / "home"
        settings = home / ".config" / "pip"
        settings.mkdir(parents=True)
        certificates = ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"
        shutil.copyfile(certificates, settings / "certificates.crt")
        (settings / "pip.conf").write_text("[global]\ncert = /root/.config/pip/certificates.crt\n")
        return ["--volume", f"{home}:/root"]

    def _run(self, *arguments: str) -> None:
        _run([*self._command, *arguments])


def _base_file(cache: Path) -> Path:
    return cache / f"base-{_digest(_MMDEBSTRAP)}.tar"


def _file(name: str, cache: Path) -> Path:
    return cache / f"{name}-{_key(SOURCES / name, _base_file(cache))}.tar"


def _build_base(base: Path, workspace: Path) -> None:
    print(f"building the base image {_BASE} (once; it stays in {base})", flush=True)
    _run([*_MMDEBSTRAP, str(workspace / base.name)])
    (workspace / base.name).rename(base)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise ClusterError(f"{' '.join(command)} failed:\n{done.stdout[-4000:]}")


def _key(folder: Path, base: Path) -> str:
    """Changes with anything that an image is made of and we can name; Debian's packages are those of the day."""
    content = [
        (str(file.relative_to(folder)), file.read_text()) for file in sorted(folder.rglob("*")) if file.is_file()
    ]
    return _digest([base.name, platform.machine(), inspect.getsource(_Buildah), content])


def _digest(inputs: object) -> str:
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _tar(files: dict[str, bytes], mode: int = 0o644) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), mode
            archive.addfile(entry, io.BytesIO(data))
    return content.getvalue()
