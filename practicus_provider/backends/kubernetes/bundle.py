"""The archive in a cluster's ConfigMap: what ``boot.py`` unpacks in each pod. Pure, but for reading our runtime."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Collection, Mapping

from practicus_provider import runtime


def pack(files: Mapping[str, bytes], executable: Collection[str]) -> bytes:
    """The application below ``app/`` and our runtime below ``runtime/``; the same bytes for the same content."""
    content = {f"app/{name}": data for name, data in files.items()}
    for path in sorted(runtime.FOLDER.glob("practicus_runtime/*.py")):
        content[f"runtime/practicus_runtime/{path.name}"] = path.read_bytes()
    programs = {f"app/{name}" for name in executable}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, data in sorted(content.items()):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            entry.mode = 0o755 if name in programs else 0o644
            archive.addfile(entry, io.BytesIO(data))
    return gzip.compress(packed.getvalue(), mtime=0)
