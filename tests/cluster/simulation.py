"""Nodes that only pretend to run pods (KWOK): as many as a test of scale wants, for next to nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.cluster.api import Api
from tests.cluster.binaries import Binaries
from tests.cluster.layout import Layout
from tests.cluster.machine import Component
from tests.cluster.pki import Authority

NAME = "kwok"
STAGES = Path(__file__).with_suffix(".yaml")
TAINT = {"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}
"""Keeps pods off unless they tolerate it: a pod that only pretends to run would never end."""
SELECTOR = {"type": "kwok"}
TOLERATION = {"key": TAINT["key"], "operator": "Exists", "effect": TAINT["effect"]}
"""What a pod needs to run there, and nowhere else."""
RUNS_FOR, EXIT_CODE = "practicus.test/runs-for", "practicus.test/exit-code"
"""Annotations of a Job's pod: how long it runs, and how it ends."""
_MARK = "kwok.x-k8s.io/node"
_NODES = "/api/v1/nodes"


def component(layout: Layout, binaries: Binaries, authority: Authority) -> Component:
    """Pretends, for all nodes that have the mark."""
    own = layout.machine("control-plane")
    user, stages = own / "kwok.kubeconfig", own / "kwok-stages.yaml"
    return Component(
        NAME,
        [
            *(binaries["kwok"], f"--kubeconfig={user}", f"--manage-nodes-with-annotation-selector={_MARK}=fake"),
            *("--manage-all-nodes=false", "--node-lease-duration-seconds=20", "--server-address=127.0.0.1:10247"),
            f"--config={stages}",
        ],
        files={
            user: authority.kubeconfig("practicus:kwok", "system:masters"),
            stages: STAGES.read_text(),
        },
    )


def set_nodes(api: Api, count: int) -> None:
    """Make it so many simulated nodes."""
    listed = api.object(_NODES) or {"items": []}
    present = {node["metadata"]["name"] for node in listed["items"] if is_simulated(node)}
    wanted = [f"simulated{number + 1}" for number in range(count)]
    for name in present.difference(wanted):
        api.delete(f"{_NODES}/{name}")
    for name in wanted:
        if name not in present:
            api.apply(f"{_NODES}/{name}", **_node(name))


def ready(api: Api, count: int) -> bool:
    """Whether all of them are."""
    nodes = (api.object(_NODES) or {"items": []})["items"]
    conditions = [node["status"].get("conditions", ()) for node in nodes if is_simulated(node)]
    return count == sum({"Ready": "True"}.items() <= {c["type"]: c["status"] for c in of}.items() for of in conditions)


def is_simulated(node: dict[str, Any]) -> bool:
    """Whether a node only pretends."""
    return _MARK in node["metadata"].get("annotations", {})


def _node(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {_MARK: "fake"},
            "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", **SELECTOR},
        },
        "spec": {"taints": [TAINT]},
    }
