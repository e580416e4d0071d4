"""What the example DAGs need on Kubernetes: images, and the folder of their data as a volume."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.target import KUBECONFIG
from tests.kubernetes import MAIN, Namespace

VOLUME = "data"


@contextlib.contextmanager
def shared_folder(namespace: Namespace, folder: Path) -> Iterator[None]:
    """A claim on a folder of this machine, which is every node's: to pods it is like a network's file system."""
    if os.environ.get(KUBECONFIG):
        pytest.skip("the nodes of a cluster of yours do not share a folder with this machine")
    folder.chmod(0o777)
    for child in folder.iterdir():
        child.chmod(0o777)
    claim = {"name": VOLUME, "namespace": namespace.name}
    common = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    volume = {
        "metadata": {"name": namespace.name},
        "spec": {
            **common,
            "capacity": {"storage": "1Gi"},
            "claimRef": claim,
            "hostPath": {"path": str(folder), "type": "Directory"},
        },
    }
    namespace.core.create_persistent_volume(volume)
    try:
        spec = {**common, "resources": {"requests": {"storage": "1Gi"}}, "volumeName": namespace.name}
        namespace.core.create_namespaced_persistent_volume_claim(
            namespace.name, {"metadata": {"name": VOLUME}, "spec": spec}
        )
        yield
    finally:
        namespace.core.delete_persistent_volume(namespace.name)


def connection(namespace: Namespace, image: Callable[[str], str], folder: Path) -> Mapping[str, Any]:
    """The extra of a connection under which pods find that folder under its path."""
    mount = {"name": VOLUME, "mountPath": str(folder)}
    claim = {"name": VOLUME, "persistentVolumeClaim": {"claimName": VOLUME}}
    main = {**MAIN, "volumeMounts": [mount]}
    return {
        "kubeconfig": namespace.kubeconfig,
        "namespace": namespace.name,
        "image": image("dask"),
        "images": {"spark": image("spark")},
        "pod_overrides": {"spec": {"volumes": [claim], "containers": [main]}},
    }
