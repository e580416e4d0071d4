"""What OpenLineage's events tell of a task's job. Imported only where Airflow's provider for it asks for that."""

from __future__ import annotations

from typing import Any

import attrs
from airflow.providers.openlineage.extractors import OperatorLineage
from openlineage.client.generated.base import RunFacet

from practicus_provider.lifecycle import Outcome


@attrs.define
class PracticusRunFacet(RunFacet):
    """The run facet ``practicus``."""

    cluster: str
    adapter: str | None
    state: str
    reason: str
    message: str
    seconds: dict[str, float]
    cost: dict[str, object] | None


def lineage_of(outcome: Outcome, adapter: str | None) -> OperatorLineage[Any, Any]:
    """The job's facets. Its datasets are the task's inlets and outlets, which the provider adds itself."""
    verdict = outcome.verdict
    facet = PracticusRunFacet(
        cluster=outcome.cluster,
        adapter=adapter,
        state=str(verdict.state),
        reason=str(verdict.reason),
        message=verdict.message,
        seconds={phase: round(seconds, 3) for phase, seconds in outcome.seconds.items()},
        cost=dict(outcome.cost) if outcome.cost else None,
    )
    return OperatorLineage(run_facets={"practicus": facet})
