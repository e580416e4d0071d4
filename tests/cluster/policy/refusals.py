"""Says aloud which policies cannot be enforced: in the log, and as an Event that ``kubectl describe`` shows."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Iterable

from tests.cluster.api import Api
from tests.cluster.errors import ClusterError
from tests.cluster.policy.model import Policy

_log = logging.getLogger(__name__)


class Refusals:
    """Tells of every refused policy once, and anew after a change of it."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._told: frozenset[Policy] = frozenset()

    def tell(self, policies: Iterable[Policy]) -> None:
        """Tell of those that are new; what the API server does not take now is told the next time."""
        refused = frozenset(policy for policy in policies if policy.refused)
        self._told &= refused
        for policy in refused - self._told:
            _log.error("%s/%s is refused, its pods are cut off: %s", policy.namespace, policy.name, policy.refused)
            try:
                self._record(policy)
            except ClusterError as error:
                _log.warning("%s", error)
            else:
                self._told |= {policy}

    def _record(self, policy: Policy) -> None:
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        name = f"refused-{policy.uid}"  # every node's controller records the same one
        self._api.apply(
            f"/api/v1/namespaces/{policy.namespace}/events/{name}",
            apiVersion="v1",
            kind="Event",
            metadata={"name": name, "namespace": policy.namespace},
            involvedObject={
                "apiVersion": "networking.k8s.io/v1",
                "kind": "NetworkPolicy",
                "namespace": policy.namespace,
                "name": policy.name,
                "uid": policy.uid,
            },
            type="Warning",
            reason="Refused",
            message=f"cannot be enforced, so the pods that it selects are cut off: {policy.refused}",
            source={"component": "practicus-test-policy"},
            firstTimestamp=now,
            lastTimestamp=now,
            count=1,
        )
