"""Keeps a node's rules what the API server's objects and the pod network make them."""

from __future__ import annotations

import dataclasses
import logging
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import NoReturn

from tests.cluster.layout import Address, Network
from tests.cluster.policy.compiler import TABLE, compile
from tests.cluster.policy.model import Namespace, Node, Object, Pod, Policy
from tests.cluster.policy.refusals import Refusals
from tests.cluster.policy.watch import Client, Watch

_log = logging.getLogger(__name__)
GATHERING = 0.2
"""Seconds in which further changes are awaited before the rules are made anew, unless a pod's start waits for them."""


class Controller:
    """Other threads may tell it of addresses while it runs."""

    def __init__(self, client: Client, node: Node) -> None:
        self._node = node
        self._refusals = Refusals(client)
        self._news = threading.Condition()
        self._stale = False
        self._starting = 0
        self._assigned: dict[str, frozenset[Address]] = {}
        self._enforced: frozenset[tuple[str, frozenset[Address]]] = frozenset()
        """Pods whose rules are in force, by all that the API server has: empty while it cannot be asked."""
        parse = partial(Policy.parse, versions=node.versions)
        self._policies = Watch(client, "/apis/networking.k8s.io/v1/networkpolicies", parse, self._changed)
        self._pods = Watch(client, "/api/v1/pods", partial(networked, node.cluster), self._changed)
        self._namespaces = Watch(client, "/api/v1/namespaces", Namespace.parse, self._changed)

    def run(self, synchronized: Callable[[], object]) -> NoReturn:
        """Enforce, for ever.

        :param synchronized: called once the rules are those of what the API server has.
        """
        if subprocess.run(["nft", "list", "table", *TABLE.split()], capture_output=True).returncode:
            _apply(compile((), (), (), self._node))  # nothing passes; but what an earlier run has left stays in force
        watches = self._policies, self._pods, self._namespaces
        for watch in watches:
            threading.Thread(target=watch.run, daemon=True).start()
        applied = ""
        while True:
            with self._news:
                self._news.wait_for(lambda: self._stale)
                self._news.wait_for(lambda: self._starting, GATHERING if applied else 0)
                self._stale = False
                assigned = dict(self._assigned)
            current = all(watch.current for watch in watches)  # asked first: what is read below is no older
            if not (applied or current):
                continue
            began = time.perf_counter()
            policies = self._policies.objects.values()
            pods = settled(self._pods.objects.values(), assigned)
            wanted = compile(policies, pods, self._namespaces.objects.values(), self._node)
            if wanted != applied:
                self._enforce(wanted)
                _log.info("new rules after %.0f ms", (time.perf_counter() - began) * 1000)
            if not applied:
                synchronized()
            applied = wanted
            with self._news:
                self._enforced = frozenset((pod.uid, pod.addresses) for pod in pods if current)
                self._news.notify_all()
            self._refusals.tell(policies)

    def assign(self, uid: str, addresses: frozenset[Address], patience: float) -> bool:
        """Tell that a pod has got addresses, before the API server can; returns whether its rules are in force."""
        with self._news:
            others = {other: its for other, its in self._assigned.items() if not its & addresses}
            self._assigned = others | {uid: addresses}
            self._stale = True
            self._starting += 1
            self._news.notify_all()
            try:
                return self._news.wait_for(lambda: (uid, addresses) in self._enforced, patience)
            finally:
                self._starting -= 1

    def _changed(self) -> None:
        with self._news:
            self._stale = True
            self._news.notify_all()

    def _enforce(self, wanted: str) -> None:
        try:
            _apply(wanted)
        except subprocess.CalledProcessError:
            # The kernel has kept the old rules, which are not what is wanted any more.
            _log.critical("nft refused:\n%s", wanted)
            _apply(compile((), (), (), self._node))
            raise


def networked(cluster: Iterable[Network], raw: Object) -> Pod | None:
    """A pod as the rules know it; None also for one with addresses of elsewhere: thousands of simulated ones, which
    send nothing, would have the rules made anew at each change of theirs."""
    pod = Pod.parse(raw)
    if pod and pod.addresses and not any(address in network for address in pod.addresses for network in cluster):
        return None
    return pod


def settled(pods: Iterable[Pod], assigned: Mapping[str, frozenset[Address]]) -> list[Pod]:
    """Pods with the addresses that the node's pod network gave them.

    It knows before the API server does, and better: the API server may still name who had an address before.
    """
    taken = frozenset[Address]().union(*assigned.values())
    return [dataclasses.replace(pod, addresses=assigned.get(pod.uid, pod.addresses - taken)) for pod in pods]


def _apply(ruleset: str) -> None:
    """All of it at once, or nothing."""
    subprocess.run(["nft", "--file", "-"], input=ruleset, text=True, check=True)
