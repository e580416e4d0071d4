"""What Spark does to the pods that it makes on Kubernetes.

Sources: ``org.apache.spark.scheduler.cluster.k8s``, and ``Constants`` in ``org.apache.spark.deploy.k8s``.
"""

from __future__ import annotations

from collections.abc import Mapping

VERBS = ("get", "watch", "delete", "deletecollection")
"""Beyond listing and creating them. It changes them only where :data:`CHANGES` say so."""
CHANGES = tuple(
    f"spark.kubernetes.executor.{name}"
    for name in ("decommissionLabel", "decommissionLabelValue", "deleteOnTermination", "podDeletionCost")
)
"""Properties by which it does: the driver has no such right, as a job that may change its own pod may free it of the
cluster's labels, and so of its NetworkPolicy."""
_LABELS = ("app-name", "app-selector", "exec-id", "exec-resourceprofile-id", "role", "version")


def labels(theirs: Mapping[str, str]) -> tuple[str, ...]:
    """Keys of the labels that it gives them.

    :param theirs: the user's properties.
    """
    start = "spark.kubernetes.executor.label."
    given = (key.removeprefix(start) for key in theirs if key.startswith(start))
    return (*(f"spark-{name}" for name in _LABELS), *given)
