"""Which pods a replica's token may make and change: what the API server asks, as the namespace's administrator has had
it told. Pure.

A token that may create pods could have any: without a cluster's labels, so that no NetworkPolicy holds them; without
its owner, so that they stay; as another service account; with any secret or claim of the namespace. RBAC does not look
at pods, so a ``ValidatingAdmissionPolicy`` does. It needs to know what is right for the very cluster that asks:

- The template of the pods that are started inside a cluster has an annotation, :data:`ADMITTED`, which says in words
  what such a pod is and uses (:func:`words_of`). Spark and our runtime copy it into each pod that they make.
- The cluster's Role names that text, as a right that no built-in resource has (:func:`rules`): so only these words, of
  this cluster, are true. Who may write Roles wrote it, and the token may not.
- The policy asks RBAC for the words that a pod shows, and holds the pod to them (:data:`RULES`).

Sources: *Validating Admission Policy*, *Pod Security Standards* and *Common Expression Language in Kubernetes* in the
Kubernetes docs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from practicus_provider.backends.kubernetes.api import Manifest
from practicus_provider.backends.kubernetes.labels import ADMITTED, DOMAIN, INDEX
from practicus_provider.backends.kubernetes.pod_template import KUBERNETES_GRACE

RESOURCE = "replicas"
"""A resource that there is none of: RBAC takes any name, and so keeps for us who may what with it."""
STARTS = "start"
"""Verb: this account is of a cluster that starts pods itself, and the policy is for it."""
ADMITS = "admit"
"""Verb: pods that show these words are the cluster's. Whoever may admit all of them, such as the user who makes
clusters, is not held to the policy."""


# ---- what is right for one cluster


def words_of(template: Manifest, labels: Sequence[str]) -> str:
    """What a pod of that template is and uses, but for its owner: see :func:`owned_words`.

    :param labels: keys of labels that a pod may have beside the template's.
    """
    meta, spec = template["metadata"], template["spec"]
    grace = spec.get("terminationGracePeriodSeconds", KUBERNETES_GRACE)
    words = [
        *(f"label:{key}={value}" for key, value in sorted(meta["labels"].items())),
        *(f"key:{key}" for key in (INDEX, *labels)),
        f"grace:{grace}",
        *sorted({*_used(spec)}),
    ]
    return " ".join(words)


def owned_words(words: str, uid: str) -> str:
    """With the root as the owner, which has to be there before its uid is known."""
    return f"{words} owner:{uid}"


def rules(texts: Sequence[str]) -> list[Manifest]:
    """Of the Role of a cluster that starts pods with these words."""
    right = {"apiGroups": [DOMAIN], "resources": [RESOURCE]}
    return [{**right, "verbs": [STARTS]}, {**right, "resourceNames": list(texts), "verbs": [ADMITS]}]


def _used(spec: Manifest) -> Iterator[str]:
    """What of the namespace, and of the network or the node, a pod has its containers see."""
    for reference in spec.get("imagePullSecrets", ()):
        yield f"secret:{reference['name']}"
    for volume in spec.get("volumes", ()):
        yield from _sources(volume)
    for container in (*spec.get("initContainers", ()), *spec["containers"]):
        for variable in container.get("env", ()):
            source = variable.get("valueFrom", {})
            yield from (f"secret:{source[key]['name']}" for key in ("secretKeyRef",) if key in source)
            yield from (f"configmap:{source[key]['name']}" for key in ("configMapKeyRef",) if key in source)
        for source in container.get("envFrom", ()):
            yield from (f"secret:{source[key]['name']}" for key in ("secretRef",) if key in source)
            yield from (f"configmap:{source[key]['name']}" for key in ("configMapRef",) if key in source)


def _sources(volume: Manifest) -> Iterator[str]:
    """Of a volume; of a kind that the policy does not know there is no word, so it lets no pod have one."""
    match volume:
        case {"secret": {"secretName": name}}:
            yield f"secret:{name}"
        case {"configMap": {"name": name}}:
            yield f"configmap:{name}"
        case {"persistentVolumeClaim": {"claimName": name}}:
            yield f"claim:{name}"
        case {"nfs": {"server": server, "path": path}}:
            yield f"nfs:{server}:{path}"
        case {"projected": {"sources": sources}}:
            for source in sources:
                match source:
                    case {"secret": {"name": name}}:
                        yield f"secret:{name}"
                    case {"configMap": {"name": name}}:
                        yield f"configmap:{name}"
                    case {"serviceAccountToken": token}:
                        yield f"token:{token.get('audience', '')}"


# ---- what is right for all

ASKED = f"authorizer.group('{DOMAIN}').resource('{RESOURCE}').namespace(request.namespace)"
CONDITIONS = {
    "an-account-of-the-namespace": "request.userInfo.username.startsWith('system:serviceaccount:'"
    " + request.namespace + ':')",
    "of-a-cluster-that-starts-pods": f"{ASKED}.check('{STARTS}').allowed()",
    "and-not-who-makes-clusters": f"!{ASKED}.check('{ADMITS}').allowed()",
}
"""Whose requests are looked at; the first one spares all others the questions to RBAC."""
VARIABLES = {
    "below": "request.?subResource.orValue('') != ''",
    "made": "!variables.below && request.operation != 'DELETE'",
    "account": "request.userInfo.username.split(':')[3]",
    "text": f"object.metadata.?annotations[?'{ADMITTED}'].orValue('')",
    "words": "variables.text.split(' ')",
    "labels": "object.metadata.?labels.orValue({})",
    "context": "object.spec.?securityContext.orValue({})",
    "containers": """
        object.spec.containers + object.spec.?initContainers.orValue([])
        + object.spec.?ephemeralContainers.orValue([])""",
}
OTHERS = {
    "it may not use what is below pods": "!variables.below",
    "it may not change or delete a pod that it cannot have made": f"""
        request.operation == 'CREATE' || variables.below
        || {ASKED}.name(oldObject.metadata.?annotations[?'{ADMITTED}'].orValue('')).check('{ADMITS}').allowed()""",
}
"""What is said of a request that is refused -> the CEL expression that must be true of it."""
PROBES = "[c.?livenessProbe, c.?readinessProbe, c.?startupProbe, c.?lifecycle.?postStart, c.?lifecycle.?preStop]"
RULES = {
    "what it says of itself is nothing that the cluster's Role names": f"""
        {ASKED}.name(variables.text).check('{ADMITS}').allowed()""",
    "it has not the cluster's labels, or one more": """
        variables.words.filter(w, w.startsWith('label:')).all(w,
          w.substring(6).split('=')[0] in variables.labels
          && variables.labels[w.substring(6).split('=')[0]] == w.substring(w.indexOf('=') + 1))
        && variables.labels.all(k,
          ('label:' + k + '=' + variables.labels[k]) in variables.words || ('key:' + k) in variables.words)""",
    "its one owner is not the cluster's root": """
        object.metadata.?ownerReferences.orValue([]).map(o, 'owner:' + o.uid)
        == variables.words.filter(w, w.startsWith('owner:'))""",
    "it is not named after the cluster": "object.metadata.name.startsWith(variables.account + '-')",
    "it has finalizers": "object.metadata.?finalizers.orValue([]).size() == 0",
    "it has another service account than whoever makes it, or a token": """
        object.spec.serviceAccountName == variables.account
        && !object.spec.?automountServiceAccountToken.orValue(true)""",
    "it has more time to end than the cluster's pods": f"""
        object.spec.?terminationGracePeriodSeconds.orValue({KUBERNETES_GRACE})
        <= int(variables.words.filter(w, w.startsWith('grace:'))[0].substring(6))""",
    "it chooses its node past the scheduler": "request.operation == 'UPDATE' || !has(object.spec.nodeName)",
    "it has a volume that the cluster's pods have not": """
        object.spec.?volumes.orValue([]).all(v,
          has(v.emptyDir) || has(v.downwardAPI)
          || has(v.secret) && ('secret:' + v.secret.secretName) in variables.words
          || has(v.configMap) && ('configmap:' + v.configMap.name) in variables.words
          || has(v.persistentVolumeClaim) && ('claim:' + v.persistentVolumeClaim.claimName) in variables.words
          || has(v.nfs) && ('nfs:' + v.nfs.server + ':' + v.nfs.path) in variables.words
          || has(v.projected) && v.projected.?sources.orValue([]).all(s,
            has(s.downwardAPI)
            || has(s.secret) && ('secret:' + s.secret.name) in variables.words
            || has(s.configMap) && ('configmap:' + s.configMap.name) in variables.words
            || has(s.serviceAccountToken)
              && ('token:' + s.serviceAccountToken.?audience.orValue('')) in variables.words))""",
    "it reads a secret or a ConfigMap that the cluster's pods do not": """
        object.spec.?imagePullSecrets.orValue([]).all(s, ('secret:' + s.name) in variables.words)
        && variables.containers.all(c,
          c.?env.orValue([]).all(e,
            (!e.?valueFrom.?secretKeyRef.hasValue() || ('secret:' + e.valueFrom.secretKeyRef.name) in variables.words)
            && (!e.?valueFrom.?configMapKeyRef.hasValue()
              || ('configmap:' + e.valueFrom.configMapKeyRef.name) in variables.words))
          && c.?envFrom.orValue([]).all(e,
            (!has(e.secretRef) || ('secret:' + e.secretRef.name) in variables.words)
            && (!has(e.configMapRef) || ('configmap:' + e.configMapRef.name) in variables.words)))""",
    "it is not as Pod Security restricted wants a pod": """
        !object.spec.?hostNetwork.orValue(false) && !object.spec.?hostPID.orValue(false)
        && !object.spec.?hostIPC.orValue(false)
        && variables.context.?runAsUser.orValue(1) != 0
        && variables.context.?sysctls.orValue([]).size() == 0
        && !variables.context.?windowsOptions.?hostProcess.orValue(false)
        && [variables.context.?seLinuxOptions.?user, variables.context.?seLinuxOptions.?role,
          variables.context.?seLinuxOptions.?type].all(o, !o.hasValue())
        && variables.context.?appArmorProfile.?type.orValue('') != 'Unconfined'
        && object.metadata.?annotations.orValue({}).all(a, !a.startsWith('container.apparmor.security'))""",
    "one of its containers is not as Pod Security restricted wants them": f"""
        variables.containers.all(c,
          c.?securityContext.?allowPrivilegeEscalation.orValue(true) == false
          && !c.?securityContext.?privileged.orValue(false)
          && 'ALL' in c.?securityContext.?capabilities.?drop.orValue([])
          && c.?securityContext.?capabilities.?add.orValue([]).size() == 0
          && c.?securityContext.?runAsNonRoot.orValue(variables.context.?runAsNonRoot.orValue(false))
          && c.?securityContext.?runAsUser.orValue(1) != 0
          && c.?securityContext.?seccompProfile.?type.orValue(
            variables.context.?seccompProfile.?type.orValue('')) in ['RuntimeDefault', 'Localhost']
          && c.?securityContext.?procMount.orValue('Default') == 'Default'
          && !c.?securityContext.?windowsOptions.?hostProcess.orValue(false)
          && [c.?securityContext.?seLinuxOptions.?user, c.?securityContext.?seLinuxOptions.?role,
            c.?securityContext.?seLinuxOptions.?type].all(o, !o.hasValue())
          && c.?securityContext.?appArmorProfile.?type.orValue('') != 'Unconfined'
          && c.?ports.orValue([]).all(p, p.?hostPort.orValue(0) == 0)
          && {PROBES}.all(p, !p.?httpGet.?host.hasValue() && !p.?tcpSocket.?host.hasValue()))""",
}
"""The same of a pod that is made, or as it is changed."""


def name_of(namespace: str) -> str:
    """Of the policy and its binding. They are the whole Kubernetes cluster's, so the namespace is a part of it."""
    return f"practicus-{namespace}"


def policy(namespace: str) -> tuple[Manifest, Manifest]:
    """The policy, and its binding to that namespace."""
    group, meta = {"apiVersion": "admissionregistration.k8s.io/v1"}, {"name": name_of(namespace)}
    spec = {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [_on("pods", "CREATE", "UPDATE", "DELETE"), _on("pods/*", "*")]},
        "matchConditions": [{"name": name, "expression": rule} for name, rule in CONDITIONS.items()],
        "variables": [{"name": name, "expression": _plain(rule)} for name, rule in VARIABLES.items()],
        "validations": [
            *(_validation(f"a replica that starts pods: {message}", rule) for message, rule in OTHERS.items()),
            *(
                _validation(f"a pod that a replica starts: {message}", f"!variables.made || ({_plain(rule)})")
                for message, rule in RULES.items()
            ),
        ],
    }
    binding = {
        "policyName": name_of(namespace),
        "validationActions": ["Deny"],
        "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}},
    }
    return (
        {**group, "kind": "ValidatingAdmissionPolicy", "metadata": meta, "spec": spec},
        {**group, "kind": "ValidatingAdmissionPolicyBinding", "metadata": meta, "spec": binding},
    )


def right_to_look(namespace: str, user_namespace: str, account: str) -> tuple[Manifest, Manifest]:
    """A ClusterRole and its binding: to see that policy, which no Role of a namespace can let anybody."""
    group, meta = "rbac.authorization.k8s.io", {"name": name_of(namespace)}
    role = {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRole",
        "metadata": meta,
        "rules": [
            {
                "apiGroups": ["admissionregistration.k8s.io"],
                "resources": ["validatingadmissionpolicies", "validatingadmissionpolicybindings"],
                "resourceNames": [name_of(namespace)],
                "verbs": ["get"],
            }
        ],
    }
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": meta,
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name_of(namespace)},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": user_namespace}],
    }
    return role, binding


def default_deny(namespace: str) -> Manifest:
    """A NetworkPolicy by which pods of the namespace reach nobody, and nobody them, unless another one says so: as each
    cluster's own says of its replicas."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "practicus-default-deny", "namespace": namespace},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
    }


def _on(resource: str, *operations: str) -> Manifest:
    return {"apiGroups": [""], "apiVersions": ["v1"], "operations": list(operations), "resources": [resource]}


def _validation(message: str, rule: str) -> Manifest:
    return {"message": message, "expression": _plain(rule)}


def _plain(rule: str) -> str:
    """As one line."""
    return " ".join(rule.split())
