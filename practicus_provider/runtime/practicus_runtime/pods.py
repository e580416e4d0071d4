"""Starts pods from inside the cluster, with the token of this pod's service account."""

from __future__ import annotations

import json
import os
import ssl
import urllib.parse
import urllib.request
from typing import Any, Optional

from .contract import Env, template_file

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
INDEX = "batch.kubernetes.io/job-completion-index"
CLUSTER = "practicus.ai/cluster"
ROLE = "practicus.ai/role"


def scale(role: str, replicas: int, timeout: float) -> None:
    """Have ``replicas`` live pods of an elastic role: missing ones are made from the template that came with the job.

    :raises OSError: the role is not elastic, or the API server cannot be reached or refuses.
    """
    try:
        with open(os.path.join(os.environ[Env.BUNDLE], template_file(role))) as file:
            template: dict[str, Any] = json.load(file)
    except FileNotFoundError:
        raise OSError(f"{role!r} is not an elastic role of this cluster") from None
    labels = template["metadata"]["labels"]
    selector = ",".join(f"{key}={labels[key]}" for key in (CLUSTER, ROLE))
    pods = _request("GET", f"pods?{urllib.parse.urlencode({'labelSelector': selector})}", None, timeout)["items"]
    live = [
        pod
        for pod in pods
        if pod["status"].get("phase") in ("Pending", "Running") and "deletionTimestamp" not in pod["metadata"]
    ]
    following = 1 + max((int(pod["metadata"]["labels"][INDEX]) for pod in pods), default=-1)
    for index in range(following, following + replicas - len(live)):
        _request("POST", "pods", instance(template, index), timeout)


def instance(template: dict[str, Any], index: int) -> dict[str, Any]:
    """The pod of that index."""
    meta = template["metadata"]
    name = f"{meta['name']}-{index}"
    return {
        **template,
        "metadata": {
            **meta,
            "name": name,
            "labels": {**meta["labels"], INDEX: str(index)},
            "annotations": {**meta.get("annotations", {}), INDEX: str(index)},
        },
        "spec": {**template["spec"], "hostname": name},
    }


def _request(method: str, path: str, body: Optional[dict[str, Any]], timeout: float) -> Any:  # noqa: UP045
    with open(f"{ACCOUNT}/token") as token, open(f"{ACCOUNT}/namespace") as namespace:
        bearer, space = token.read(), namespace.read()
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    host = f"[{host}]" if ":" in host else host
    request = urllib.request.Request(
        f"https://{host}:{port}/api/v1/namespaces/{space}/{path}",
        data=None if body is None else json.dumps(body).encode(),
        method=method,
        headers={"Authorization": f"Bearer {bearer}", "Content-Type": "application/json"},
    )
    context = ssl.create_default_context(cafile=f"{ACCOUNT}/ca.crt")
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # Python 3.13's default; many clusters' authorities do not meet it
    with urllib.request.urlopen(request, timeout=timeout, context=context) as answer:
        return json.load(answer)
