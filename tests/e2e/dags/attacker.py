"""A framework whose web page is not to be trusted."""

from __future__ import annotations

from practicus_provider.adapters import Adapter, Program
from practicus_provider.plan import Launch, Port, Role
from practicus_provider.spec import JobSpec

PAGE = Port("driver", "page")


class AttackerAdapter(Adapter):
    """Runs the application, which serves the page."""

    links = {"Page": PAGE, "Same page": PAGE}  # noqa: RUF012

    def roles(self, spec: JobSpec, program: Program) -> tuple[Role, ...]:
        """The driver."""
        return (Role("driver", Launch(program, env={"PAGE": PAGE}, ports={"page": 9000, "hidden": 9001})),)
