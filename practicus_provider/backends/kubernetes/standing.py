"""For how long something has stood in a pod's way with the same words: what does for a while will not heal. Pure.

No object of Kubernetes says it, so whoever watches keeps it, from the time on that it was seen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

STANDS = 120.0
"""Seconds with the same words after which they are the end: four tries, by the kubelet's times between two."""
VARYING = re.compile(r'pods "[^"]*"|[0-9a-f]{8,}|\d+')
"""What differs from one try to the next: a new pod's name, numbers of ports, requests and times."""


@dataclass(frozen=True)
class Wait:
    """:param since: by the watcher's clock.
    :param told: the words as they were told last, so that the same ones are not read again.
    """

    words: str
    since: float
    told: str = field(default="", compare=False)


def going_on(before: Mapping[str, Wait], troubles: Mapping[str, str], now: float) -> dict[str, Wait]:
    """What stands in whose way, and since when.

    :param before: as it was at the last look.
    :param troubles: name -> the words for what does now; empty: none are told between two tries.
    """
    waits = {}
    for name, words in troubles.items():
        known = before.get(name)
        if known and words in ("", known.told):
            waits[name] = known
            continue
        same = VARYING.sub("#", words)
        since = known.since if known and same == known.words else now
        waits[name] = Wait(same, since, words)
    return waits


def standing(waits: Mapping[str, Wait], now: float) -> frozenset[str]:
    """Those for whom it has stood for long enough."""
    return frozenset(name for name, wait in waits.items() if now >= wait.since + STANDS)


def due(waits: Mapping[str, Wait], now: float) -> float:
    """When the next one will have; infinite: none will."""
    return min((wait.since + STANDS for wait in waits.values() if now < wait.since + STANDS), default=inf)
