"""What an administrator could still do for a namespace in which jobs may be hostile. Jobs run without it."""

from __future__ import annotations

from practicus_provider.backends.kubernetes.admission import name_of
from practicus_provider.backends.kubernetes.api import Api, ApiError
from practicus_provider.errors import NotFound

ENFORCED = "pod-security.kubernetes.io/enforce"
"""Label of a namespace: the *Pod Security Standard* that pods there must meet."""


async def advice(api: Api) -> list[str]:
    """Sentences; empty where all is done."""
    return [*await _of_the_label(api), *await _of_the_policy(api)]


async def _of_the_label(api: Api) -> list[str]:
    try:
        labels = (await api.home())["metadata"].get("labels", {})
    except (ApiError, NotFound):
        return []  # that it is not looked at is said with the rights
    if (level := labels.get(ENFORCED)) == "restricted":
        return []
    found = f"enforces {level!r}" if level else "enforces none"
    return [f"advice: have the namespace enforce Pod Security 'restricted' by the label {ENFORCED}: it {found}"]


async def _of_the_policy(api: Api) -> list[str]:
    print_it = "'airflow practicus rbac --admission' prints it, and the right to look"
    try:
        if await api.admission_policy(name_of(api.namespace)):
            return []
    except ApiError as error:
        if error.status != 403:
            raise
        return [f"this user may not look whether the admission policy is there that holds Spark's drivers: {print_it}"]
    return [f"advice: have an admission policy hold jobs whose replicas start pods: {print_it}"]
