"""The little of the Kubernetes API that booting a cluster takes."""

from __future__ import annotations

import base64
import json
import ssl
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.cluster.errors import ClusterError

_FIELD_MANAGER = "practicus-test-cluster"


class Api:
    """An API server, as the user of a kubeconfig that was made by :mod:`tests.cluster.pki`."""

    def __init__(self, kubeconfig: Path) -> None:
        config = json.loads(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self._server = cluster["server"]
        self._ssl = ssl.create_default_context(cadata=_decoded(cluster["certificate-authority-data"]))
        with tempfile.NamedTemporaryFile("w") as pair:  # ssl reads them from a file only
            pair.write(_decoded(user["client-certificate-data"]) + _decoded(user["client-key-data"]))
            pair.flush()
            self._ssl.load_cert_chain(pair.name)

    def get(self, path: str) -> str | None:
        """What is there, or None where nothing is or nobody answers."""
        try:
            return self._send("GET", path)
        except urllib.error.HTTPError as error:
            error.close()
            return None
        except OSError:
            return None

    def object(self, path: str) -> dict[str, Any] | None:
        """Likewise, for what is an object."""
        text = self.get(path)
        found: dict[str, Any] | None = json.loads(text) if text else None
        return found

    def apply(self, path: str, **fields: Any) -> None:
        """Create an object, or make it so."""
        query = f"{path}?fieldManager={_FIELD_MANAGER}&force=true"
        try:
            self._send("PATCH", query, json.dumps(fields).encode(), "application/apply-patch+yaml")
        except urllib.error.HTTPError as error:
            raise ClusterError(f"the API server refused {path}: {error.read().decode(errors='replace')}") from error
        except OSError as error:
            raise ClusterError(f"the API server does not answer: {error}") from error

    def delete(self, path: str) -> None:
        """Delete what is there, if anything is."""
        try:
            self._send("DELETE", path)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != 404:
                raise ClusterError(f"the API server refused to delete {path}: {error}") from error

    def _send(self, method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> str:
        request = urllib.request.Request(
            self._server + path, data=body, method=method, headers={"Content-Type": kind, "User-Agent": _FIELD_MANAGER}
        )
        # No proxy of the environment's: the server is on this machine.
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=self._ssl)
        )
        with opener.open(request, timeout=5) as answer:
            text: bytes = answer.read()
        return text.decode()


def _decoded(text: str) -> str:
    return base64.b64decode(text).decode()
