"""What several modules of unit tests share."""

import pytest

from tests.kubernetes_server import api, server  # noqa: F401


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is no Airflow server, which looks for connections in its database; there is none.

    Whoever imports the API server's application makes it one, for all tests that follow (``airflow.api_fastapi.main``).
    """
    monkeypatch.delenv("_AIRFLOW_PROCESS_CONTEXT", raising=False)
