"""What Horovod's elastic ranks ask the coordinator: their places in the next round, and each other's addresses.

It is what ``horovod.runner.elastic.rendezvous`` serves, but that one unpickles what anybody sends, and this one nothing
that anybody does. Horovod's side makes a URL of an address and a port and has no other way to show who it is. So the
address that a member is told has a token in it; without one nothing is answered.
"""

from __future__ import annotations

import threading
from typing import Optional

from practicus_runtime.channel import same
from practicus_runtime.horovod import KEYS_PER_RANK, Handler, Rendezvous
from practicus_runtime.membership import Group, Member, Phase

PLACES = "rank_and_size"
"""Scope in which a rank asks for its place (``HOROVOD_GLOO_GET_RANK_AND_SIZE``)."""
ALL = "global"
"""Scope in which each rank first says where it is (``HOROVOD_GLOO_GLOBAL_PREFIX``)."""


class Store(Rendezvous):
    """Keys and values of the present round, each written once, and places in the next.

    :param changed: guards the group, and tells of its changes.
    """

    def __init__(self, address: str, port: int, group: Group, changed: threading.Condition) -> None:
        super().__init__(address, port, 0)
        self.RequestHandlerClass = Asked
        self.group = group
        self.changed = changed
        self.round = 0
        self.here: dict[str, set[str]] = {}
        self.back: dict[tuple[str, int], set[str]] = {}

    def admit(self, token: str) -> Optional[Member]:  # noqa: UP045  (Python 3.8)
        """The member that shows that token. What was written in an earlier round is forgotten."""
        with self.changed, self.lock:
            if self.round != self.group.round:
                self.round = self.group.round
                self.limit = KEYS_PER_RANK * sum(member.slots for member in self.group.members.values())
                self.values.clear()
            return next((member for member in self.group.members.values() if same(token, member.token)), None)

    def note(self, member: Member, rank: str) -> None:
        """A rank has said where it is: its process is ready for the round."""
        with self.changed:
            self.here.setdefault(member.token, set()).add(rank)
            self.changed.notify_all()

    def place(self, member: Member, local_rank: str) -> Optional[bytes]:  # noqa: UP045
        """Wait for the next round; the rank's place in it, as Horovod reads it, or None if it has none.

        Those who come back are let in last: Horovod waits for a peer for some seconds, then its process fails and what
        it has learnt is lost. Whoever is new to the round may take longer to start, or fail in doing so.
        """
        with self.changed:
            while True:
                ended = self.group.round
                self._come_back(member, local_rank)
                self.changed.wait_for(lambda: self._gone(member) or self.group.round > ended)  # noqa: B023
                self.changed.wait_for(lambda: self._gone(member) or self.group.broken or self._all_here())
                if self._gone(member) or member.name not in self.group.present:
                    return None
                if not self.group.broken:
                    return self._place(member, int(local_rank))

    def _come_back(self, member: Member, local_rank: str) -> None:
        back = self.back.setdefault((member.token, self.group.round), set())
        back.add(local_rank)
        if len(back) == member.slots and not self._gone(member):
            self.group.free(member.name)
            self.changed.notify_all()

    def _gone(self, member: Member) -> bool:
        return self.group.phase is Phase.OVER or self.group.members.get(member.name) is not member

    def _all_here(self) -> bool:
        """Whether all have come back, or, if they are new, have started."""
        group = self.group
        awaited = (group.members[name] for name in group.present if name in group.members.keys() - group.finished)
        return all(
            (member.token, group.round - 1) in self.back or len(self.here.get(member.token, ())) >= member.slots
            for member in awaited
        )

    def _place(self, member: Member, local_rank: int) -> bytes:
        order = self.group.orders[member.name]
        place = (order["rank"] + local_rank, order["world"], local_rank, member.slots, order["index"], order["members"])
        return ",".join(map(str, place)).encode()


class Asked(Handler):
    """One request of a rank's: ``/TOKEN:PORT/SCOPE/KEY``."""

    server: Store

    def parse_request(self) -> bool:
        """See ``BaseHTTPRequestHandler``. Whoever has no token has asked for nothing."""
        if not super().parse_request():
            return False
        token, _, path = self.path[1:].partition("/")
        self.member = self.server.admit(token.rpartition(":")[0])
        self.path: str = "/" + path
        if self.member is None:
            self._answer(403)
        return self.member is not None

    def do_GET(self) -> None:
        """A place, once there is one, or a value."""
        scope, _, key = self.path[1:].partition("/")
        if scope != PLACES or self.member is None:
            super().do_GET()
            return
        name, _, local_rank = key.rpartition(":")
        known = name == self.member.name and local_rank in map(str, range(self.member.slots))
        place = self.server.place(self.member, local_rank) if known else None
        self._answer(200 if place else 410, place or b"")

    def do_PUT(self) -> None:
        """Write a value, as ever."""
        super().do_PUT()
        scope, _, key = self.path[1:].partition("/")
        if scope == ALL and self.member is not None:
            self.server.note(self.member, key)
