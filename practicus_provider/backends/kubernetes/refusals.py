"""What the API server refuses, and what to do about it. Pure."""

from __future__ import annotations

import json
import re

FORBIDDEN = re.compile(r'cannot (?P<verb>\w+) resource "(?P<resource>[^"]+)" in API group "(?P<group>[^"]*)"')
"""Whatever authorizer forbids it, the API server says so (``forbiddenMessage`` in ``k8s.io/apiserver``,
``pkg/endpoints/handlers/responsewriters``)."""
ROLE = "give this user the namespaced Role of the documentation"
VOLUME_TYPE = "restricted volume type"
"""What Pod Security says of a volume that a namespace does not admit."""
NO_POD = re.compile(
    r"violates PodSecurity|maximum (cpu|memory|\S+) |minimum (cpu|memory|\S+) |failed quota: .*must specify"
    r"|security context constraint|no PriorityClass|denied (the )?request|is not allowed|not found in",
    re.IGNORECASE,
)
"""What admission says of a pod that is wrong, or that nobody may have there; all else may be a matter of time."""
USED_UP = "exceeded quota"
AS_A_CLAIM = "Pod Security admits no host_path= and no nfs= there: have a PersistentVolume made of it, give its claim="


def explain(method: str, status: int, message: str, namespace: str) -> str:
    """A refusal as a sentence that says the way out.

    :param status: of HTTP.
    :param message: the server's own words.
    """
    match status:
        case 401:
            return f"Kubernetes does not know who we are (401: {message}); renew the connection's credentials"
        case 403 if USED_UP in message:
            return f"the namespace's quota is used up: {message}"
        case 403 if "is being terminated" in message:
            return f"namespace {namespace!r} is being deleted: wait until it is gone, and create it anew ({message})"
        case 403 if found := FORBIDDEN.search(message):
            return _forbidden(message, found["group"], found["resource"], found["verb"])
        case 403 if "/portforward answers" in message:  # to a WebSocket the server does not say what is forbidden
            return _forbidden(message, "", "pods/portforward", "get", "create")
        case 403 if "attempting to grant" in message:
            return f"Kubernetes forbids it (403: {message}); whose jobs start pods needs those rights too: {ROLE}"
        case 403 if VOLUME_TYPE in message:
            return f"Kubernetes does not admit it (403: {message}); {AS_A_CLAIM}"
        case 403 | 422:  # a policy, Pod Security or the object's own rules; its words say what they mind
            return f"Kubernetes does not admit it ({status}): {message}"
        case 404:
            return f"{message}; create namespace {namespace!r}, or set the connection's extra 'namespace'"
    return f"Kubernetes refused ({status} to {method}): {message}"


def _forbidden(message: str, group: str, resource: str, *verbs: str) -> str:
    rule = json.dumps({"apiGroups": [group], "resources": [resource], "verbs": verbs})
    return f"Kubernetes forbids it (403: {message}); {ROLE}, or at least one with the rule {rule}"
