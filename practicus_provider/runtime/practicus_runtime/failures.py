"""Which of several failures came first: of a replica's ranks, of members of an elastic training, and of replicas."""

from __future__ import annotations

from typing import Any, Dict, Iterable, Tuple, Union

Failure = Dict[str, Any]
"""How a rank has failed: ``rank``, ``exit_code``, ``signal``, ``at``, and what else whoever tells it knows."""


def order(signal: Union[int, str, None], at: float) -> Tuple[bool, float]:  # noqa: UP006, UP007  (Python 3.8)
    """Of several, the least is the cause: the others failed later, in consequence.

    Nobody is sent SIGKILL because another failed, and it leaves no time to say when it was.

    :param signal: its number or its name, where one ended it.
    :param at: when it failed, seconds since the epoch.
    """
    return signal not in (9, "SIGKILL"), at


def first(failures: Iterable[Failure]) -> Failure:
    """The cause of all of these, of which there is at least one."""
    return min(failures, key=lambda failure: order(failure["signal"], failure["at"]))
