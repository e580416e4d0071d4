"""Attacks on clusters. Each stands beside the same attempt where it is allowed, so none fails for another reason."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from ipaddress import ip_network
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

import pytest

from practicus_provider.adapters import make_plan
from practicus_provider.backends.kubernetes import KubernetesBackend
from practicus_provider.backends.kubernetes.access import Access
from practicus_provider.backends.kubernetes.api import Manifest
from practicus_provider.backends.kubernetes.labels import CLUSTER, MANAGED, NETWORK, ROLE
from practicus_provider.backends.kubernetes.pod_template import Site
from practicus_provider.backends.kubernetes.render import render
from practicus_provider.plan import Here, Plan
from practicus_provider.spec import Elastic, JobSpec, Resources
from tests.cluster.fixture import Kubectl
from tests.cluster.tests.probing import ADMIN, LISTEN, RESTRICTED, WEB, create
from tests.kubernetes import QUICK_JAVA, fresh
from tests.plans import SLEEP, TASK, plan, role, server

STARTED = 300
"""Seconds in which the frameworks must be there."""
USE = {"dask": "client.wait_for_workers(1)", "spark": "client.range(1).count()"}
STAY = "import time, practicus_runtime as pr; client = pr.get_client(); {use}; print('all here'); time.sleep(3600)"
SMALL = {"dask": Resources(cpu="400m", memory="1Gi"), "spark": Resources(cpu="800m", memory="1Gi")}
ELASTIC = Elastic(1, 2)
LEAST_PORTS = {
    ("dask", "coordinator"): 1,
    ("dask", "worker"): 1,
    ("dask", "driver"): 0,
    ("spark", "driver"): 2,
    ("spark", "worker"): 1,
    ("plain", "coordinator"): 1,
    ("plain", "driver"): 0,
}
"""Cluster and role -> how many ports such a replica listens on at least, beside those on its loopback."""
STARTS_PODS = {("dask", "coordinator"), ("spark", "driver")}
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"

PORTS = """
import json
ports = set()
for file in ("/proc/net/tcp", "/proc/net/tcp6"):
    for line in list(open(file))[1:]:
        local, _, state = line.split()[1:4]
        address, port = local.split(":")
        if state == "0A" and not address.endswith(("0100007F", "01000000")):
            ports.add(int(port, 16))
print(json.dumps(sorted(ports)))
"""
"""What this pod listens on, but for itself alone."""
CONNECT = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
def reached(target):
    try:
        socket.create_connection(target, 2).close()
        return True
    except OSError:
        return False
targets = json.loads(sys.argv[1])
with ThreadPoolExecutor(32) as pool:
    print(json.dumps([name for name, there in zip(targets, pool.map(reached, map(tuple, targets.values()))) if there]))
"""
RESOLVE = """
import json, socket, sys
print(json.dumps([socket.getaddrinfo(name, None)[0][4][0] for name in sys.argv[1:]]))
"""
CALL = f"""
import json, os, ssl, sys, urllib.error, urllib.request
token = open("{ACCOUNT}/token").read()
context = ssl.create_default_context(cafile="{ACCOUNT}/ca.crt")
context.verify_flags &= ~ssl.VERIFY_X509_STRICT
answers = []
for method, path, body in json.loads(sys.argv[1]):
    request = urllib.request.Request(
        "https://kubernetes.default.svc" + path, body and json.dumps(body).encode(), method=method,
        headers={{
            "Authorization": "Bearer " + token,
            "Content-Type": "application/merge-patch+json" if method == "PATCH" else "application/json",
        }},
    )
    try:
        answer = urllib.request.urlopen(request, context=context)
        answers.append([answer.status, json.load(answer)])
    except urllib.error.HTTPError as error:
        answers.append([error.code, json.load(error)])
print(json.dumps(answers))
"""

Target = tuple[str, int]
Request = tuple[str, str, Any]


@dataclass(frozen=True)
class Pod:
    """A pod that runs, ours or not."""

    namespace: str
    name: str
    address: str
    node: str
    cluster: str
    role: str

    @property
    def what(self) -> tuple[str, str]:
        return self.cluster, self.role


@dataclass(frozen=True)
class Scene:
    """Clusters in one namespace, and pods of others there and in another."""

    kubectl: Kubectl
    home: str
    listening: dict[Pod, dict[str, Target]]
    """Replicas of an elastic Dask cluster, an elastic Spark cluster, and one of plain Python that may reach the friend;
    and the ports of each."""
    intruder: Pod
    """In the clusters' namespace, with our labels but for the one that lets in."""
    stranger: Pod
    """In another namespace, with all labels of a Dask worker. It listens too."""
    friend: Pod
    """In another namespace, and listens."""
    api: Mapping[str, Target]
    """The API server, as a Service, and where it really is: an address outside of the cluster's pods."""

    def python(self, pod: Pod, code: str, *arguments: str) -> Any:
        """What ``code`` prints in a pod, as JSON."""
        return json.loads(self.kubectl("-n", pod.namespace, "exec", pod.name, "--", "python3", "-c", code, *arguments))

    def reached(self, attempts: Mapping[Pod, Mapping[str, Target]]) -> dict[Pod, set[str]]:
        """What each pod reaches of what it tries."""
        with ThreadPoolExecutor(4) as executor:
            found = executor.map(lambda pod: self.python(pod, CONNECT, json.dumps(attempts[pod])), attempts)
            return {pod: set(reached) for pod, reached in zip(attempts, found, strict=True)}

    def call(self, pod: Pod, *requests: Request) -> list[tuple[int, Any]]:
        """Status and answer of requests to the API server, with the pod's own token."""
        return [tuple(answer) for answer in self.python(pod, CALL, json.dumps(requests))]


@pytest.fixture(scope="module")
def scene(kubernetes: Path, kubectl: Kubectl, image: Callable[[str], str]) -> Iterator[Scene]:
    python, dask, spark = map(image, ("python", "dask", "spark"))
    with fresh(str(kubernetes), guarded=False) as home, fresh(str(kubernetes), guarded=False) as abroad:
        for name in (home.name, abroad.name):
            kubectl("-n", name, "wait", "--for=create", "serviceaccount/default", "--timeout=30s")
        replica = {NETWORK: "dask", CLUSTER: "dask", ROLE: "worker"}
        create(
            kubectl,
            bystander(home.name, "intruder", python, {**MANAGED, ROLE: "worker"}),
            bystander(abroad.name, "stranger", python, {**MANAGED, **replica}),
            bystander(abroad.name, "friend", python, {}),
        )
        kubectl("-n", home.name, "wait", "--for=condition=Ready", "pod/intruder", "--timeout=60s")
        kubectl("-n", abroad.name, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
        outsiders = {pod.name: pod for name in (home.name, abroad.name) for pod in pods(kubectl, name)}

        backend = KubernetesBackend(Access(str(kubernetes)), Site(home.name, python))
        for name, wanted in (
            ("dask", framework("dask", dask)),
            ("spark", framework("spark", spark)),
            ("plain", plain(egress=(f"{ip_network(outsiders['friend'].address)}",))),
        ):
            asyncio.run(backend.create(name, wanted, task=TASK))
        for job in ("dask", "spark", "plain", "plain-coordinator"):
            kubectl(
                *("-n", home.name, "wait", f"job/{job}", "--for=jsonpath={.status.ready}=1", f"--timeout={STARTED}s"),
                timeout=STARTED + 10,
            )
        for job in ("dask", "spark"):
            with kubectl.start("-n", home.name, "logs", "--follow", f"job/{job}") as log:
                assert log.stdout
                assert any("all here" in line for line in log.stdout), f"{job} has failed"
                log.kill()
        replicas = [pod for pod in pods(kubectl, home.name) if pod.cluster]
        listening = {pod: ports(kubectl, pod) for pod in replicas}
        yield Scene(kubectl, home.name, listening, **outsiders, api=api_server(kubectl))


def ports(kubectl: Kubectl, pod: Pod) -> dict[str, Target]:
    """All that a pod listens on."""
    printed = kubectl("-n", pod.namespace, "exec", pod.name, "--", "python3", "-c", PORTS)
    return {f"{pod.name}:{port}": (pod.address, port) for port in json.loads(printed)}


def pods(kubectl: Kubectl, namespace: str) -> list[Pod]:
    """Those that run."""
    return [
        Pod(
            namespace,
            pod["metadata"]["name"],
            pod["status"].get("podIP", ""),
            pod["status"].get("hostIP", ""),
            pod["metadata"].get("labels", {}).get(CLUSTER, ""),
            pod["metadata"].get("labels", {}).get(ROLE, ""),
        )
        for pod in json.loads(kubectl("-n", namespace, "get", "pods", "-o", "json"))["items"]
        if pod["status"]["phase"] == "Running"
    ]


def bystander(namespace: str, name: str, image: str, labels: Mapping[str, str]) -> Manifest:
    """A pod that is no replica, and listens."""
    container = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", LISTEN],
        "securityContext": RESTRICTED,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
    }


def framework(adapter: str, image: str, workers: int | Elastic = ELASTIC) -> Plan:
    """A cluster whose job stays."""
    spec = JobSpec.of(
        adapter=adapter,
        workers=workers,
        image=image,
        worker_resources=SMALL[adapter],
        coordinator_resources=SMALL[adapter],
        env={"JAVA_TOOL_OPTIONS": QUICK_JAVA},
        timeout=STARTED + 300,
    )
    job = STAY.format(use=USE[adapter])
    return make_plan(spec, (Here.PYTHON, (Here.APP, "/job.py")), {"job.py": job.encode()}, pods=True)


def plain(**more: Any) -> Plan:
    roles = (replace(each, resources=Resources("100m", "128Mi")) for each in (server(), role("driver", SLEEP)))
    return plan(*roles, **more)


def api_server(kubectl: Kubectl) -> dict[str, Target]:
    address = kubectl("get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}")
    selector = "--selector=kubernetes.io/service-name=kubernetes"
    (endpoints, *_) = json.loads(kubectl("get", "endpointslices", selector, "-o", "json"))["items"]
    real = endpoints["endpoints"][0]["addresses"][0], endpoints["ports"][0]["port"]
    return {"API service": (address, 443), "API server": real}


# ---- networks


def test_nobody_but_its_own_replicas_opens_any_port_of_a_cluster(scene: Scene) -> None:
    ports = scene.listening
    assert {pod.what for pod in ports if len(ports[pod]) >= LEAST_PORTS[pod.what]} == LEAST_PORTS.keys()
    everything = {name: target for own in ports.values() for name, target in own.items()}
    open_to_all = {"friend": (scene.friend.address, WEB)}
    attempts = dict.fromkeys(ports, everything) | dict.fromkeys(
        (scene.intruder, scene.stranger), everything | open_to_all
    )
    own = {pod: {name for mate in ports if mate.cluster == pod.cluster for name in ports[mate]} for pod in ports}
    assert scene.reached(attempts) == own | {scene.intruder: {"friend"}, scene.stranger: {"friend"}}


def test_a_replica_reaches_nothing_outside_but_what_it_may(scene: Scene) -> None:
    targets = {
        "friend": (scene.friend.address, WEB),
        "friend's other port": (scene.friend.address, ADMIN),
        "stranger": (scene.stranger.address, WEB),
        "intruder": (scene.intruder.address, WEB),
        **{f"kubelet of {node}": (node, 10250) for node in {pod.node for pod in scene.listening}},
        **scene.api,
    }
    named = {"friend", "friend's other port"}
    expected = {
        pod: set(scene.api) if pod.what in STARTS_PODS else named if pod.cluster == "plain" else set()
        for pod in scene.listening
    }
    expected[scene.intruder] = set(targets)
    assert scene.reached(dict.fromkeys(expected, targets)) == expected


def test_names_resolve_in_every_replica(scene: Scene) -> None:
    address = scene.api["API service"][0]
    for pod in scene.listening:
        assert scene.python(pod, RESOLVE, "kubernetes.default.svc", pod.address) == [address, pod.address]


# ---- the API server


def test_only_replicas_that_start_pods_have_a_token(scene: Scene) -> None:
    there = f"import os; print(str(os.path.exists({ACCOUNT!r})).lower())"
    found = {pod.what: scene.python(pod, there) for pod in scene.listening}
    assert found == {what: what in STARTS_PODS for what in LEAST_PORTS}
    assert scene.python(scene.intruder, there)  # Kubernetes gives one to whoever does not refuse it


@pytest.mark.parametrize("what", sorted(STARTS_PODS))
def test_a_token_is_for_pods_of_the_namespace(scene: Scene, what: tuple[str, str]) -> None:
    (pod,) = (pod for pod in scene.listening if pod.what == what)
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": scene.home},
    }
    ((_, answer),) = scene.call(pod, ("POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", review))
    everybodys = ["authentication.k8s.io"], ["authorization.k8s.io"]
    rules = [rule for rule in answer["status"]["resourceRules"] if rule["apiGroups"] not in everybodys]
    verbs = ["list", "create", *(["get", "watch", "delete", "deletecollection"] if what[0] == "spark" else [])]
    pods_rules = [rule for rule in rules if rule["apiGroups"] != ["practicus.ai"]]  # of which there is no resource
    assert pods_rules == [{"apiGroups": [""], "resources": ["pods"], "verbs": verbs}]

    home = f"/api/v1/namespaces/{scene.home}"
    own = f"{home}/pods/{pod.name}"
    allowed: list[Request] = [("GET", f"{home}/pods", None), *([("GET", own, None)] if "get" in verbs else [])]
    forbidden: list[Request] = [
        ("PATCH", own, {"metadata": {}}),
        *(
            ("GET", f"{home}/{kind}", None)
            for kind in ("secrets", "configmaps", "serviceaccounts", "services", "events")
        ),
        ("GET", f"{own}/log", None),
        ("POST", f"{own}/exec?command=id&stdout=true", None),
        ("POST", f"{own}/eviction", {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod.name}}),
        ("POST", f"{home}/serviceaccounts/default/token", {"spec": {}}),
        ("GET", f"/apis/batch/v1/namespaces/{scene.home}/jobs", None),
        ("DELETE", f"/apis/networking.k8s.io/v1/namespaces/{scene.home}/networkpolicies", None),
        ("GET", f"/apis/rbac.authorization.k8s.io/v1/namespaces/{scene.home}/roles", None),
        ("GET", f"/api/v1/namespaces/{scene.stranger.namespace}/pods", None),
        ("GET", "/api/v1/pods", None),
        ("GET", "/api/v1/nodes", None),
        ("GET", "/api/v1/namespaces", None),
    ]
    found = [
        (request[:2], status)
        for request, (status, _) in zip(allowed + forbidden, scene.call(pod, *allowed, *forbidden), strict=True)
    ]
    assert found == [(request[:2], 200) for request in allowed] + [(request[:2], 403) for request in forbidden]


# ---- Pod Security


@pytest.mark.parametrize("workers", [1, ELASTIC])
@pytest.mark.parametrize("adapter", ["dask", "spark"])
def test_every_pod_is_admitted_where_restricted_is_enforced(scene: Scene, adapter: str, workers: int | Elastic) -> None:
    label = "jsonpath={.metadata.labels.pod-security\\.kubernetes\\.io/enforce}"
    assert scene.kubectl("get", "namespace", scene.home, "-o", label) == "restricted"
    manifests = render(
        "admitted", framework(adapter, "image", workers), Site(scene.home), TASK, lease=None, parent=None
    )
    create(scene.kubectl, *(each for each in manifests.others if each["kind"] == "ServiceAccount"))
    for template in templates([manifests.root, *manifests.others]):
        pod = {"apiVersion": "v1", "kind": "Pod", **template}
        pod["metadata"] = {**pod["metadata"], "name": "admitted", "namespace": scene.home}
        dry_run(scene.kubectl, pod)
        pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
        with pytest.raises(CalledProcessError) as refused:
            dry_run(scene.kubectl, pod)
        assert 'violates PodSecurity "restricted' in refused.value.stderr


def templates(manifests: Iterable[Manifest]) -> Iterator[Manifest]:
    """Everything that becomes pods, sooner or later."""
    for manifest in manifests:
        match manifest["kind"]:
            case "Job":
                yield manifest["spec"]["template"]
            case "Pod":
                yield manifest
            case "ConfigMap":
                yield from (json.loads(text) for name, text in manifest["data"].items() if name.startswith("pod-"))


def dry_run(kubectl: Kubectl, pod: Manifest) -> None:
    kubectl("create", "--dry-run=server", "--filename=-", stdin=json.dumps(pod))
