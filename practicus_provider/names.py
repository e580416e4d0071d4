"""Names of clusters: a pure function of the task instance."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass

LABEL_LIMIT = 52
"""Characters of a cluster's name. A Kubernetes Job's pods add up to 11 (``-`` and 10 digits of an index) to
its name, and a DNS label ends at 63 (RFC 1123)."""

_DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def is_dns_label(name: object) -> bool:
    """Whether it is a DNS label (RFC 1123), as a namespace of Kubernetes must be."""
    return isinstance(name, str) and _DNS_LABEL.fullmatch(name) is not None


@dataclass(frozen=True)
class TaskKey:
    """What names one task instance, whatever its try.

    :param map_index: -1 where the task is not mapped, as in Airflow.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1

    def cluster_name(self) -> str:
        """A DNS label that is this task instance's alone: readable start, 64-bit hash of the whole key."""
        digest = hashlib.sha256(json.dumps(list(asdict(self).values())).encode()).hexdigest()[:16]
        return _label(self.dag_id, self.task_id, digest)


def job_name(cluster: str, key: TaskKey) -> str:
    """The name of the job that one task instance runs on a shared cluster."""
    digest = hashlib.sha256(json.dumps([cluster, *asdict(key).values()]).encode()).hexdigest()[:16]
    return _label("job", key.task_id, digest)


def _label(*words: str) -> str:
    *readable, digest = words
    room = (LABEL_LIMIT - len("c-") - len(digest) - len(readable)) // len(readable)
    slugs = (re.sub(r"[^a-z0-9]+", "-", word.lower()).strip("-")[:room].strip("-") for word in readable)
    return "-".join(["c", *(slug for slug in slugs if slug), digest])
