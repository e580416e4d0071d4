"""A user's changes to pods, merged as ``kubectl patch --type strategic`` would. Pure.

The rules are those of *Update API Objects in Place Using kubectl patch* in the Kubernetes docs: maps merge, null
removes a key, a list of a kind in :data:`MERGE_KEYS` merges by that key, every other list is replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from practicus_provider.backends.kubernetes.api import Manifest
from practicus_provider.errors import SpecError
from practicus_provider.runtime.practicus_runtime.contract import PREFIX

MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "imagePullSecrets": "name",
    "schedulingGates": "name",
    "resourceClaims": "name",
    "env": "name",
    "ports": "containerPort",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
}
"""Field of a pod -> the key that its items merge by (``patchMergeKey`` in ``k8s.io/api/core/v1/types.go``)."""
DIRECTIVE = "$patch"
"""Key of a map whose value ``delete`` or ``replace`` says what to do with it instead of merging."""
FIELD = "pod_overrides"


def merged(template: Manifest, overrides: Mapping[str, Any], kept: Callable[[Manifest], Any]) -> Manifest:
    """A pod template with a user's changes.

    :param kept: what the cluster needs as it is, of a template.
    :raises SpecError: the changes are no pod template's, or touch what must stay.
    """
    if not overrides:
        return template
    result: Manifest = _merge(template, overrides, FIELD)
    try:
        same = kept(result) == kept(template)
    except (KeyError, StopIteration, TypeError):
        same = False
    if not same:
        raise SpecError(
            FIELD,
            dict(overrides),
            "they may not change what makes a replica: its name, labels practicus.ai/..., restartPolicy, subdomain, "
            f"the volume bundle, and in container main the command, workingDir, {PREFIX} variables and our two mounts",
        )
    return result


def _merge(base: Any, change: Any, path: str) -> Any:
    if not isinstance(change, Mapping):
        return change
    directive = change.get(DIRECTIVE)
    if directive not in (None, "replace"):
        raise SpecError(f"{path}.{DIRECTIVE}", directive, "give 'replace', or 'delete' in an item of a list")
    unknown = [key for key in change if key.startswith("$") and key != DIRECTIVE]
    if unknown:
        raise SpecError(path, unknown[0], f"of the directives only {DIRECTIVE} is supported")
    result = dict(base) if isinstance(base, Mapping) and directive is None else {}
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        elif key in MERGE_KEYS and isinstance(value, list):
            result[key] = _merge_items(result.get(key, []), value, MERGE_KEYS[key], f"{path}.{key}")
        elif key != DIRECTIVE:
            result[key] = _merge(result.get(key), value, f"{path}.{key}")
    return result


def _merge_items(base: list[Manifest], changes: list[Any], key: str, path: str) -> list[Manifest]:
    items = {item[key]: item for item in base}
    for number, change in enumerate(changes):
        if not isinstance(change, Mapping) or key not in change:
            raise SpecError(f"{path}[{number}]", change, f"each item needs its {key!r}, by which it is merged")
        name = change[key]
        if change.get(DIRECTIVE) == "delete":
            items.pop(name, None)
        else:
            items[name] = _merge(items.get(name), change, f"{path}[{number}]")
    return list(items.values())
