"""Enforces NetworkPolicies on the node that it runs on."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import threading
from pathlib import Path

from tests.cluster.layout import NodeAddress, families
from tests.cluster.policy.cni import SOCKET
from tests.cluster.policy.controller import Controller
from tests.cluster.policy.model import Node
from tests.cluster.policy.pod_network import listening
from tests.cluster.policy.watch import Client


def main() -> None:
    """Run until killed. What is in force then stays so, and the next start takes it over."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.policy", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--node", required=True)
    parser.add_argument("--families", type=families, required=True)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    threading.excepthook = _crash

    address = NodeAddress(int(arguments.node.removeprefix("node")))
    pods = tuple(address.pods(family) for family in arguments.families)
    node = Node(arguments.node, pods, tuple(family.pods for family in arguments.families))
    controller = Controller(Client(arguments.kubeconfig), node)
    with contextlib.ExitStack() as stack:
        controller.run(synchronized=lambda: stack.enter_context(listening(Path(SOCKET), controller)))


def _crash(what: threading.ExceptHookArgs) -> None:
    """Without one of its threads it would enforce the past: rather no pod starts until `up` repairs it."""
    logging.critical("a thread failed", exc_info=what.exc_value)
    os._exit(1)


if __name__ == "__main__":
    main()
