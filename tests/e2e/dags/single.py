"""The smallest adapter: one process, which is the job."""

from __future__ import annotations

from practicus_provider.adapters import Adapter, Program
from practicus_provider.plan import Launch, Role
from practicus_provider.spec import JobSpec


class SingleAdapter(Adapter):
    """Runs the application alone."""

    def roles(self, spec: JobSpec, program: Program) -> tuple[Role, ...]:
        """The driver."""
        return (Role("driver", Launch(program, env=dict(spec.env)), resources=spec.coordinator_resources),)
