"""The root as the owner of all other objects, which its deletion takes with it. Pure."""

from __future__ import annotations

import json

from practicus_provider.backends.kubernetes.admission import owned_words
from practicus_provider.backends.kubernetes.api import Manifest
from practicus_provider.backends.kubernetes.labels import ADMITTED


def owner_of(name: str, uid: str) -> Manifest:
    """A Job as an owner whose deletion, in the foreground, waits for what is owned."""
    return {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": uid, "blockOwnerDeletion": True}


def with_owner(manifest: Manifest, owner: Manifest) -> Manifest:
    """An object that names its owner."""
    return {**manifest, "metadata": {**manifest["metadata"], "ownerReferences": [owner]}}


def owned(manifest: Manifest, owner: Manifest) -> Manifest:
    """The same, and where it speaks of pods that are made inside the cluster, of their owner too."""
    found = with_owner(manifest, owner)
    match found["kind"]:
        case "Pod":
            return _admitted(found, owner)
        case "ConfigMap":
            data = {
                name: json.dumps(owned(json.loads(text), owner)) if name.startswith("pod-") else text
                for name, text in found["data"].items()
            }
            return {**found, "data": data}
        case "Role":
            return {**found, "rules": [_of_owner(rule, owner) for rule in found["rules"]]}
    return found


def _admitted(pod: Manifest, owner: Manifest) -> Manifest:
    meta = pod["metadata"]
    if ADMITTED not in meta.get("annotations", {}):
        return pod
    words = owned_words(meta["annotations"][ADMITTED], owner["uid"])
    return {**pod, "metadata": {**meta, "annotations": {**meta["annotations"], ADMITTED: words}}}


def _of_owner(rule: Manifest, owner: Manifest) -> Manifest:
    if "resourceNames" not in rule:
        return rule
    return {**rule, "resourceNames": [owned_words(words, owner["uid"]) for words in rule["resourceNames"]]}
