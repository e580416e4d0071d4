"""What several modules of unit tests share."""

from tests.kubernetes_server import api, server  # noqa: F401
