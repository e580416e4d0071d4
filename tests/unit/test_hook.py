from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.execution_time import supervisor
from airflow.secrets.base_secrets import BaseSecretsBackend
from airflow.secrets.environment_variables import EnvironmentVariablesBackend

from practicus_provider.backends.kubernetes import KubernetesBackend
from practicus_provider.backends.kubernetes.access import Access
from practicus_provider.backends.kubernetes.pod_template import Site
from practicus_provider.backends.local import LocalBackend
from practicus_provider.errors import ConnectionConfigError, SpecError
from practicus_provider.hooks.practicus import PracticusHook
from practicus_provider.pod_settings import PodSettings
from practicus_provider.pricing import Pricing
from tests.airflow_names import AccessDenied

HOME = Path(os.environ["AIRFLOW_HOME"])
Connect = Callable[..., None]


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Adds the connection ``there``."""

    def add(conn_type: str = "practicus", **extra: Any) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_THERE", json.dumps({"conn_type": conn_type, "extra": extra}))

    return add


@pytest.fixture(params=["sync", "async"])
def backend_of(request: pytest.FixtureRequest) -> Callable[[str], Any]:
    """The backend of a connection, by either way."""

    async def get(conn_id: str) -> Any:
        hook = PracticusHook(conn_id)
        return await hook.aget_conn() if request.param == "async" else hook.get_conn()

    return get


def refused(message: str) -> pytest.RaisesExc[ConnectionConfigError]:
    return pytest.raises(ConnectionConfigError, match=f"^{re.escape(message)}$")


async def test_a_connection_without_more_is_the_local_backend_in_airflows_home(connect, backend_of):
    connect(backend="local")
    assert await backend_of("there") == LocalBackend(HOME / "practicus", sys.executable, 86_400)


async def test_root_pythons_and_bounds_are_the_connections(connect, backend_of):
    own = {"pythons": {"torch": "/opt/torch"}, "ttl": "60", "log_limit": "500Mi"}
    connect(backend="local", root="~/clusters", python="/opt/python", **own)
    assert await backend_of("there") == LocalBackend(
        Path.home() / "clusters", "/opt/python", 60, {"torch": "/opt/torch"}, log_limit=500 << 20
    )


async def test_empty_fields_of_the_form_mean_the_defaults(connect, backend_of):
    connect(backend="local", root="", python="", ttl=None)
    assert await backend_of("there") == LocalBackend(HOME / "practicus", sys.executable, 86_400)


async def test_a_ttl_of_zero_keeps_nothing(connect, backend_of):
    connect(backend="local", ttl=0)
    assert (await backend_of("there")).ttl == 0


async def test_an_absent_connection_is_an_error_that_prints_the_command_which_adds_it(backend_of):
    with refused(
        "there is no connection 'absent'. Add it: airflow connections add absent --conn-type practicus --conn-extra "
        '\'{"backend": "local"}\' (or "kubernetes", with "namespace" and "image")'
    ):
        await backend_of("absent")


class Broken(BaseSecretsBackend):
    """A place for secrets that is out of reach, or denies access."""

    error: Exception = ConnectionError("vault:8200 refused the connection")

    def get_connection(self, conn_id: str, team_name: str | None = None) -> None:
        raise self.error


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Broken:
    """One before the variables of the environment."""
    made = Broken()
    monkeypatch.setattr(supervisor, "ensure_secrets_backend_loaded", lambda: [made, EnvironmentVariablesBackend()])
    return made


async def test_a_place_for_secrets_that_fails_is_told_and_not_taken_for_the_connections_absence(broken, backend_of):
    with refused(
        "connection 'there' cannot be read: Broken fails with ConnectionError: vault:8200 refused the connection"
    ):
        await backend_of("there")


async def test_a_place_for_secrets_that_fails_does_not_matter_where_another_has_the_connection(
    broken, connect, backend_of
):
    connect(backend="local")
    assert await backend_of("there") == LocalBackend(HOME / "practicus", sys.executable, 86_400)


async def test_a_place_for_secrets_that_denies_access_is_told_with_its_words(broken, backend_of):
    broken.error = AccessDenied("not for you")
    with pytest.raises(ConnectionConfigError, match=rf"^connection 'there' .*{AccessDenied.__name__}: not for you$"):
        await backend_of("there")


async def test_a_connection_of_kubernetes_that_cannot_be_read_is_told_so(connect, backend_of, monkeypatch):
    connect(kubernetes_conn_id="k8s")
    monkeypatch.setenv("AIRFLOW_CONN_K8S", '{"conn_type": ')
    with pytest.raises(
        ConnectionConfigError, match=r"^connection 'k8s' cannot be read: EnvironmentVariablesBackend fa"
    ):
        await backend_of("there")


async def test_a_connection_of_another_type_is_refused(connect, backend_of):
    connect("http", backend="local")
    with refused("connection 'there' is of type 'http'; give one of type 'practicus'"):
        await backend_of("there")


@pytest.mark.parametrize("given", ["nomad", ["local"]])
async def test_a_backend_that_does_not_exist_is_refused(connect, backend_of, given):
    connect(backend=given)
    with refused(f"connection 'there' has the extra backend={given!r}; choose one of kubernetes, local"):
        await backend_of("there")


PODS = {"spec": {"nodeSelector": {"disk": "ssd"}}}
INLINE = '{"apiVersion": "v1", "kind": "Config"}'


@pytest.mark.parametrize(
    ("extra", "backend"),
    [
        ({}, KubernetesBackend(Access(), Site("default"))),
        ({"backend": "kubernetes"}, KubernetesBackend(Access(), Site("default"))),
        ({"namespace": "jobs", "image": "i:1"}, KubernetesBackend(Access(), Site("jobs", "i:1"))),
        (
            {"image": "i:1", "images": {"dask": "d"}},
            KubernetesBackend(Access(), Site("default", "i:1", {}, {"dask": "d"})),
        ),
        ({"pod_overrides": PODS}, KubernetesBackend(Access(), Site("default", None, PODS))),
        ({"pod_overrides": json.dumps(PODS)}, KubernetesBackend(Access(), Site("default", None, PODS))),
        ({"kubeconfig": "/k", "context": "c"}, KubernetesBackend(Access("/k", None, "c"), Site("default"))),
        ({"kubeconfig_secret": INLINE}, KubernetesBackend(Access(None, INLINE), Site("default"))),
        ({"kubeconfig_secret": json.loads(INLINE)}, KubernetesBackend(Access(None, INLINE), Site("default"))),
        ({"in_cluster": True}, KubernetesBackend(Access(in_cluster=True), Site("default"))),
    ],
)
async def test_kubernetes_is_reached_as_the_connection_says(connect, backend_of, extra, backend):
    connect(**extra)
    assert await backend_of("there") == backend


@pytest.mark.parametrize(
    ("other", "access"),
    [
        ({}, Access()),
        ({"kube_config_path": "/k", "cluster_context": "c"}, Access("/k", None, "c")),
        ({"kube_config": INLINE}, Access(None, INLINE)),
        ({"in_cluster": True}, Access(in_cluster=True)),
    ],
)
async def test_kubernetes_is_reached_as_airflows_own_kubernetes_connection_says(
    connect, backend_of, monkeypatch, other, access
):
    connect(kubernetes_conn_id="k8s")
    extra = {**other, "namespace": "jobs"}
    monkeypatch.setenv("AIRFLOW_CONN_K8S", json.dumps({"conn_type": "kubernetes", "extra": extra}))
    assert await backend_of("there") == KubernetesBackend(access, Site("jobs"))


@pytest.mark.parametrize("given", [INLINE, json.loads(INLINE)])
async def test_a_kubeconfigs_content_where_airflow_shows_it_is_taken_and_the_better_place_is_said(
    connect, backend_of, given
):
    connect(kubeconfig=given)
    with pytest.warns(
        DeprecationWarning, match="connection 'there' .* move it to kubeconfig_secret, which Airflow masks"
    ):
        assert await backend_of("there") == KubernetesBackend(Access(None, INLINE), Site("default"))


@pytest.mark.parametrize("given", ["{", "[]", {"template": {}}, {"spec": 3}, {"metadata": {"name": "x"}}])
async def test_pod_overrides_that_are_no_part_of_a_pod_template_are_refused(connect, backend_of, given):
    connect(pod_overrides=given)
    with pytest.raises(ConnectionConfigError) as error:
        await backend_of("there")
    said = f"connection 'there' has the extra pod_overrides={given!r}; give an object: part of a pod template"
    assert str(error.value).startswith(said)


PLACE: dict[str, Any] = {
    "run_as_uid": 185,
    "image_pull_policy": "Always",
    "egress": ["10.0.0.0/8"],
    "secrets": {"TOKEN": "store/token"},
    "scheduler_name": "volcano",
    "priority_class": "batch-low",
}


@pytest.mark.parametrize("as_text", [False, True])
async def test_a_connection_says_for_all_jobs_what_they_do_not_say(connect, backend_of, as_text):
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in PLACE.items()}
    connect(**texts if as_text else PLACE)
    backend = await backend_of("there")
    assert backend.site.defaults == PodSettings(**PLACE | {"egress": ("10.0.0.0/8",)})


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("run_as_uid", 0, "mend run_as_uid=0: give a user's number"),
        ("image_pull_policy", "always", "mend image_pull_policy='always': choose one of"),
        ("egress", "10.0.0.0/8", "give a list of CIDRs such as '10.0.0.0/8'"),
        ("egress", ["10.0.0.1"], "mend egress='10.0.0.1': give a list of CIDRs"),
        ("secrets", ["TOKEN"], "give an object: environment variable -> 'secret-name/key'"),
        ("secrets", {"TOKEN": "store"}, "mend secrets={'TOKEN': 'store'}: give {'VARIABLE': 'secret-name/key'}"),
        ("scheduler_name", "Not One", "mend scheduler_name='Not One': give a scheduler's name"),
    ],
)
async def test_what_a_connection_says_for_all_jobs_is_checked_as_a_jobs_own(connect, backend_of, name, given, said):
    connect(**{name: given})
    with pytest.raises(ConnectionConfigError) as error:
        await backend_of("there")
    assert str(error.value).startswith(f"connection 'there' has the extra {name}={given!r}; {said}")


@pytest.mark.parametrize("given", ["{", '["spark"]', {"spark": 4}])
@pytest.mark.parametrize(
    ("backend", "name", "what"), [("kubernetes", "images", "image"), ("local", "pythons", "Python")]
)
async def test_what_is_not_one_for_each_adapter_is_refused(connect, backend_of, backend, name, what, given):
    connect(backend=backend, **{name: given})
    with refused(f"connection 'there' has the extra {name}={given!r}; give an object: adapter -> {what}"):
        await backend_of("there")


def test_a_namespace_comes_before_the_connections(connect):
    connect(namespace="jobs")
    assert PracticusHook("there", "others").get_conn() == KubernetesBackend(Access(), Site("others"))


@pytest.mark.parametrize("name", ["../../..", "..", "a/b", "a%2fb", "a.b", "Jobs", "a b", "-a", "a" * 64, 7, ["a"]])
def test_what_no_namespace_is_named_is_refused_before_it_is_part_of_a_path(connect, name):
    way_out = "give lower-case letters, digits and hyphens, 63 at most, as Kubernetes names namespaces"
    connect(namespace=name)
    with refused(f"connection 'there' has the extra namespace={name!r}; {way_out}"):
        PracticusHook("there").get_conn()
    with pytest.raises(SpecError, match=f"^{re.escape(f'namespace={name!r}: {way_out}')}$"):
        PracticusHook("there", name).get_conn()


async def test_an_absent_kubernetes_connection_is_named(connect, backend_of):
    connect(kubernetes_conn_id="k8s")
    with refused("connection 'there' has the extra kubernetes_conn_id='k8s'; there is none"):
        await backend_of("there")


@pytest.mark.parametrize("ttl", ["a day", "-1", -1, "nan", [1], {"a": 1}])
async def test_a_ttl_that_is_not_a_number_of_seconds_is_refused(connect, backend_of, ttl):
    connect(backend="local", ttl=ttl)
    with refused(f"connection 'there' has the extra ttl={ttl!r}; give a number of seconds"):
        await backend_of("there")


@pytest.mark.parametrize("limit", ["much", 0, -1, "1023Ki", "nan", True, [1], {"a": 1}])
async def test_a_limit_of_logs_that_keeps_too_little_to_tell_a_failure_is_refused(connect, backend_of, limit):
    connect(backend="local", log_limit=limit)
    way_out = "give bytes, or a quantity such as '500Mi', of at least '1Mi'"
    with refused(f"connection 'there' has the extra log_limit={limit!r}; {way_out}"):
        await backend_of("there")


def test_the_test_button_says_where_replicas_run(connect, tmp_path):
    connect(backend="local", root=str(tmp_path / "root"))
    assert PracticusHook("there").test_connection() == (
        True,
        f"replicas run on this machine with {sys.executable}; their folders are in {tmp_path / 'root'}",
    )


def test_the_test_button_says_why_a_root_cannot_be_used(connect, tmp_path):
    (tmp_path / "file").touch()
    connect(backend="local", root=str(tmp_path / "file" / "root"))
    assert PracticusHook("there").test_connection() == (
        False,
        f"cannot write to {tmp_path / 'file' / 'root'}: Not a directory; set the connection's extra 'root' to a folder "
        "that this user may write to",
    )


def test_the_test_button_says_which_adapters_replicas_have_a_python_of_their_own(connect, tmp_path):
    connect(backend="local", root=str(tmp_path), pythons={"torch": "python3"})
    assert PracticusHook("there").test_connection() == (
        True,
        f"replicas run on this machine with {sys.executable}, those of torch with python3; "
        f"their folders are in {tmp_path}",
    )


@pytest.mark.parametrize(("name", "given"), [("python", "/nowhere/python"), ("pythons", {"torch": "/nowhere/python"})])
def test_the_test_button_says_that_a_python_is_not_there(connect, tmp_path, name, given):
    connect(backend="local", root=str(tmp_path), **{name: given})
    assert PracticusHook("there").test_connection() == (
        False,
        f"the replicas' Python '/nowhere/python' cannot be executed; mend the extra {name!r}",
    )


def test_the_test_button_says_that_the_connection_is_wrong(connect):
    connect("http")
    assert PracticusHook("there").test_connection() == (
        False,
        "connection 'there' is of type 'http'; give one of type 'practicus'",
    )


PRICES = {"currency": "USD", "cpu_hour": 0.04, "gpu_hour": 2.5}


@pytest.mark.parametrize("given", [PRICES, json.dumps(PRICES)])
@pytest.mark.parametrize("backend", ["local", "kubernetes"])
async def test_what_replicas_cost_is_as_the_connection_says(connect, backend_of, backend, given):
    connect(backend=backend, pricing=given)
    assert (await backend_of("there")).pricing == Pricing(currency="USD", cpu_hour=0.04, gpu_hour=2.5)


@pytest.mark.parametrize(
    ("given", "way_out"),
    [
        ("0.04", "give an object: prices, such as cpu_hour, and their currency"),
        ({"cpu_hour": 1}, "give currency, and of cpu_hour, memory_gib_hour, gpu_hour what has a price"),
        ({"currency": "USD", "cpu": 1}, "give currency, and of cpu_hour, memory_gib_hour, gpu_hour what has a price"),
        ({"currency": "USD", "cpu_hour": "1"}, "mend cpu_hour='1': give a price of at least 0, as a number"),
    ],
)
async def test_prices_that_are_wrong_are_refused(connect, backend_of, given, way_out):
    connect(backend="local", pricing=given)
    with refused(f"connection 'there' has the extra pricing={given!r}; {way_out}"):
        await backend_of("there")
