"""By what our objects are known: labels, annotations, and the name of our container."""

from __future__ import annotations

from practicus_provider.backends.kubernetes.api import Manifest
from practicus_provider.runtime.practicus_runtime import pods

DOMAIN = "practicus.ai"
MANAGED = {"app.kubernetes.io/managed-by": "practicus"}
CLUSTER = pods.CLUSTER
"""Label: name of the cluster (or job) that the object belongs to."""
NETWORK = f"{DOMAIN}/network"
"""Label: short name of the cluster whose replicas may talk to this pod; a job on a shared cluster has that one's."""
ROLE = pods.ROLE
"""Label of a pod: its role's name."""
INDEX = pods.INDEX
"""Label and annotation that the Job controller gives a pod; elastic ones have it from us."""
FACTS = f"{DOMAIN}/facts"
"""Annotation of the root: what a watcher must know of the plan, as JSON."""
RELEASED = f"{DOMAIN}/released"
"""Annotation of the root: exists once the cluster may no longer be adopted."""
COMPLETE = f"{DOMAIN}/complete"
"""Annotation of the root: exists once all that it needs is there. Whoever suspends it after that is not its creator."""
QUEUE = "kueue.x-k8s.io/queue-name"
"""Label of the root: the LocalQueue that decides when it starts. Kueue leaves a Job without it alone."""
CURSOR = f"{DOMAIN}/cursor"
"""Annotation of the root: pod -> time stamp of the last line of its log that was taken, as JSON."""
TOLD = f"{DOMAIN}/told"
"""Annotation of the root: pod -> its last words, as JSON; of pods that were removed once whoever follows the cluster
had those, and all lines before."""
DIGEST = f"{DOMAIN}/digest"
"""Annotation of the root: of all manifests, to tell whether another's half-made cluster is the same."""
ADMITTED = f"{DOMAIN}/admitted"
"""Annotation of a pod that is started inside a cluster: in words, what it is and uses; see :mod:`.admission`."""
MAIN = "main"
"""Name of the one container."""


def cluster_of(item: Manifest) -> str:
    """Name of the cluster that an object belongs to; empty if that is none of ours."""
    return str(item["metadata"]["labels"].get(CLUSTER, ""))
