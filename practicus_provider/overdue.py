"""Why a cluster's time was over: what its replicas were at when it was. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from practicus_provider.runtime.practicus_runtime.contract import WaitLine
from practicus_provider.status import WAY_OUT, WAYS_OUT, Reason, ReplicaStatus, State, Verdict
from practicus_provider.tail import last_lines

NAMED = 3
"""Replicas that are named; of more, their number is told."""


def out_of_time(timeout: float, replicas: Sequence[ReplicaStatus], deciding: Collection[str]) -> Verdict:
    """The verdict for a cluster whose timeout was over; :func:`with_last_lines` adds what its logs tell.

    :param replicas: of which something is known; those that the cluster's end has taken away already are not.
    :param deciding: roles whose end is the job's.
    """
    message = f"the cluster's time was over after {timeout:g} s, its timeout"
    decisive = [replica for replica in replicas if replica.role in deciding]
    ended = [replica for replica in decisive if replica.state is State.SUCCEEDED]
    left = [replica for replica in decisive if replica.state is not State.SUCCEEDED]
    # One of which it is known what is in its way tells most, then one that has written something.
    late = sorted(
        (replica for replica in replicas if replica.state is State.PENDING),
        key=lambda replica: (not replica.detail, replica.started_at is None),
    )
    shown = next(iter(left), None)
    verdict = Verdict(State.FAILED, Reason.DEADLINE_EXCEEDED, message, replica=shown.name if shown else None)
    if late:
        first = late[0]
        how = "was started but not ready" if first.started_at is not None else "had not started"
        why = f" ({first.detail})" if first.detail else ""
        others = f", nor were {_named(late[1:])}" if late[1:] else ""
        advice = f"Look at {first.name} first: others may have waited for it. "
        advice += "Raise timeout= if all that it needs is time."
        suspect = first.name if first.name != verdict.replica else None
        return replace(verdict, message=f"{message}; {first.name} {how}{why}{others}", advice=advice, suspect=suspect)
    if ended and left:
        advice = f"Look at what {left[0].name} was at: it may have waited for what the others had done with. "
        advice += "If it was at work, raise timeout=, or make the job faster."
        return replace(verdict, message=f"{message}; {_named(ended)} had ended, but not {_named(left)}", advice=advice)
    if not left:
        return replace(verdict, advice="Raise timeout=, or make the job faster.")
    advice = "If its last lines show it at work, raise timeout=, or make the job faster. If not, look at what it "
    return replace(verdict, advice=f"{advice}waited for.")


def with_last_lines(verdict: Verdict, tails: Mapping[str, Sequence[str]]) -> Verdict:
    """With what the replicas wrote last, and whom they waited for then.

    These are the last lines as they are: an error that was survived is no cause.

    :param tails: replica -> last lines of its log, newest last.
    """
    lines, suspects = (last_lines(tails.get(name or "", ())) for name in (verdict.replica, verdict.suspect))
    verdict = replace(verdict, log_tail=lines, suspect_tail=suspects)
    wait = next(filter(None, map(WaitLine.found_in, reversed(lines))), None)  # the last one tells how it is
    if wait is None or wait.given_up or not wait.why:
        return verdict
    message = f"{verdict.message}; {verdict.replica} had waited {wait.seconds} s for {wait.who}: {wait.why}"
    suspected = verdict.suspect is not None
    return replace(verdict, message=message, advice=verdict.advice if suspected else WAYS_OUT.get(wait.why, WAY_OUT))


def _named(replicas: Sequence[ReplicaStatus]) -> str:
    names = [replica.name for replica in replicas[:NAMED]]
    more = len(replicas) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")
