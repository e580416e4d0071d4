"""One pod, read. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from practicus_provider.backends.kubernetes.api import Manifest
from practicus_provider.backends.kubernetes.labels import INDEX, MAIN, ROLE
from practicus_provider.runtime.practicus_runtime.contract import MESSAGE_LIMIT, LastWords, parsed
from practicus_provider.status import ReplicaStatus, State, Unreached, signal_name

SIGNALLED = 128
"""A shell's and our launcher's exit code for a process that a signal ended, less the signal's number."""
LATE = 5.0
"""Seconds beyond a pod's time of grace that a busy kubelet may need to end it."""
PULL_FAILED = "ErrImagePull"
"""The kubelet's reason as it tries; in between it says ``ImagePullBackOff``, and since Kubernetes 1.31 why."""
INSUFFICIENT = re.compile(r"\bInsufficient ([\w./-]*\w)")
"""What a scheduler says of each resource of which no node has enough left."""
NUMBER = re.compile(r"[0-9]{1,9}")
PREEMPTION = re.compile(r"[.,]?( no new claims to deallocate[.,]?)? preemption: .*", re.DOTALL)
"""What a scheduler adds after its reasons: that nobody is to be preempted either."""
OVERDRAWN = re.compile(
    r"Usage of EmptyDir volume .* exceeds the limit|Pod ephemeral local storage usage exceeds the total limit"
    r"|Container .* exceeded its local ephemeral storage limit"
)
"""What the kubelet says of a pod that it evicts because that is over a limit of its own, and not because the node is
short of something (Kubernetes 1.34, ``pkg/kubelet/eviction/eviction_manager.go``)."""


@dataclass(frozen=True)
class Pod:
    """One pod, read.

    :param largest: resource -> the most of it that one node has, where that is known.
    """

    manifest: Manifest
    largest: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.manifest["metadata"]["name"])

    @property
    def uid(self) -> str:
        """Unique for ever."""
        return str(self.manifest["metadata"]["uid"])

    @property
    def created_at(self) -> str:
        """When it was made, as the server writes times: they compare as texts."""
        return str(self.manifest["metadata"].get("creationTimestamp", "9999"))

    @property
    def role(self) -> str:
        """Its role's name; empty if it does not say."""
        return str(self.manifest["metadata"]["labels"].get(ROLE, ""))

    @property
    def index(self) -> int:
        """Its index in its role; of a pod that the framework named, the number that its name ends with; -1 if it has
        none."""
        number = str(self.manifest["metadata"]["labels"].get(INDEX, self.name.rpartition("-")[2]))
        return int(number) if NUMBER.fullmatch(number) else -1

    @property
    def leaving(self) -> bool:
        """Whether it is being deleted."""
        return "deletionTimestamp" in self.manifest["metadata"]

    @cached_property
    def container(self) -> Manifest:
        """Status of its container; empty before there is one."""
        statuses = self.manifest["status"].get("containerStatuses", ())
        return next((status for status in statuses if status["name"] == MAIN), statuses[0] if statuses else {})

    @property
    def started(self) -> bool:
        """Whether its container has run, so that there is a log."""
        return not {"running", "terminated"}.isdisjoint(self.container.get("state", {}))

    @cached_property
    def ended(self) -> Manifest | None:
        """How its container ended; None while it has not."""
        found: Manifest | None = self.container.get("state", {}).get("terminated")
        if found is None and self.manifest["status"].get("phase") in ("Failed", "Succeeded"):
            found = {"exitCode": 0 if self.manifest["status"]["phase"] == "Succeeded" else None}
        return found

    @cached_property
    def last_words(self) -> LastWords:
        """What our launcher left as the container's termination message; nothing if it had no time to."""
        return LastWords.from_json(parsed((self.ended or {}).get("message") or "{}", MESSAGE_LIMIT))

    @property
    def stopped(self) -> bool:
        """Whether it ended because it was told to, by SIGTERM: then exit code 0 does not say that its work is done."""
        return self.last_words.end.stopped

    @property
    def out_of_memory(self) -> bool:
        """Whether it failed as its container used more memory than it may. The kubelet takes that reason from an event
        of the container runtime, which may come after the end itself; our launcher asks the kernel."""
        return (self.ended or {}).get("reason") == "OOMKilled" or self.last_words.end.oom

    @property
    def told_to_leave(self) -> float:
        """When its deletion was asked for, seconds since the epoch, to the second; infinite if it was not."""
        meta = self.manifest["metadata"]
        due = _seconds(meta.get("deletionTimestamp"))  # with its time of grace
        return math.inf if due is None else due - meta.get("deletionGracePeriodSeconds", 0)

    @property
    def node(self) -> str:
        """Name of its node; empty before it has one."""
        return str(self.manifest["spec"].get("nodeName", ""))

    @property
    def image(self) -> str:
        """The image of its container."""
        return str(self._main["image"])

    @property
    def _main(self) -> Manifest:
        """Its container as it was asked for; what injects others may put them before it."""
        containers = self.manifest["spec"]["containers"]
        return next((container for container in containers if container["name"] == MAIN), containers[0])

    def lost(self, now: float) -> bool:
        """Whether it should have ended by now, and nobody says that it has: its node does not answer.

        :param now: seconds since the epoch by the server's clock.
        """
        due = _seconds(self.manifest["metadata"].get("deletionTimestamp"))  # with its time of grace
        unready = self.condition("Ready").get("status") == "False"
        return due is not None and now > due + LATE and unready and "running" in self.container.get("state", {})

    def condition(self, kind: str) -> Manifest:
        """One of its conditions; empty if there is none."""
        found = self.manifest["status"].get("conditions", ())
        return next((condition for condition in found if condition["type"] == kind), {})

    @property
    def failed_init(self) -> Manifest | None:
        """Status of the init container that failed, so that no other starts; none is ours, but a user may add some.

        A native sidecar is none: it runs beside the container, and how it ends, or is ended, Kubernetes ignores.
        """
        if self.manifest["status"].get("phase") != "Failed":
            return None
        specs = self.manifest["spec"].get("initContainers", ())
        beside = {container["name"] for container in specs if container.get("restartPolicy") == "Always"}
        statuses = self.manifest["status"].get("initContainerStatuses", ())
        return next((status for status in statuses if status["name"] not in beside and _exit_code(status)), None)

    @property
    def failed_sidecar(self) -> Manifest | None:
        """Status of the container beside ours that has failed, where ours has ended well: so the pod has failed, and
        with it the Job, whose controller then ends the others."""
        ended = self.container.get("state", {}).get("terminated", {})
        if self.manifest["status"].get("phase") != "Failed" or ended.get("exitCode") != 0:
            return None
        statuses = self.manifest["status"].get("containerStatuses", ())
        return next((status for status in statuses if status["name"] != MAIN and _exit_code(status)), None)

    @property
    def log_container(self) -> str:
        """The container whose log has the cause, if it failed."""
        failed = self.failed_init or self.failed_sidecar
        return str(failed["name"]) if failed else MAIN

    @property
    def waiting(self) -> tuple[str, str]:
        """Why it does not run yet: a reason of the kubelet's or the scheduler's, and their words; empty if unknown."""
        for _, waiting in self._waiting():
            words = waiting["message"]
            if waiting["reason"] == "ImagePullBackOff" and PULL_FAILED in words:  # still the same reason
                return PULL_FAILED, words.partition(f"{PULL_FAILED}: ")[2]
            return waiting["reason"], words
        scheduled = self.condition("PodScheduled")
        if scheduled.get("status") != "False":
            return "", ""
        return scheduled.get("reason", ""), self._unscheduled(scheduled.get("message", ""))

    @property
    def waiting_image(self) -> str:
        """The image of the container that waits."""
        names = [name for name, _ in self._waiting()] or [MAIN]
        spec = self.manifest["spec"]
        containers = (*spec.get("initContainers", ()), *spec["containers"])
        return next(str(container["image"]) for container in containers if container["name"] == names[0])

    def _waiting(self) -> Iterator[tuple[str, Manifest]]:
        """What waits of that without which ours does not start: not what is beside it."""
        status = self.manifest["status"]
        if self.started:
            return
        for container in (*status.get("initContainerStatuses", ()), self.container):
            waiting = container.get("state", {}).get("waiting", {})
            if waiting.get("message"):
                yield container["name"], waiting

    def _unscheduled(self, words: str) -> str:
        """The scheduler's words, and what no node has."""
        spec, asked = self.manifest["spec"], []
        missing = INSUFFICIENT.findall(words)
        if missing:
            requests = self._main.get("resources", {}).get("requests", {})
            asked += [f"{name} {amount}" for name, amount in sorted(requests.items())]
        if "selector" in words:
            asked += [f"a node with {name}={value}" for name, value in sorted(spec.get("nodeSelector", {}).items())]
        text = PREEMPTION.sub(".", words) + (f" It asks for {', '.join(asked)}." if asked else "")
        if not self.largest:
            return text
        most = {name: self.largest.get(name, "0") for name in missing}
        some = ", ".join(f"{name} {amount}" for name, amount in most.items() if amount != "0")
        none = ", ".join(name for name, amount in most.items() if amount == "0")
        return text + (f" The largest node has {some}." if some else "") + (f" No node has any {none}." if none else "")

    @property
    def refused(self) -> bool:
        """Whether its node would not have it, though the scheduler chose that one: no container of it was ever made."""
        status = self.manifest["status"]
        return status.get("phase") == "Failed" and bool(status.get("reason")) and not status.get("containerStatuses")

    @property
    def overdrawn(self) -> str:
        """Which limit of its own it was evicted for; empty: for none."""
        status = self.manifest["status"]
        words = str(status.get("message", "")).strip()
        return words if status.get("reason") == "Evicted" and OVERDRAWN.search(words) else ""

    @property
    def disrupted(self) -> tuple[str, str]:
        """Why the cluster takes it away (the condition ``DisruptionTarget``), and the words for it; else empty."""
        disruption, status = self.condition("DisruptionTarget"), self.manifest["status"]
        if self.overdrawn:
            return "", ""
        if disruption.get("status") == "True":
            return disruption.get("reason", ""), disruption.get("message", "")
        if self.refused or status.get("reason") == "Evicted":
            return status["reason"], status.get("message", "")
        return "", ""

    def replica(self, *, ready: bool, trouble: str | None = None) -> ReplicaStatus:
        """As the status of a cluster shows it.

        :param ready: whether it counts as running only once its startup probe says so.
        :param trouble: what an event says of it, for where its own status does not say why it waits.
        """
        state = self.container.get("state", {})
        if self.ended is None:
            running = "running" in state and (not ready or self.container.get("ready"))
            started = _seconds(state["running"].get("startedAt")) if "running" in state else None
            detail = "" if running else ": ".join(filter(None, self.waiting)) or trouble or ""
            state_now = State.RUNNING if running else State.PENDING
            return ReplicaStatus(self.role, self.index, state_now, started_at=started, detail=detail)
        end, code = self.last_words.end, self.ended.get("exitCode")
        if not end.known and code is not None:
            end = end._replace(signal=code - SIGNALLED) if code > SIGNALLED else end._replace(exit_code=code)
        return ReplicaStatus(
            self.role,
            self.index,
            State.SUCCEEDED if self.ended.get("exitCode") == 0 and not self.stopped else State.FAILED,
            exit_code=end.exit_code,
            signal=signal_name(end.signal),
            started_at=_seconds(self.ended.get("startedAt")),
            ended_at=end.at or _seconds(self.ended.get("finishedAt")),
            rank=end.rank,
            culprit=end.replica,
            silent=end.silent,
            unreached=Unreached(*end.unreached) if end.unreached else None,
        )


def _exit_code(status: Manifest) -> int:
    """Of a container that has ended; 0 of one that has not."""
    return int(status.get("state", {}).get("terminated", {}).get("exitCode", 0))


def time_of(text: str) -> float:
    """A time stamp of the API in seconds since the epoch."""
    return datetime.fromisoformat(text).timestamp()


def _seconds(text: str | None) -> float | None:
    return time_of(text) if text else None
