"""What is sent to Kubernetes. ``PRACTICUS_GOLDEN=write`` rewrites the golden files; look at what git says then."""

from __future__ import annotations

import base64
import io
import itertools
import json
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from practicus_provider import runtime
from practicus_provider.adapters import make_plan
from practicus_provider.backends.kubernetes.api import PATHS, Manifest
from practicus_provider.backends.kubernetes.labels import ADMITTED, DIGEST, FACTS, QUEUE, ROLE
from practicus_provider.backends.kubernetes.pod_template import Site
from practicus_provider.backends.kubernetes.rbac import NEEDED
from practicus_provider.backends.kubernetes.render import BOOT, BUNDLE_LIMIT, SHORT, Manifests, render, short
from practicus_provider.errors import SpecError
from practicus_provider.names import TaskKey, job_name
from practicus_provider.plan import Here, Host, Launch, Plan, Port, Role
from practicus_provider.pod_settings import PodSettings
from practicus_provider.runtime.practicus_runtime.pods import instance
from practicus_provider.spec import Elastic, JobSpec, Resources, Volume, WorkerGroup
from tests.plans import TASK, plan, role, server, with_pods

GOLDEN = Path(__file__).parent / "golden" / "kubernetes"
SITE = Site("jobs", "registry/python:1")
NAME = TaskKey("sales", "manual__2013-01-05", "etl").cluster_name()
PROGRAM = (Here.PYTHON, (Here.APP, "/job.py"), "--date", "2013-01-05")
FILES = {"job.py": b"print('hello')\n", "lib/tools.py": b"", "data.bin": bytes(range(256))}
MOST_DIGITS = 9_999_999_999
"""An index of ten digits, as a Kubernetes Job may have."""


def rendered(plan: Plan, name: str = NAME, **how: Any) -> Manifests:
    return render(name, plan, how.pop("site", SITE), TASK, **{"lease": None, "parent": None, **how})


def planned(adapter: str, **spec: Any) -> Plan:
    return make_plan(JobSpec.of(adapter=adapter, **spec), PROGRAM, FILES, pods=True)


def shared_job() -> Manifests:
    """A job on a shared cluster."""
    whole = make_plan(JobSpec.of(adapter="dask", workers=2, env={"A": "a"}), PROGRAM, FILES)
    parent = rendered(whole.serving()).root
    parent["metadata"]["uid"] = "uid-of-the-shared-cluster"
    key = TaskKey("sales", "manual__2013-01-05", "first")
    return rendered(whole.deciding(), job_name(NAME, key), lease=600, parent=parent)


def every(manifests: Manifests) -> tuple[Manifest, ...]:
    """All objects as they are sent."""
    return (manifests.root, *manifests.owned("uid-of-the-root"))


def of_kind(manifests: Manifests, kind: str) -> list[Manifest]:
    return [manifest for manifest in every(manifests) if manifest["kind"] == kind]


def data_of(manifests: Manifests) -> dict[str, str]:
    (config,) = of_kind(manifests, "ConfigMap")
    found: dict[str, str] = config["data"]
    return found


def pods_of(manifests: Manifests) -> Iterator[tuple[Manifest, Manifest]]:
    """Metadata and spec of every pod that there is or may be."""
    for manifest in every(manifests):
        if manifest["kind"] == "Job":
            yield manifest["spec"]["template"]["metadata"], manifest["spec"]["template"]["spec"]
        if manifest["kind"] == "Pod":
            yield manifest["metadata"], manifest["spec"]
    for name, text in data_of(manifests).items():
        if name.startswith("pod-"):
            template = json.loads(text)
            yield template["metadata"], template["spec"]


def bundle_of(manifests: Manifests) -> bytes:
    (config,) = of_kind(manifests, "ConfigMap")
    return base64.b64decode(config["binaryData"]["bundle.tgz"])


NEAR = {
    "spec": {
        "affinity": {
            "podAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [
                    {
                        "labelSelector": {"matchLabels": {"practicus.ai/cluster": NAME}},
                        "topologyKey": "topology.kubernetes.io/rack",
                    }
                ]
            }
        }
    }
}
"""Replicas in one rack, for RDMA."""
PLACED = {"scheduler_name": "volcano", "priority_class": "batch-low"}
PLANS = {
    "dask": planned("dask", workers=3, coordinator_resources=Resources("500m", "1Gi"), conf={"a.b": 1}),
    "dask_elastic": planned(
        "dask", workers=Elastic(2, 5), image="registry/dask:2", secrets={"TOKEN": "store/token"}, **PLACED
    ),
    "torch": planned("torch", workers=4, worker_resources=Resources(16, "64Gi", 8, "32Gi", {"rdma/hca": 1})),
    "torch_1x8": planned("torch", worker_resources=Resources(16, "64Gi", 8)),
    "torch_mig": planned(
        "torch", workers=2, worker_resources=Resources(4, "16Gi", extra={"nvidia.com/mig-1g.10gb": 1})
    ),
    "torch_rdma": planned(
        "torch",
        workers=2,
        worker_resources=Resources(16, "64Gi", 8, extra={"rdma/hca_shared_devices": 1}),
        pod_overrides=NEAR,
    ),
    "torch_groups": planned(
        "torch",
        workers=(
            WorkerGroup(2, Resources(8, "32Gi", 4), node_selector={"nvidia.com/gpu.product": "NVIDIA-H100"}),
            WorkerGroup(4, Resources(2, "8Gi"), image="registry/cpu:1", procs_per_worker=2),
        ),
    ),
    "horovod": planned("horovod", workers=2, procs_per_worker=2, image="registry/training:1"),
    "horovod_elastic": planned("horovod", workers=Elastic(2, 4)),
    "deepspeed": planned("deepspeed", workers=2, conf={"train_batch_size": 16, "zero_optimization": {"stage": 3}}),
    "spark": planned("spark", workers=2, env={"A": "it's $(HOME)"}, secrets={"B": "b/b", "A_KEY": "a/key"}, **PLACED),
    "volumes": planned(
        "torch",
        workers=2,
        checkpoint_dir="/data/saved",
        volumes=(
            Volume(path="/data", claim="flights"),
            Volume(path="/models", claim="models", read_only=True),
            Volume(path="/tmp", empty_dir="50Gi"),
        ),
    ),
    "node_volumes": planned(
        "torch",
        volumes=(
            Volume(path="/models", nfs="10.0.0.5:/export/models", read_only=True),
            Volume(path="/mnt/disk", host_path="/mnt/disk"),
        ),
    ),
}
RENDERED = {**{name: rendered(plan) for name, plan in PLANS.items()}, "shared_job": shared_job()}
NOT_RESTRICTED = {"node_volumes"}
ALL = pytest.mark.parametrize("manifests", RENDERED.values(), ids=RENDERED)


# ---- the whole


def readable(manifests: Manifests) -> list[Manifest]:
    """All objects, without what changes with the runtime's code, and with what is JSON in them as such."""
    found: list[Manifest] = json.loads(json.dumps(every(manifests)))
    assert re.fullmatch(r"[0-9a-f]{16}", found[0]["metadata"]["annotations"].pop(DIGEST))
    found[0]["metadata"]["annotations"][FACTS] = json.loads(found[0]["metadata"]["annotations"][FACTS])
    (config,) = [manifest for manifest in found if manifest["kind"] == "ConfigMap"]
    assert config["data"].pop("boot.py") == BOOT.read_text()
    assert list(config.pop("binaryData")) == ["bundle.tgz"]
    config["data"] = {name: json.loads(text) for name, text in config["data"].items()}
    return found


@pytest.mark.parametrize("name", RENDERED)
def test_the_objects_of_a_cluster_are_those_of_the_golden_file(name):
    path, found = GOLDEN / f"{name}.yaml", readable(RENDERED[name])
    if os.environ.get("PRACTICUS_GOLDEN") == "write":
        path.write_text(yaml.safe_dump_all(found, sort_keys=False, width=116, allow_unicode=True))
    assert found == list(yaml.safe_load_all(path.read_text()))


def test_every_container_has_the_user_and_the_pull_policy_of_the_job():
    manifests = rendered(planned("spark", workers=2, run_as_uid=185, image_pull_policy="Always"))
    found = [(spec["securityContext"], spec["containers"][0]["imagePullPolicy"]) for _, spec in pods_of(manifests)]
    context = {"runAsNonRoot": True, "runAsUser": 185, "seccompProfile": {"type": "RuntimeDefault"}}
    assert found == [(context, "Always")] * 2


def test_what_a_job_does_not_say_its_connection_does():
    theirs = PodSettings(
        egress=("10.0.0.0/8",),
        secrets={"A": "s/a", "B": "s/b"},
        run_as_uid=185,
        priority_class="low",
        scheduler_name="x",
    )
    mine: dict[str, Any] = {"egress": ("fd00::/8",), "secrets": {"B": "mine/b"}, "priority_class": "high"}
    both = mine | {"egress": ("10.0.0.0/8", "fd00::/8"), "secrets": {"A": "s/a", "B": "mine/b"}}
    found = rendered(planned("dask", **mine), site=replace(SITE, defaults=theirs))
    expected = rendered(planned("dask", **both, run_as_uid=185, scheduler_name="x"))
    assert every(found) == every(expected)


def test_a_pod_whose_loss_would_end_the_job_is_left_where_it_is_and_an_elastic_one_is_not():
    found = {
        meta["labels"]["practicus.ai/role"]: {key: text for key, text in meta["annotations"].items() if key != ADMITTED}
        for meta, _ in pods_of(RENDERED["dask_elastic"])
    }
    alone = {"linkerd.io/inject": "disabled"}
    stays = {
        **alone,
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        "karpenter.sh/do-not-disrupt": "true",
    }
    assert found == {"coordinator": stays, "driver": stays, "worker": alone}


@pytest.mark.parametrize("where", ["job", "connection"])
@pytest.mark.parametrize("name", [name for name in PLANS if not PLANS[name].pod.pod_overrides])
def test_labels_and_annotations_of_the_users_reach_every_pod_also_those_that_are_made_inside(name, where):
    added = {"labels": {"team": "sales"}, "annotations": {"sidecar.istio.io/inject": "false"}}
    plan, site = PLANS[name], SITE
    if where == "job":
        plan = with_pods(plan, pod_overrides={"metadata": added})
    else:
        site = replace(SITE, pod_overrides={"metadata": added})
    manifests = rendered(plan, site=site)
    made = [json.loads(text) for file, text in data_of(manifests).items() if file.startswith("pod-")]
    metas = [meta for meta, _ in pods_of(manifests)] + [instance(template, 7)["metadata"] for template in made]
    plain = [meta for meta, _ in pods_of(rendered(PLANS[name]))]
    plain += [
        instance(json.loads(text), 7)["metadata"]
        for file, text in data_of(rendered(PLANS[name])).items()
        if file.startswith("pod-")
    ]
    assert metas == [
        {
            **meta,
            "labels": {**meta["labels"], **added["labels"]},
            "annotations": {**added["annotations"], **annotations_of(meta, "label:team=sales")},
        }
        for meta in plain
    ]


def annotations_of(meta: Manifest, word: str) -> dict[str, str]:
    """Those of a pod; of one that is made inside the cluster they say a word more."""
    annotations: dict[str, str] = meta.get("annotations", {})
    if ADMITTED not in annotations:
        return annotations
    words = [*annotations[ADMITTED].split(" "), word]
    return {**annotations, ADMITTED: " ".join(sorted(words, key=lambda word: not word.startswith("label:")))}


def test_no_golden_file_is_left_over():
    assert {path.stem for path in GOLDEN.iterdir()} == set(RENDERED)


@ALL
def test_every_object_but_the_root_goes_with_it(manifests):
    owner = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": manifests.root["metadata"]["name"],
        "uid": "uid-of-the-root",
        "blockOwnerDeletion": True,
    }
    assert [manifest["metadata"]["ownerReferences"] for manifest in manifests.owned("uid-of-the-root")] == [
        [owner] for _ in manifests.others
    ]
    templates = [json.loads(text) for name, text in data_of(manifests).items() if name.startswith("pod-")]
    assert [template["metadata"]["ownerReferences"] for template in templates] == [[owner] for _ in templates]


@ALL
def test_every_object_is_of_a_kind_that_can_be_sent_and_that_the_user_may_make(manifests):
    for manifest in every(manifests):
        group, plural = PATHS[manifest["kind"]]
        assert group.split("/", 1)[1] == manifest["apiVersion"]
        resource = plural if group == "api/v1" else f"{plural}.{group.split('/')[1]}"
        assert {"create", "patch"} <= set(NEEDED[resource])


@pytest.mark.parametrize("name", ["dask_elastic", "horovod_elastic", "spark"])
def test_what_a_role_of_a_cluster_grants_is_what_the_user_has_too(name):
    """Kubernetes refuses to let anybody grant more than they have."""
    for manifest in of_kind(RENDERED[name], "Role"):
        for rule in manifest["rules"]:
            for group, resource in itertools.product(rule["apiGroups"], rule["resources"]):
                assert set(rule["verbs"]) <= set(NEEDED[f"{resource}.{group}".rstrip(".")])


@pytest.mark.parametrize(
    ("name", "verbs"),
    [
        ("dask_elastic", ["list", "create"]),
        ("horovod_elastic", ["list", "create"]),
        ("spark", ["list", "create", "get", "watch", "delete", "deletecollection"]),
    ],
)
def test_a_replica_that_starts_pods_may_do_to_them_what_its_framework_does_and_change_none(name, verbs):
    (role,) = of_kind(RENDERED[name], "Role")
    assert role["rules"][0] == {"apiGroups": [""], "resources": ["pods"], "verbs": verbs}


@pytest.mark.parametrize("name", ["dask_elastic", "horovod_elastic", "spark"])
def test_the_words_by_which_a_cluster_s_pods_are_admitted_are_those_that_its_role_names(name):
    (role,) = of_kind(RENDERED[name], "Role")
    (words,) = role["rules"][-1]["resourceNames"]
    template = json.loads(data_of(RENDERED[name])["pod-worker.json"])
    made = [*of_kind(RENDERED[name], "Pod"), template]
    assert [pod["metadata"]["annotations"][ADMITTED] for pod in made] == [words] * len(made)
    assert [pod["metadata"]["ownerReferences"][0]["uid"] for pod in made] == ["uid-of-the-root"] * len(made)
    assert words.endswith(" owner:uid-of-the-root")


def test_a_key_that_replicas_share_is_a_secret_that_pods_refer_to_and_no_part_of_the_plan():
    found = RENDERED["horovod_elastic"]
    name = found.root["spec"]["template"]["spec"]["serviceAccountName"]
    assert found.keyed("uid-of-the-root", "k") == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "namespace": "jobs",
            "labels": of_kind(found, "ServiceAccount")[0]["metadata"]["labels"],
            "ownerReferences": of_kind(found, "ServiceAccount")[0]["metadata"]["ownerReferences"],
        },
        "immutable": True,
        "stringData": {"key": "k"},
    }
    reference = {"name": "PRACTICUS_KEY", "valueFrom": {"secretKeyRef": {"name": name, "key": "key"}}}
    assert [reference in spec["containers"][0]["env"] for _, spec in pods_of(found)] == [True] * 4
    assert "Secret" not in {manifest["kind"] for manifest in every(found)}


def test_who_shares_no_key_has_no_secret():
    assert {name for name, manifests in RENDERED.items() if manifests.keyed("uid", "k")} == {"horovod_elastic"}


# ---- the bundle


def test_a_program_in_the_bundle_stays_one():
    plan = make_plan(
        JobSpec.of(adapter="dask"), PROGRAM, {**FILES, "bin/tool": b""}, executable={"bin/tool"}, pods=True
    )
    with tarfile.open(fileobj=io.BytesIO(bundle_of(rendered(plan)))) as archive:
        assert [member.name for member in archive if member.mode != 0o644] == ["app/bin/tool"]
        assert archive.getmember("app/bin/tool").mode == 0o755


@ALL
def test_the_bundle_holds_the_application_and_the_runtime(manifests):
    with tarfile.open(fileobj=io.BytesIO(bundle_of(manifests))) as archive:
        content = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
        assert {(member.mode, member.isreg()) for member in archive} == {(0o644, True)}
    modules = (runtime.FOLDER / "practicus_runtime").glob("*.py")
    assert content == {f"app/{name}": data for name, data in FILES.items()} | {
        f"runtime/practicus_runtime/{path.name}": path.read_bytes() for path in modules
    }


def test_the_same_plan_makes_the_same_bytes_whatever_the_order_of_its_files():
    turned = planned("spark", workers=2, env={"A": "it's $(HOME)"}, secrets={"A_KEY": "a/key", "B": "b/b"}, **PLACED)
    turned = Plan(**{**vars(turned), "files": dict(reversed(FILES.items()))})
    assert rendered(turned) == rendered(PLANS["spark"]) == RENDERED["spark"]


@pytest.mark.parametrize(
    "other",
    [
        {"site": Site("jobs", "registry/python:2")},
        {"lease": 60},
        {"plan": planned("dask", workers=4)},
        {"plan": Plan(**{**vars(PLANS["dask"]), "files": {"job.py": b"print('bye')\n"}})},
    ],
    ids=lambda other: next(iter(other)),
)
def test_the_digest_tells_one_plan_from_another(other):
    changed = rendered(other.pop("plan", PLANS["dask"]), **other)
    assert changed.root["metadata"]["annotations"][DIGEST] != RENDERED["dask"].root["metadata"]["annotations"][DIGEST]


def test_what_is_too_large_for_a_configmap_is_refused_with_the_ways_out():
    message = (
        r"application='\d+ bytes': it and its files are over the 1030000 bytes, packed, that travel with a job on "
        r"Kubernetes; put the code in the image \(local:///path\), the data on a volume, or the file behind a URL"
    )
    with pytest.raises(SpecError, match=f"^{message}$"):
        rendered(plan(role("driver", ""), files={"model.bin": os.urandom(BUNDLE_LIMIT)}))


def test_700_kilobytes_that_cannot_be_packed_travel():
    found = rendered(plan(role("driver", ""), files={"model.bin": os.urandom(700_000)}))
    assert len(json.dumps(of_kind(found, "ConfigMap")[0])) < 1 << 20


def test_what_packs_well_may_be_larger():
    rendered(plan(role("driver", ""), files={"data.csv": b"1,2,3\n" * BUNDLE_LIMIT}))


# ---- images


@pytest.mark.parametrize("site", [Site("jobs"), Site("jobs", "")])
def test_without_an_image_the_ways_to_name_one_are_said(site):
    with pytest.raises(
        SpecError, match=r"^image=(None|''): give image=, or set the connection's extra 'image' or 'images'$"
    ):
        rendered(plan(role("driver", "")), site=site)


@pytest.mark.parametrize(("image", "used"), [(None, "registry/python:1"), ("mine:3", "mine:3")])
def test_the_jobs_image_comes_before_the_connections(image, used):
    found = rendered(planned("dask", workers=Elastic(1, 2), image=image))
    assert {spec["containers"][0]["image"] for _, spec in pods_of(found)} == {used}


# ---- names


LONG = TaskKey("d" * 250, "r" * 250, "t" * 250, 12345)
LONGEST_ROLE = "r" * 20
WIDE = plan(
    role("driver", "", ports={"p": 9000}),
    role(LONGEST_ROLE, "", replicas=2),
    role("e" * 20, "", elastic=Elastic(1, MOST_DIGITS), spawns="e" * 20),
)
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


@pytest.mark.parametrize(
    "name",
    [
        LONG.cluster_name(),
        job_name(LONG.cluster_name(), LONG),
        TaskKey("Ünï.cödé", "r", "___").cluster_name(),
        TaskKey("-", "r", "-").cluster_name(),
        NAME,
        "job",
    ],
)
@pytest.mark.parametrize("plan", [*PLANS.values(), WIDE], ids=[*PLANS, "wide"])
def test_every_name_is_a_dns_label_however_long_the_ids_are(name, plan):
    manifests = rendered(plan, name)
    names = [manifest["metadata"]["name"] for manifest in every(manifests)]
    hosts = [f"{job['metadata']['name']}-{MOST_DIGITS}" for job in of_kind(manifests, "Job")]
    for file, text in data_of(manifests).items():
        if file.startswith("pod-"):
            pod = instance(json.loads(text), MOST_DIGITS)
            hosts += [pod["metadata"]["name"], pod["spec"]["hostname"]]
    labels = [value for meta, _ in pods_of(manifests) for value in meta["labels"].values()]
    subdomains = [spec["subdomain"] for _, spec in pods_of(manifests)]
    for text in (*names, *hosts, *labels, *subdomains):
        assert LABEL.fullmatch(text), text
        assert len(text) <= 63, text
    kinds = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in every(manifests)]
    assert len(set(kinds)) == len(kinds)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("job", "job"),
        ("c-" + "x" * 12 + "-" + "0123456789abcdef", "c-" + "x" * 12 + "-0123456789abcdef"),
        ("c-" + "x" * 13 + "-" + "0123456789abcdef", "c-" + "x" * 12 + "-0123456789abcdef"),
        ("c-sales-by-day-of-the-week-0123456789abcdef", "c-sales-by-day-0123456789abcdef"),
        ("c-sales-by-da-y-of-week-0123456789abcdef", "c-sales-by-da-0123456789abcdef"),
    ],
)
def test_a_short_name_is_the_readable_start_and_the_digest(name, expected):
    assert short(name) == expected
    assert len(short(name)) <= SHORT


def test_names_of_any_form_have_short_names_of_their_own():
    names = ["x" * 40 + str(i) for i in range(10)]
    assert len({short(name) for name in names}) == 10
    assert {len(short(name)) for name in names} == {SHORT}


# ---- what a user writes


MARK = "OF-THE-USER $(PRACTICUS_HOST) ${HOME} `id`"


@pytest.mark.parametrize("adapter", ["dask", "spark"])
@pytest.mark.parametrize("workers", [2, Elastic(1, 2)])
def test_what_a_user_writes_stands_in_the_launches_and_nowhere_else(adapter, workers):
    conf = {"spark.x" if adapter == "spark" else "x.y": MARK}
    spec = JobSpec.of(adapter=adapter, workers=workers, env={"A": MARK}, conf=conf)
    sent = json.loads(json.dumps(every(rendered(make_plan(spec, (*PROGRAM, MARK), pods=True)))))
    (config,) = [manifest for manifest in sent if manifest["kind"] == "ConfigMap"]
    assert MARK in config["data"].pop("launches.json")
    assert "OF-THE-USER" not in json.dumps(sent)


@ALL
def test_a_container_starts_what_is_ours_and_has_no_environment_of_the_users(manifests):
    for meta, spec in pods_of(manifests):
        (container,) = spec["containers"]
        assert container["command"] == [
            *("python3", "-I", "-S", "/practicus/bundle/boot.py"),
            meta["labels"]["practicus.ai/role"],
        ]
        assert "args" not in container
        assert all("value" not in variable for variable in container["env"])


def test_a_secret_is_named_in_every_container_and_its_value_is_nowhere():
    for _, spec in pods_of(rendered(PLANS["spark"])):
        assert [variable for variable in spec["containers"][0]["env"] if "secretKeyRef" in variable["valueFrom"]] == [
            {"name": "A_KEY", "valueFrom": {"secretKeyRef": {"name": "a", "key": "key"}}},
            {"name": "B", "valueFrom": {"secretKeyRef": {"name": "b", "key": "b"}}},
        ]


# ---- isolation


@pytest.mark.parametrize("name", sorted(RENDERED.keys() - NOT_RESTRICTED))
def test_every_pod_satisfies_pod_security_restricted(name):
    """The controls of *Pod Security Standards*, profile restricted."""
    kinds = {"name", "configMap", "emptyDir", "persistentVolumeClaim"}
    for _, spec in pods_of(RENDERED[name]):
        assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC", "initContainers", "ephemeralContainers"}
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert {kind for volume in spec["volumes"] for kind in volume} <= kinds
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
            assert all("hostPort" not in port for port in container["ports"])


@pytest.mark.parametrize(
    ("volume", "group"),
    [
        (Volume(path="/data", claim="data"), {"fsGroup": 1000, "fsGroupChangePolicy": "OnRootMismatch"}),
        (Volume(path="/data", claim="data", read_only=True), {}),
        (Volume(path="/data", nfs="server:/data"), {}),
    ],
)
def test_a_claim_that_is_written_to_is_the_group_s_that_its_pods_have(volume, group):
    for _, spec in pods_of(rendered(planned("dask", volumes=(volume,), workers=Elastic(1, 2)))):
        context = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        assert spec["securityContext"] == context | group


def test_workers_that_join_later_have_the_volumes_too():
    manifests = rendered(planned("torch", volumes=(Volume(path="/data", claim="data"),), workers=Elastic(1, 2)))
    pods = [(meta["labels"]["practicus.ai/role"], spec) for meta, spec in pods_of(manifests)]
    assert [name for name, _ in pods] == ["coordinator", "worker", "worker"]  # the last is the template
    for name, spec in pods:
        assert {"name": "volume-0", "persistentVolumeClaim": {"claimName": "data"}} in spec["volumes"]
        assert {"name": "volume-0", "mountPath": "/data"} in spec["containers"][0]["volumeMounts"]
        env = json.loads(data_of(manifests)["launches.json"])[name]["env"]
        assert env["PRACTICUS_CHECKPOINT_DIR"] == [f"/data/checkpoints/{NAME}"]


@ALL
def test_every_container_has_requests_that_are_its_limits(manifests):
    for _, spec in pods_of(manifests):
        for container in spec["containers"]:
            assert container["resources"]["requests"] == container["resources"]["limits"]
            assert container["resources"]["limits"].keys() >= {"cpu", "memory"}


@pytest.mark.parametrize(
    ("name", "spawners"),
    [("dask", []), ("dask_elastic", ["coordinator"]), ("spark", ["driver"]), ("shared_job", [])],
)
def test_a_pod_has_a_token_and_reaches_the_api_server_only_if_its_role_starts_pods(name, spawners):
    manifests = RENDERED[name]
    with_token = {meta["labels"]["practicus.ai/role"] for meta, spec in pods_of(manifests) if has_token(spec)}
    assert with_token == set(spawners)
    (account,) = of_kind(manifests, "ServiceAccount")
    assert account["automountServiceAccountToken"] is False
    assert len(of_kind(manifests, "Role")) == len(of_kind(manifests, "RoleBinding")) == len(spawners)
    reaching = [
        policy["spec"]["podSelector"]["matchExpressions"]
        for policy in of_kind(manifests, "NetworkPolicy")
        if policy["metadata"]["name"].endswith("-api")
    ]
    assert reaching == [[{"key": "practicus.ai/role", "operator": "In", "values": [spawner]}] for spawner in spawners]


def has_token(spec: Manifest) -> bool:
    return bool(spec["automountServiceAccountToken"])


def test_replicas_reach_each_other_names_and_what_egress_names_and_nobody_else():
    (policy,) = of_kind(rendered(planned("dask", egress=("10.0.0.0/8", "fd00::/8"))), "NetworkPolicy")
    own = {"podSelector": {"matchLabels": {"practicus.ai/network": short(NAME)}}}
    assert policy["spec"] == {
        "podSelector": {"matchLabels": {"practicus.ai/cluster": NAME}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [own]}],
        "egress": [
            {"to": [own, {"ipBlock": {"cidr": "10.0.0.0/8"}}, {"ipBlock": {"cidr": "fd00::/8"}}]},
            {"ports": [{"protocol": name, "port": port} for port in (53, 5353) for name in ("UDP", "TCP")]},
        ],
    }


@ALL
def test_every_pod_is_under_a_policy_for_both_directions(manifests):
    policies = [policy["spec"] for policy in of_kind(manifests, "NetworkPolicy")]
    for meta, _ in pods_of(manifests):
        directions = {
            direction
            for policy in policies
            if policy["podSelector"]["matchLabels"].items() <= meta["labels"].items()
            and "matchExpressions" not in policy["podSelector"]
            for direction in policy["policyTypes"]
        }
        assert directions == {"Ingress", "Egress"}


@ALL
def test_no_pod_is_told_of_the_namespaces_services(manifests):
    assert {spec["enableServiceLinks"] for _, spec in pods_of(manifests)} == {False}


# ---- addresses


def launches(manifests: Manifests) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(data_of(manifests)["launches.json"])
    return found


def test_a_reference_to_another_role_is_its_first_replicas_name_in_dns_and_its_own_port():
    greet = Port("coordinator", "greet")
    own = Port("driver", "own")
    driver = role(
        "driver", "", (Host("coordinator"), ":", greet), Host("driver"), own, ports={"own": 7000}, after=(greet,)
    )
    found = launches(rendered(plan(server(), driver), "c-job"))["driver"]
    assert found["command"][3:] == [["c-job-coordinator-0.c-job", ":", "9000"], ["c-job-0.c-job"], ["7000"]]
    assert found["after"] == [["coordinator-0", "c-job-coordinator-0.c-job", 9000]]


def test_a_job_on_a_shared_cluster_reaches_its_roles_by_that_ones_names():
    shared = plan(server(), server("other"), decides=None)
    command = (Here.PYTHON, Host("coordinator"), Host("other"), Port("other", "greet"), Host("driver"))
    job = Plan("test", (Role("driver", Launch(command)),), "driver", 300, outside=shared.roles)
    parent = rendered(shared, LONG.cluster_name()).root
    parent["metadata"]["uid"] = "uid"
    found = launches(rendered(job, "c-job", parent=parent))["driver"]
    first, rest = LONG.cluster_name(), short(LONG.cluster_name())
    hosts = [f"{first}-0.{rest}", f"{rest}-other-0.{rest}", "9000", f"c-job-0.{rest}"]
    assert found["command"] == [[{"here": "python"}], *([host] for host in hosts)]


def test_what_only_the_pod_knows_stays_a_reference():
    command = (Here.PYTHON, Here.HOST, Here.INDEX, (Here.APP, "/x"), (Here.SCRATCH, "/y"))
    driver = Role("driver", Launch(command, env={"AT": ("<", Here.HOST, ">")}, files={"a/b": Here.INDEX}))
    found = launches(rendered(plan(driver)))["driver"]
    assert found["command"] == [
        *([{"here": "python"}], [{"here": "host"}], [{"here": "index"}]),
        *(["/practicus/scratch/.practicus/app", "/x"], ["/practicus/scratch", "/y"]),
    ]
    assert (found["env"]["AT"], found["files"]) == (["<", {"here": "host"}, ">"], {"a/b": [{"here": "index"}]})


# ---- time


@pytest.mark.parametrize(
    ("lease", "timeout", "deadline"),
    [
        (None, 300, 300),
        (None, 0.2, 1),
        (None, 1.2, 2),
        (60, 300, 60),
        (60.5, 300, 61),
        (5, 300, 10),
        (0, 300, 10),
        (600, 300, 300),
        (5, 3, 3),
    ],
)
def test_the_deadline_of_what_decides_is_the_lease_within_the_timeout(lease, timeout, deadline):
    parts = plan(role("driver", ""), replace(role("driver2", ""), part_of="driver"), timeout=timeout)
    root, part = of_kind(rendered(parts, lease=lease), "Job")
    facts = json.loads(root["metadata"]["annotations"][FACTS])
    assert (root["spec"]["activeDeadlineSeconds"], facts["lease"], facts["timeout"]) == (deadline, lease, timeout)
    assert part["spec"]["activeDeadlineSeconds"] == deadline


@ALL
def test_only_the_root_waits_suspended_and_only_what_decides_has_a_deadline(manifests):
    root, *others = of_kind(manifests, "Job")
    assert root["spec"]["suspend"] is True
    for job in others:
        part = job["metadata"]["labels"][ROLE] == "worker2"
        assert not job["spec"].keys() & {"suspend", "ttlSecondsAfterFinished"}
        assert job["spec"].get("activeDeadlineSeconds") == (root["spec"]["activeDeadlineSeconds"] if part else None)


def test_a_root_is_let_go_once_all_else_is_there():
    assert RENDERED["torch"].start == {
        "metadata": {"annotations": {"practicus.ai/complete": "true"}},
        "spec": {"suspend": False},
    }


def test_a_root_of_a_queue_is_handed_to_it_once_all_else_is_there_and_let_go_by_nobody_of_ours():
    manifests = rendered(planned("torch", workers=4, queue_name="team-a"))
    assert QUEUE not in json.dumps(every(manifests))
    assert manifests.start == {
        "metadata": {
            "annotations": {"practicus.ai/complete": "true"},
            "labels": {"kueue.x-k8s.io/queue-name": "team-a"},
        }
    }


@pytest.mark.parametrize(
    ("adapter", "more", "parts"),
    [
        ("spark", {}, "driver, worker"),
        ("dask", {"workers": 2}, "coordinator, worker, driver"),
        ("torch", {"workers": (WorkerGroup(1), WorkerGroup(2))}, "worker, worker2"),
        ("horovod", {"workers": Elastic(1, 2)}, "coordinator, worker"),
    ],
)
def test_what_kueue_would_admit_in_part_is_refused_with_its_parts(adapter, more, parts):
    with pytest.raises(SpecError, match=rf"^queue_name='q': Kueue admits one Job, .* here \({parts}\)"):
        planned(adapter, queue_name="q", **more)


def graces(**spec: Any) -> list[tuple[float, Any]]:
    """Of each role: the seconds that its command has, and its pods."""
    manifests = rendered(planned("torch", workers=Elastic(1, 2), **spec))
    commands = json.loads(data_of(manifests)["launches.json"])
    pods = {
        "coordinator": manifests.root["spec"]["template"],
        "worker": json.loads(data_of(manifests)["pod-worker.json"]),
    }
    return [(commands[name]["grace"], pod["spec"].get("terminationGracePeriodSeconds")) for name, pod in pods.items()]


@pytest.mark.parametrize(
    ("spec", "command", "pod"),
    [
        ({}, 8, 10),
        ({"grace": 60.0}, 60, 62),
        ({"grace": 0.5}, 1.5, 3),
        ({"pod_overrides": {"spec": {"terminationGracePeriodSeconds": 120}}}, 118, 120),
        ({"grace": 60, "pod_overrides": {"spec": {"terminationGracePeriodSeconds": 120}}}, 118, 120),
        ({"pod_overrides": {"spec": {"terminationGracePeriodSeconds": 2}}}, 1, 2),
        ({"pod_overrides": {"spec": {"terminationGracePeriodSeconds": 0}}}, 0, 0),
        ({"pod_overrides": {"spec": {"terminationGracePeriodSeconds": None}}}, 28, None),
    ],
)
def test_a_command_has_as_long_to_end_as_its_pod_but_for_what_comes_after_it(spec, command, pod):
    assert graces(**spec) == [(command, pod)] * 2


@pytest.mark.parametrize("seconds", ["60", 1.5, -1, True])
def test_a_grace_that_is_no_number_of_seconds_is_refused(seconds):
    with pytest.raises(SpecError, match=r"^pod_overrides\.spec\.terminationGracePeriodSeconds=.*give a whole number"):
        graces(pod_overrides={"spec": {"terminationGracePeriodSeconds": seconds}})
