"""What became of a cluster and its replicas: states, statuses and the verdict, as plain values."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from itertools import chain
from typing import Any

from practicus_provider.runtime.practicus_runtime.contract import NO_DNS, NO_NAME, REFUSED
from practicus_provider.tail import SPARK_WORKER, cause_in


class State(StrEnum):
    """State of a job, a cluster or a replica."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"

    @property
    def final(self) -> bool:
        """Whether nothing follows this state."""
        return self in (State.SUCCEEDED, State.FAILED, State.CANCELLED)


class Reason(StrEnum):
    """Why a job ended. The names follow Kubernetes' where it has one."""

    COMPLETED = "Completed"
    ERROR = "Error"
    KILLED = "Killed"
    OOM_KILLED = "OOMKilled"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    CONFIG_ERROR = "ConfigError"
    INIT_FAILED = "InitFailed"
    EVICTED = "Evicted"
    PREEMPTED = "Preempted"
    NODE_LOST = "NodeLost"
    REPLICA_LOST = "ReplicaLost"
    CLUSTER_LOST = "ClusterLost"
    PORT_IN_USE = "PortInUse"
    UNREACHABLE = "Unreachable"
    START_TIMEOUT = "StartTimeout"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    PROGRESS_DEADLINE_EXCEEDED = "ProgressDeadlineExceeded"
    SUPERVISOR_LOST = "SupervisorLost"
    DELETED = "Deleted"
    ABANDONED = "Abandoned"


PREEMPTIONS = frozenset({Reason.EVICTED, Reason.PREEMPTED, Reason.NODE_LOST})
"""Reasons of jobs that lost their place through no fault of their own: ``preemption_retries`` is for them."""


@dataclass(frozen=True)
class Verdict:
    """Why a job ended, and what to do about it.

    :param message: one sentence that says what happened, and to which replica.
    :param advice: what the user may do; empty where there is nothing to do.
    :param replica: ``role-index`` of the replica that decided; None where no single one did.
    :param exit_code: of that replica's process; None where it did not exit by itself.
    :param signal: name of the signal that ended it, e.g. ``SIGKILL``.
    :param log_tail: that replica's last lines, newest last; where there is a rank, that one's alone, and where there is
        no replica, those of the cluster's supervisor.
    :param rank: of the process that decided, where a replica is several.
    :param suspect: another replica that may have kept that one from its end, and had no end itself.
    :param suspect_tail: its last lines.
    :param argument: the operator's by which that replica was given too little, such as ``worker_resources``; None: none
        was too little, or an adapter has chosen it.
    """

    state: State
    reason: Reason
    message: str
    advice: str = ""
    replica: str | None = None
    exit_code: int | None = None
    signal: str | None = None
    log_tail: tuple[str, ...] = ()
    rank: int | None = None
    suspect: str | None = None
    suspect_tail: tuple[str, ...] = ()
    argument: str | None = None

    def text(self) -> str:
        """The verdict as the user reads it in the task's log."""
        lines = [f"{self.reason}: {self.message}"]
        if self.advice:
            lines.append(self.advice)
        if self.log_tail and self.state is not State.SUCCEEDED:
            whose = of_rank(self.rank, self.replica or "the supervisor")
            lines += [f"Last lines of {whose}:", *(f"    {line}" for line in self.log_tail)]
        if self.suspect_tail:
            lines += [f"Last lines of {self.suspect}:", *(f"    {line}" for line in self.suspect_tail)]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """A JSON-able mapping; :meth:`from_json` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Verdict:
        """Inverse of :meth:`to_json`."""
        fixed = {
            "state": State(data["state"]),
            "reason": Reason(data["reason"]),
            "log_tail": tuple(data["log_tail"]),
            "suspect_tail": tuple(data.get("suspect_tail", ())),  # an earlier version has stored none
        }
        return cls(**{**data, **fixed})


@dataclass(frozen=True)
class Unreached:
    """Whom a replica has waited for in vain.

    :param who: another replica, and where.
    :param why: what was in the way last, in the words of ``practicus_runtime.contract``.
    :param seconds: for which it has waited.
    """

    who: str
    why: str
    seconds: float


@dataclass(frozen=True)
class ReplicaStatus:
    """One replica as its backend last saw it. Times are seconds since the epoch.

    :param ended_at: when it ended; where it is ranks and one failed, when that one did.
    :param detail: why it is still pending, where its backend says so.
    :param rank: which of its ranks failed first; exit code and signal are that one's.
    :param culprit: the replica that this rank was of, if it was another's, whose end this one's was.
    :param silent: seconds for which that one had written nothing, where all of the job's ranks had for too long.
    :param unreached: whom it gave up to wait for, if that was its end.
    """

    role: str
    index: int
    state: State
    exit_code: int | None = None
    signal: str | None = None
    started_at: float | None = None
    ended_at: float | None = None
    detail: str = ""
    rank: int | None = None
    culprit: str | None = None
    silent: float | None = None
    unreached: Unreached | None = None

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ReplicaStatus:
        """Inverse of ``dataclasses.asdict``."""
        unreached = data.get("unreached")
        return cls(
            **{**data, "state": State(data["state"]), "unreached": Unreached(**unreached) if unreached else None}
        )

    @property
    def name(self) -> str:
        """``role-index``."""
        return f"{self.role}-{self.index}"


DETAILS = 5
"""Reasons why replicas are pending that a summary says: of thousands each may have its own."""


@dataclass(frozen=True)
class Status:
    """A whole cluster (or job) as its backend last saw it.

    :param ended_at: when the deciding role ended, seconds since the epoch.
    :param result: JSON text that the application gave to ``practicus_runtime.set_result``, else None.
    """

    state: State
    replicas: tuple[ReplicaStatus, ...] = ()
    verdict: Verdict | None = None
    ended_at: float | None = None
    result: str | None = None

    def summary(self) -> str:
        """One line for a log: how many replicas of each role are in which state, and why some are pending."""
        counts: dict[str, dict[str, int]] = {}
        for replica in self.replicas:
            states = counts.setdefault(replica.role, {})
            states[replica.state] = states.get(replica.state, 0) + 1
        roles = (
            f"{role} {', '.join(f'{n} {state}' for state, n in states.items())}" for role, states in counts.items()
        )
        details = list(dict.fromkeys(replica.detail for replica in self.replicas if replica.detail))
        further = [f"{len(details) - DETAILS} further reasons"] if len(details) > DETAILS else []
        text = f"{self.state}: {'; '.join(roles)}" if counts else str(self.state)
        return " ".join([text, *(f"({detail})" for detail in details[:DETAILS] + further)])

    def to_json(self) -> dict[str, Any]:
        """A JSON-able mapping; :meth:`from_json` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Status:
        """Inverse of :meth:`to_json`."""
        verdict = data["verdict"]
        fixed = {
            "state": State(data["state"]),
            "replicas": tuple(map(ReplicaStatus.from_json, data["replicas"])),
            "verdict": Verdict.from_json(verdict) if verdict else None,
        }
        return cls(**{**data, **fixed})


def signal_name(number: int | None) -> str | None:
    """``SIGKILL`` for 9; a number that has no name reads ``signal 99``."""
    if number is None:
        return None
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def explain_exit(
    replica: ReplicaStatus, *, tail: Sequence[str], decides: bool, lacks: Mapping[str, str] | None = None
) -> Verdict:
    """The verdict for a replica that ended although it should not have, or not so.

    :param tail: the last lines of its log, newest last; what of them tells the cause is kept whole.
    :param decides: whether its role decides the job's outcome (else it merely serves it).
    :param lacks: see :func:`with_tail`.
    """
    reason, advice = Reason.ERROR if decides else Reason.REPLICA_LOST, ""
    culprit = replica.culprit or replica.name
    who = of_rank(replica.rank, culprit)
    what = f"{who} exited with code {replica.exit_code}"
    if replica.exit_code is None:
        what = f"{who} ended, nobody knows how"
    if replica.signal:
        reason, what = Reason.KILLED, f"{who} was killed by {replica.signal}"
        if replica.signal == "SIGKILL":
            advice = (
                "Nothing of ours sent it. Most often the kernel does when memory runs out: raise the replica's memory, "
                "or look at the kernel's log (dmesg)."
            )
    if replica.silent is not None:
        reason = Reason.PROGRESS_DEADLINE_EXCEEDED
        what = (
            f"{who} fell silent {replica.silent:g} s ago, before all others; no rank has logged or reported progress "
            "within progress_timeout"
        )
        advice = (
            "The first worker's log has the stacks of all ranks: look for the one that is not where the others wait. "
            "If they were at work, raise progress_timeout=, or call practicus_runtime.progress()."
        )
    if replica.unreached is not None:
        reason, vain = Reason.UNREACHABLE, replica.unreached
        what = f"{who} waited {vain.seconds:g} s for {vain.who} in vain: {vain.why}"
        advice = WAYS_OUT.get(vain.why, WAY_OUT)
    verdict = Verdict(
        State.FAILED,
        reason,
        what if decides else f"{what} while the job was running",
        advice,
        replica=culprit,
        exit_code=replica.exit_code,
        signal=replica.signal,
        rank=replica.rank,
    )
    return with_tail(verdict, tail, lacks)


WAYS_OUT = {
    NO_DNS: "A cluster's NetworkPolicy lets its pods ask DNS on ports 53 and 5353, wherever that is: if it "
    "listens on another one, name its address by egress=. Else a policy or firewall of others is in the way, or a "
    "dnsPolicy or dnsConfig of pod_overrides= names another DNS.",
    NO_NAME: "DNS answers, but does not know this cluster's Service: see whether a dnsPolicy or dnsConfig of "
    "pod_overrides= names another DNS than the cluster's own. A NetworkPolicy or egress= has no part in it.",
    REFUSED: "It has an address, but nothing listens there: look at its log. If it needs longer for its start, "
    "raise start_timeout=.",
}
"""What was in the way of who waited in vain -> what to do about it."""
WAY_OUT = (
    "Something drops what they send each other: a NetworkPolicy or firewall of others, or a service mesh. A cluster's "
    "own policy lets its replicas reach each other, DNS, and what egress= names."
)
"""Likewise of all else."""


def of_rank(rank: int | None, replica: str | None) -> str:
    """``worker-1``, or ``rank 3 (worker-1)``."""
    return str(replica) if rank is None else f"rank {rank} ({replica})"


def with_tail(verdict: Verdict, tail: Sequence[str], lacks: Mapping[str, str] | None = None) -> Verdict:
    """The verdict with its replica's last lines, and with what they tell of its cause.

    :param tail: the last lines of the log, newest last.
    :param lacks: module of the framework -> what to do if there is none of that name; other modules are the user's.
    """
    reason, advice = verdict.reason, verdict.advice
    if verdict.rank is not None:
        tail = lines_of(verdict.rank, tail)
    cause = cause_in(tail)
    told = cause.before + cause.lines
    lacked = (module for module in _missing(cause.before) if module in (lacks or {}))
    missing = next(chain(_missing(cause.lines), lacked), None)  # what was missing before may have been done without
    if verdict.exit_code and any(sign in line for line in told for sign in PORT_TAKEN):
        reason = Reason.PORT_IN_USE
        advice = "A port that it listens on is taken: free it, or leave its choice to us by not naming one."
    elif verdict.exit_code and missing:
        there = f"Where {verdict.replica} ran"
        if any(sign in line for line in told for sign in SENT):
            there = f"Where a worker ran what {verdict.replica} had sent"
        own = f"{there} there is no Python module {missing!r}: install it there, or give files=."
        advice = (lacks or {}).get(missing, own)
    return replace(verdict, reason=reason, advice=advice, log_tail=cause.shown)


def lines_of(rank: int, tail: Sequence[str]) -> list[str]:
    """The lines of one rank: all, where a replica has no other. torch marks those of a traceback, too."""
    mark = f"[rank {rank}] "
    own = [line.removeprefix(mark) for line in tail if line.startswith(mark)] or tail
    return [line.removeprefix(f"[rank{rank}]:").removeprefix(" ") if line.startswith("[rank") else line for line in own]


PORT_TAKEN = ("Address already in use", "EADDRINUSE")
"""What Python and the C library say of a port that is taken, and what torch says."""
SENT = (
    SPARK_WORKER,
    "PythonException: ",
    "/distributed/client.py",
    "/dask/base.py",
)
"""What shows in a driver's traceback that a worker raised it: Spark's words, and Dask's modules that get results."""
MISSING_MODULE = re.compile(r"No module named '?([\w.]+)")
"""What Python says of a module that it cannot import or run (``python -m``)."""


def _missing(lines: Sequence[str]) -> Iterator[str]:
    """Names of modules that there are not, the last one first."""
    return (found[1] for line in reversed(lines) if (found := MISSING_MODULE.search(line)))
