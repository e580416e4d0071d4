"""What these tests run on."""

from __future__ import annotations

from tests.cluster.fixture import image, kubectl, kubernetes

__all__ = ["image", "kubectl", "kubernetes"]
