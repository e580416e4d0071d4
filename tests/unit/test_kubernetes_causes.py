"""Why a replica cannot start, was taken away or ended, as the verdict tells it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from practicus_provider.adapters import Adapter, Program, make_plan
from practicus_provider.backends.kubernetes.api import Manifest
from practicus_provider.backends.kubernetes.labels import CLUSTER, ROLE
from practicus_provider.backends.kubernetes.observe import Pod, observe
from practicus_provider.plan import Launch, Role
from practicus_provider.runtime.practicus_runtime.contract import End, LastWords
from practicus_provider.spec import JobSpec, Resources, WorkerGroup
from practicus_provider.status import PREEMPTIONS, Reason, Status, Verdict
from tests.kubernetes_objects import (
    AGAIN,
    ALONE,
    EVICTION,
    FAILED,
    LEAVING,
    NAME,
    PENDING,
    RANKS,
    REFUSED,
    RUNNING,
    SERVED,
    completed,
    ended,
    ends,
    failed,
    job,
    over,
    pending,
    pod,
    running,
    runs,
    status,
    waiting,
)

# ---- it cannot start


def test_a_container_that_cannot_be_made_at_all_is_a_fault_of_its_image():
    words = 'exec: "python3": executable file not found in $PATH'
    found = observe(job(ALONE), [pod("driver", 0, ended(128, reason="StartError", message=f"{words}\n"))]).status
    assert found.verdict == Verdict(
        FAILED,
        Reason.CONFIG_ERROR,
        f"driver-0 cannot start in image python:3: {words}",
        "An image needs python3 (3.8 or newer) on its PATH, and what the job imports.",
        replica="driver-0",
    )


PULL = 'failed to pull and unpack image "i:1": failed to resolve reference "i:1": '
RUNTIME = "rpc error: code = Unavailable desc = connection error: desc = "
CREATE, CONFIG = "CreateContainerError", "CreateContainerConfigError"


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("ErrImagePull", "not found"),
        ("ErrImagePull", f"{PULL}i:1: not found"),
        ("ErrImagePull", "manifest for i:1 not found: manifest unknown: manifest unknown"),
        ("ErrImagePull", f"{PULL}unexpected status from HEAD request to https://r/v2/i/manifests/1: 403 Forbidden"),
        ("ErrImagePull", f"{PULL}failed to authorize: failed to fetch anonymous token: unexpected status: 401 Unauth"),
        ("ErrImagePull", f"{PULL}pull access denied, repository does not exist or may require authorization: server m"),
        ("ErrImagePull", f"{PULL}no basic auth credentials"),
        ("ErrImagePull", "no match for platform in manifest: not found"),
        ("ImagePullBackOff", 'Back-off pulling image "i:1": ErrImagePull: i:1: not found'),
        ("InvalidImageName", 'Failed to apply default image tag "A B"'),
        ("ErrImageNeverPull", "Container image is not present with pull policy of Never"),
    ],
)
def test_an_image_that_there_is_not_or_not_for_us_ends_the_job_at_once_with_the_kubelets_words(reason, words):
    ends_at_once(reason, words, Reason.IMAGE_PULL_FAILED)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (CONFIG, 'secret "store" not found'),
        (CONFIG, 'configmap "settings" not found'),
        (CONFIG, 'secrets "store" not found'),  # the kubelet passes on what the API server says, too
        (CONFIG, 'configmaps "settings" not found'),
        (CONFIG, "couldn't find key password in Secret jobs/store"),
        (CONFIG, "references non-existent secret key: password"),
        (CONFIG, "container has runAsNonRoot and image will run as root"),
        (CONFIG, "container has runAsNonRoot and image has non-numeric user (app), cannot verify user is non-root"),
        (CONFIG, "container's runAsUser breaks non-root policy"),
        (CREATE, "no command specified"),
        (CREATE, "failed to create containerd container: unable to find user app: no matching entries in passwd file"),
    ],
)
def test_a_container_that_is_wrong_ends_the_job_at_once_with_the_kubelets_words(reason, words):
    ends_at_once(reason, words, Reason.CONFIG_ERROR)


def ends_at_once(reason: str, words: str, expected: Reason) -> None:
    verdict = observe(job(ALONE), [pod("driver", 0, waiting(reason, words))]).status.verdict
    assert verdict is not None
    assert (verdict.state, verdict.reason, verdict.replica) == (FAILED, expected, "driver-0")
    assert words.rpartition("ErrImagePull: ")[2] in verdict.message
    assert verdict.advice


HEALS = [
    ("ErrImagePull", "pull QPS exceeded"),
    ("ErrImagePull", "dial tcp: i/o timeout"),
    (
        "ErrImagePull",
        f"{PULL}failed to do request: Head https://r: dial tcp: lookup r on 10.0.0.10:53: no such host",
    ),
    ("ErrImagePull", f"{PULL}dial tcp: lookup r: Temporary failure in name resolution"),
    ("ErrImagePull", f"{PULL}dial tcp 10.1.2.3:443: connect: no route to host"),
    ("ErrImagePull", f"{PULL}dial tcp 10.1.2.3:443: connect: network is unreachable"),
    ("ErrImagePull", "connection reset by peer"),
    ("ErrImagePull", "unexpected EOF"),
    ("ErrImagePull", "net/http: TLS handshake timeout"),
    ("ErrImagePull", "toomanyrequests: You have reached your pull rate limit"),
    ("ErrImagePull", "unexpected status code: 429 Too Many Requests"),
    ("ErrImagePull", "unexpected status code: 500 Internal Server Error"),
    ("ErrImagePull", "unexpected status code: 502 Bad Gateway"),
    ("ErrImagePull", "unexpected status code: 503 Service Unavailable"),
    ("ErrImagePull", f"{PULL}failed to authorize: failed to fetch oauth token: unexpected status: 504 Gateway Timeout"),
    ("ErrImagePull", "net/http: request canceled (Client.Timeout exceeded while awaiting headers)"),
    ("ErrImagePull", "context deadline exceeded"),
    ("ErrImagePull", "failed to copy: write /var/lib/containerd/x: no space left on device"),
    ("ErrImagePull", f'{RUNTIME}"transport: error: dial unix /run/containerd/containerd.sock: connect: no such file"'),
    ("ErrImagePull", "dial unix /run/containerd/containerd.sock: connect: permission denied"),
    ("RegistryUnavailable", "the registry is down"),
    (CONFIG, "failed to sync secret cache: timed out waiting for the condition"),
    (CONFIG, "failed to sync configmap cache: timed out waiting for the condition"),
    (CONFIG, "services have not yet been read at least once, cannot construct envvars"),
    (CONFIG, 'failed to get node info: node "n1" not found'),
    (CREATE, "context deadline exceeded"),
    (CREATE, 'failed to reserve container name "main_c-job": name "main_c-job" is reserved for "8f0c"'),
    (CREATE, f'{RUNTIME}"transport: error: dial unix /run/containerd/containerd.sock: connect: connection refused"'),
    (CREATE, "failed to mkdir /var/lib/containerd/x: no space left on device"),
]


@pytest.mark.parametrize(("reason", "words"), HEALS)
def test_what_may_heal_is_waited_for_and_said(reason, words):
    detail = f"{reason}: {words}"
    found = status(ALONE, pod("driver", 0, waiting(reason, words)))
    assert found == Status(PENDING, (pending("driver", detail=detail),))
    assert found.summary() == f"pending: driver 1 pending ({detail})"


@pytest.mark.parametrize(("reason", "words"), HEALS)
def test_what_has_not_healed_while_it_stood_ends_the_job_and_says_for_how_long(reason, words):
    found = pod("driver", 0, waiting(reason, words))
    name = found["metadata"]["name"]
    seen = observe(job(ALONE), [found])
    assert seen.troubles == {name: words}
    verdict = observe(job(ALONE), [found], standing={name}).status.verdict
    assert verdict is not None
    assert verdict.message.endswith(f"{words} (for 120 s now)")
    expected = Reason.CONFIG_ERROR if reason in (CONFIG, CREATE) else Reason.IMAGE_PULL_FAILED
    assert (verdict.reason, verdict.replica) == (expected, "driver-0")


def test_who_waits_for_room_or_runs_has_nothing_in_the_way():
    unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}
    found = [
        pod("driver", 0, status={"conditions": [unscheduled]}),
        pod("driver", 1, waiting()),
        pod("driver", 2, runs()),
    ]
    assert observe(job(RANKS), found).troubles == {}


def test_between_two_pulls_an_older_kubelet_tells_nothing_new():
    found = pod("driver", 0, waiting("ImagePullBackOff", 'Back-off pulling image "i:1"'))
    assert observe(job(ALONE), [found]).troubles == {found["metadata"]["name"]: ""}


# ---- it may not be made


def refusal(words: str, name: str = "x7k2p", about: str = NAME) -> Manifest:
    """An event of the Job controller's."""
    message = f'Error creating: pods "{about}-{name}" is forbidden: {words}'
    return {"involvedObject": {"kind": "Job", "name": about}, "reason": "FailedCreate", "message": message}


@pytest.mark.parametrize(
    "words",
    [
        'violates PodSecurity "restricted:latest": hostNetwork',
        "maximum memory usage per Container is 1Gi, but limit is 2Gi",
        "minimum cpu usage per Container is 1, but request is 100m",
        "failed quota: q: must specify limits.ephemeral-storage for: main",
        "unable to validate against any security context constraint: []",
        "no PriorityClass with name urgent was found",
        "ValidatingAdmissionPolicy 'teams' with binding 'teams' denied request: name your team",
        'admission webhook "teams.test" denied the request: name your team',
    ],
)
def test_a_pod_that_nobody_may_have_there_ends_the_job_at_once(words):
    event = refusal(words)
    verdict = observe(job(ALONE), [], [event]).status.verdict
    assert verdict == Verdict(
        FAILED,
        Reason.CONFIG_ERROR,
        f"cluster {NAME} may not have its pods: {event['message']}",
        "Ask who runs the namespace: what refused it is named above.",
    )


MAY_HEAL = [
    "status unknown for quota: q, resources: cpu",
    'error looking up service account jobs/c-job: serviceaccount "c-job" not found',
    "exceeded quota: q, requested: cpu=1, used: cpu=2, limited: cpu=2",
]


@pytest.mark.parametrize("words", MAY_HEAL)
def test_a_pod_that_may_be_had_later_is_waited_for_and_said_once_whatever_its_name_is(words):
    found = [observe(job(ALONE), [], [refusal(words, name)]) for name in ("x7k2p", "q9z4w")]
    detail = f"Error creating: its pods are forbidden: {words}"
    assert [seen.status for seen in found] == [Status(PENDING, (pending("driver", detail=detail),))] * 2


@pytest.mark.parametrize("words", MAY_HEAL[:2])
def test_a_pod_that_could_not_be_had_for_long_ends_the_job_but_not_for_a_quota_that_is_used_up(words):
    event = refusal(words)
    assert observe(job(ALONE), [], [event]).troubles == {NAME: event["message"]}
    verdict = observe(job(ALONE), [], [event], standing={NAME}).status.verdict
    assert verdict is not None
    assert verdict.message == f"cluster {NAME} may not have its pods: {event['message']} (for 120 s now)"
    used_up = refusal(MAY_HEAL[2])
    assert observe(job(ALONE), [], [used_up]).troubles == {}
    assert observe(job(ALONE), [], [used_up], standing={NAME}).status.verdict is None


def test_each_role_says_why_its_own_pods_are_not_there():
    root = job(SERVED)
    jobs = [root, *({"metadata": {"name": f"c-{name}", "labels": {CLUSTER: NAME, ROLE: name}}} for name in ("worker",))]
    words = [f"exceeded quota: q, requested: cpu={number}, used: cpu=2, limited: cpu=2" for number in (1, 2)]
    events = [refusal(words[0], about="c-worker"), refusal(words[1])]
    summaries = {observe(root, [], order, jobs=jobs).status.summary() for order in (events, events[::-1])}
    start = "Error creating: its pods are forbidden: "
    assert summaries == {
        f"pending: coordinator 1 pending; worker 2 pending; driver 1 pending ({start}{words[0]}) ({start}{words[1]})"
    }


def test_an_init_container_that_failed_is_named_and_its_log_read():
    failed_one = pod("driver", 0, waiting("PodInitializing"))
    failed_one["status"] |= {"phase": "Failed", "initContainerStatuses": [{"name": "fetch", "state": ended(3)}]}
    found = observe(job(ALONE), [failed_one])
    message = "driver-0 cannot start: its init container fetch exited with 3"
    advice = "Look at what pod_overrides= adds, here or in the connection."
    assert found.status.verdict == Verdict(FAILED, Reason.INIT_FAILED, message, advice, replica="driver-0")
    assert found.failed is not None
    assert found.failed.log_container == "fetch"


SIDECAR = {"name": "proxy", "image": "proxy:1", "restartPolicy": "Always"}


def beside(found: Manifest, *, native: bool, state: Manifest) -> Manifest:
    """The pod with a sidecar in that state, put before our container, as injectors do."""
    if native:
        found["spec"]["initContainers"] = [{"name": "fetch", "image": "curl:1"}, SIDECAR]
        found["status"]["initContainerStatuses"] = [
            {"name": "fetch", "state": ended(0)},
            {"name": "proxy", "state": state},
        ]
    else:
        found["spec"]["containers"].insert(0, {"name": "proxy", "image": "proxy:1"})
        found["status"].setdefault("containerStatuses", []).insert(0, {"name": "proxy", "state": state})
    return found


@pytest.mark.parametrize("native", [True, False], ids=["native", "ordinary"])
@pytest.mark.parametrize("state", [ended(137), ended(1), ended(0), runs()], ids=["killed", "failed", "well", "runs"])
def test_how_a_sidecar_ends_is_never_the_cause_of_a_failure(native, state):
    found = observe(job(ALONE), [beside(pod("driver", 0, ended(3)), native=native, state=state)])
    assert found.status.verdict == failed(code=3)
    assert found.failed is not None
    assert found.failed.log_container == "main"


@pytest.mark.parametrize("native", [True, False], ids=["native", "ordinary"])
@pytest.mark.parametrize("state", [ended(137), runs()], ids=["killed", "runs"])
def test_a_sidecar_neither_ends_a_job_nor_spoils_its_success(native, state):
    still = beside(pod("driver", 0, runs()), native=native, state=state)
    assert status(ALONE, still) == Status(RUNNING, (running("driver"),))
    well = pod("driver", 0, ended(0))
    well["status"]["phase"] = "Failed" if state == ended(137) else "Running"
    verdict = observe(job(ALONE), [beside(well, native=native, state=state)]).status.verdict
    assert verdict == completed()


@pytest.mark.parametrize("main", [waiting(), runs()], ids=["starts", "runs"])
@pytest.mark.parametrize("reason", ["ErrImagePull", "CreateContainerConfigError"])
def test_a_container_beside_ours_that_cannot_start_keeps_ours_from_nothing(main, reason):
    found = beside(pod("driver", 0, main), native=False, state=waiting(reason, "proxy:1: not found"))
    assert status(ALONE, found).state is (RUNNING if main == runs() else PENDING)


def test_a_native_sidecar_that_cannot_start_keeps_ours_from_it_and_is_told():
    found = beside(
        pod("driver", 0, waiting("PodInitializing")), native=True, state=waiting("ErrImagePull", "not found")
    )
    verdict = observe(job(ALONE), [found]).status.verdict
    assert verdict is not None
    assert verdict.message == "driver-0 has no image proxy:1 to run: not found"


def test_where_a_sidecars_exit_code_has_kubernetes_end_the_other_replicas_it_is_the_cause():
    spoilt = pod("driver", 1, ended(0))
    spoilt["status"]["phase"] = "Failed"
    others = [pod("driver", index, ended(143, exit_code=143, stopped=True), **LEAVING) for index in (0, 2)]
    found = observe(job(RANKS), [*others, beside(spoilt, native=False, state=ended(1))])
    message = "driver-1 ended well, but container proxy beside it exited with 1: so its pod has failed, and Kubernetes "
    message += "has ended the others"
    advice = "Make it a native sidecar, in initContainers with restartPolicy: Always: its exit code does not count."
    assert found.status.verdict == Verdict(FAILED, Reason.ERROR, message, advice, replica="driver-1")
    assert found.failed is not None
    assert found.failed.log_container == "proxy"


def test_the_image_and_the_requests_that_are_told_are_our_containers():
    found = beside(pod("driver"), native=False, state=waiting())
    assert Pod(found).image == "python:3"


def test_an_init_container_without_an_image_is_told_with_its_own():
    found = pod("driver", 0, waiting("PodInitializing"))
    found["spec"]["initContainers"] = [{"name": "fetch", "image": "curl:1"}]
    state = waiting("ErrImagePull", "curl:1: not found")
    found["status"]["initContainerStatuses"] = [{"name": "fetch", "state": state}]
    verdict = observe(job(ALONE), [found]).status.verdict
    assert verdict is not None
    assert verdict.message == "driver-0 has no image curl:1 to run: curl:1: not found"


# ---- it was taken away


def test_a_replica_that_is_taken_off_its_node_ends_the_job_with_the_clusters_words():
    taken = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "DeletionByTaintManager",
        "message": "Taint manager: deleting due to NoExecute taint",
    }
    lost = pod("worker", 1, runs(), status={"conditions": [taken]}, **LEAVING)
    pods = [pod("coordinator", 0, runs(), ready=True), pod("worker", 0, runs()), lost, pod("driver", 0, runs())]
    verdict = observe(job(SERVED), pods).status.verdict
    assert verdict is not None
    assert (verdict.state, verdict.reason, verdict.replica) == (FAILED, Reason.EVICTED, "worker-1")
    assert "(DeletionByTaintManager): Taint manager: deleting due to NoExecute taint" in verdict.message


def disrupted(reason: str, words: str, *, ready: str = "True") -> Manifest:
    conditions = [
        {"type": "Ready", "status": ready},
        {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": words},
    ]
    found = pod("driver", 0, runs(), status={"conditions": conditions})
    found["spec"]["nodeName"] = "node2"
    return found


@pytest.mark.parametrize(
    ("found", "reason", "message"),
    [
        (
            disrupted("EvictionByEvictionAPI", "Eviction API: evicting"),
            Reason.EVICTED,
            "driver-0 was taken off its node node2 (EvictionByEvictionAPI): Eviction API: evicting",
        ),
        (
            disrupted("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint"),
            Reason.EVICTED,
            "driver-0 was taken off its node node2 (DeletionByTaintManager): Taint manager: deleting due to NoExecute "
            "taint",
        ),
        (
            disrupted("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint", ready="False"),
            Reason.NODE_LOST,
            "driver-0 was lost with node2, which does not answer",
        ),
        (
            disrupted("DeletionByPodGC", "PodGC: node no longer exists"),
            Reason.NODE_LOST,
            "driver-0 was lost with node2: PodGC: node no longer exists",
        ),
        (
            disrupted("PreemptionByScheduler", "default-scheduler: preempting to accommodate a higher priority pod"),
            Reason.PREEMPTED,
            "driver-0 was preempted: default-scheduler: preempting to accommodate a higher priority pod",
        ),
    ],
    ids=lambda value: value if isinstance(value, Reason) else "",
)
def test_why_a_pod_is_taken_away_is_told(found, reason, message):
    verdict = observe(job(ALONE), [found]).status.verdict
    assert verdict is not None
    assert (verdict.reason, verdict.message, verdict.replica) == (reason, message, "driver-0")


def test_a_deciding_replica_that_is_evicted_is_told_as_evicted():
    status = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}
    verdict = observe(job(ALONE), [pod("driver", 0, ended(137), status=status)]).status.verdict
    assert verdict is not None
    assert verdict.reason is Reason.EVICTED


def test_a_replica_that_saved_and_left_well_as_it_was_evicted_is_no_success():
    saved = pod("driver", 0, ended(0, exit_code=0, stopped=True), status={"conditions": [EVICTION]}, **LEAVING)
    complete = {"type": "Complete", "status": "True"}
    for root in (job(ALONE), job(ALONE, complete)):
        verdict = observe(root, [saved]).status.verdict
        assert verdict is not None
        assert verdict.reason is Reason.EVICTED
    told = {"c-job-driver-0-abcde": LastWords(End(0, stopped=True))}
    assert observe(job(ALONE), [pod("driver", 0, runs())], told=told).done == ()


LIMITS = {
    'Usage of EmptyDir volume "shm" exceeds the limit "64Mi". ': "Raise Resources(shm=...).",
    'Usage of EmptyDir volume "volume-0" exceeds the limit "1Gi". ': (
        "Raise the volume's empty_dir=, or give it storage by claim=."
    ),
    'Usage of EmptyDir volume "mine" exceeds the limit "1Gi". ': (
        "Raise the volume's sizeLimit, which pod_overrides= has set, here or in the connection."
    ),
    **dict.fromkeys(
        (
            "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi. ",
            'Container main exceeded its local ephemeral storage limit "1Gi". ',
        ),
        "Raise its limit of ephemeral-storage, by pod_overrides= or in the namespace's LimitRange. What it prints "
        "counts, too; what it writes to a volume of volumes= does not.",
    ),
}


@pytest.mark.parametrize("words", LIMITS)
@pytest.mark.parametrize(
    "container", [ended(137), ended(0, exit_code=0, stopped=True), None], ids=["killed", "saved", "-"]
)
def test_a_replica_that_is_over_a_limit_of_its_own_is_no_preemption_and_is_told_what_to_raise(words, container):
    status = {"phase": "Failed", "reason": "Evicted", "message": words}
    verdict = observe(job(ALONE), [pod("driver", 0, container, status=status)]).status.verdict
    message = f"driver-0 was ended, as it wrote more than it may: {words.strip()}"
    assert verdict == Verdict(FAILED, Reason.ERROR, message, LIMITS[words], replica="driver-0")
    assert verdict.reason not in PREEMPTIONS


def test_a_replica_that_serves_and_is_over_its_own_limit_ends_the_job_likewise():
    [words, *_] = LIMITS
    lost = pod("worker", 0, ended(137), status={"phase": "Failed", "reason": "Evicted", "message": words})
    others = [pod("coordinator", 0, runs(), ready=True), pod("worker", 1, runs()), pod("driver", 0, runs())]
    found = observe(job(SERVED), [lost, *others])
    assert found.ending is not None
    assert (found.ending.reason, found.ending.replica, found.ending.advice) == (Reason.ERROR, "worker-0", LIMITS[words])


@pytest.mark.parametrize(
    "words", ["The node was low on resource: memory. Container main was using 1Gi.", "The node had condition: [DiskP"]
)
def test_a_replica_that_a_node_evicts_for_its_own_sake_is_preempted(words):
    status = {"phase": "Failed", "reason": "Evicted", "message": words}
    verdict = observe(job(ALONE), [pod("driver", 0, ended(137), status=status)]).status.verdict
    assert verdict is not None
    assert verdict.reason in PREEMPTIONS


def test_of_ranks_the_one_that_was_evicted_is_named_though_the_others_failed_by_themselves():
    evicted = pod("driver", 1, ended(1, exit_code=1, stopped=True), status={"conditions": [EVICTION]})
    evicted["metadata"] |= LEAVING
    pods = [pod("driver", 0, ended(1, 8, exit_code=1)), evicted, pod("driver", 2, ended(1, exit_code=1))]
    verdict = observe(job(RANKS, *ends("BackoffLimitExceeded")), pods).status.verdict
    assert verdict is not None
    assert (verdict.reason, verdict.replica) == (Reason.EVICTED, "driver-1")


def test_a_replica_that_its_node_refuses_is_told_so():
    refused = pod("driver", status=REFUSED)
    refused["spec"]["nodeName"] = "node2"
    verdict = observe(job(ALONE), [refused]).status.verdict
    message = f"driver-0 was refused by its node node2 (UnexpectedAdmissionError): {REFUSED['message']}"
    assert verdict == Verdict(FAILED, Reason.EVICTED, message, AGAIN, replica="driver-0")


# ---- it ended


@pytest.mark.parametrize(
    ("container", "signal"),
    [
        (ended(139, signal=11), "SIGSEGV"),
        (ended(143), "SIGTERM"),
        (ended(137), "SIGKILL"),
        (ended(227, signal=99), "signal 99"),
    ],
    ids=["of the command", "of the launcher", "of the kernel", "without a name"],
)
def test_a_replica_that_a_signal_ended_is_reported_with_it(container, signal):
    found = observe(job(ALONE), [pod("driver", 0, container)]).status
    assert found.replicas == (over("driver", code=None, signal=signal),)
    assert found.verdict is not None
    assert (found.verdict.reason, found.verdict.message) == (Reason.KILLED, f"driver-0 was killed by {signal}")
    assert (found.verdict.signal, found.verdict.exit_code) == (signal, None)


def test_an_exit_code_over_128_that_the_command_chose_is_no_signal():
    found = observe(job(ALONE), [pod("driver", 0, ended(255, exit_code=255))]).status
    assert (found.replicas, found.verdict) == ((over("driver", code=255),), failed(code=255))


class Bossed(Adapter):
    """A user's own, whose roles are named by what they do."""

    decides = "workers-boss"

    def roles(self, spec: JobSpec, program: Program) -> tuple[Role, ...]:
        launch = Launch(program)
        larger = replace(spec.worker_resources, memory="3Gi")
        return (
            Role("workers-boss", launch, resources=spec.coordinator_resources),
            Role("mapper", launch, resources=larger),
            Role("worker", launch, resources=Resources(memory="4Gi")),
        )


@pytest.mark.parametrize(
    "container", [ended(137, reason="OOMKilled"), ended(137, signal=9, oom=True)], ids=["", "said"]
)
@pytest.mark.parametrize(
    ("role", "memory", "argument", "what"),
    [
        ("workers-boss", "2Gi", "coordinator_resources", "coordinator_resources=Resources(memory=...)"),
        ("mapper", "3Gi", "worker_resources", "worker_resources=Resources(memory=...)"),
        ("worker", "4Gi", None, f"the memory that adapter '{__name__}.Bossed' gives it"),
    ],
)
def test_a_replica_that_ran_out_of_memory_is_told_with_what_it_had_and_what_gives_it_more_whatever_its_role_s_name(
    role, memory, argument, what, container
):
    lost = pod(role, 0, container)
    others = [pod(name, 0, runs()) for name in ("workers-boss", "mapper", "worker") if name != role]
    found = observe(job(make_plan(JobSpec.of(adapter=f"{__name__}.Bossed"), ("x",))), [lost, *others])
    verdict = Verdict(
        FAILED,
        Reason.OOM_KILLED,
        f"{role}-0 was OOM-killed at {memory}",
        f"Raise {what}, or give each replica less to hold.",
        replica=f"{role}-0",
        signal="SIGKILL",
        argument=argument,
    )
    assert (found.ending or found.status.verdict, found.failed) == (verdict, Pod(lost))


def test_a_group_s_worker_that_ran_out_of_memory_is_told_the_group_and_its_memory_grows_with_the_workers():
    groups = (WorkerGroup(1, Resources(memory="1Gi")), WorkerGroup(1))
    pods = [pod("worker", 0, ended(137, reason="OOMKilled")), pod("worker2", 0, runs())]
    verdict = observe(job(make_plan(JobSpec.of(adapter="torch", workers=groups), ("python", "x.py"))), pods).ending
    assert verdict is not None
    assert (verdict.argument, verdict.advice) == (
        "worker_resources",
        "Raise its WorkerGroup's resources=Resources(memory=...), or give each replica less to hold.",
    )


def test_a_replica_whose_pod_was_deleted_says_so():
    verdict = observe(job(ALONE), [pod("driver", 0, ended(143, signal=15), **LEAVING)]).status.verdict
    assert verdict is not None
    assert verdict.message == "driver-0 was killed by SIGTERM"
    assert verdict.advice == "Its pod was deleted: by somebody, or with its namespace."


def test_a_replica_that_left_well_as_somebody_deleted_it_is_no_success_either():
    verdict = observe(job(ALONE), [pod("driver", 0, ended(0, exit_code=0, stopped=True), **LEAVING)]).status.verdict
    assert verdict == replace(failed(code=0), advice="Its pod was deleted: by somebody, or with its namespace.")


def test_a_pod_that_ended_without_an_exit_code_is_not_said_to_have_one():
    verdict = observe(job(ALONE), [pod("driver", status={"phase": "Failed"})]).status.verdict
    assert verdict is not None
    assert "None" not in verdict.message
