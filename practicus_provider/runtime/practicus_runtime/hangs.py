"""Finds a job in which no rank says anything any more, shows where each of them is, and says which fell silent first.

The runner of each replica reads what its own ranks write, and tells that of the first replica how long ago each has
written something: silence of one rank is no hang, as most jobs have rank 0 write for all. The first one knows of all,
whoever reads the log, and so nothing beside the replicas has to be alive. It hears those alone that hold the cluster's
key, and is believed for the same reason: a neighbour on the machine can neither end a job nor keep one that hangs.

A rank shows its stack by ``faulthandler``, which answers a signal from C, also where the rank waits in C for a peer and
runs no Python. ``py-spy`` would show C's frames too, but needs a package, and to trace processes, which a container may
not.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import threading
import time
from typing import Mapping

from practicus_runtime.channel import Channel, Listener, Message, NoMessage
from practicus_runtime.waiting import Wait

from .contract import End, Env, writable

STACK_SIGNAL = signal.SIGRTMIN + 9 if hasattr(signal, "SIGRTMIN") else signal.SIGUSR2
"""Asks a rank for its stack. SIGUSR1 and SIGUSR2 are the applications', and of schedulers that they know."""
EXIT_CODE = 124
"""Of a replica whose job hangs, as that of ``timeout(1)``."""
PATIENCE = 3.0
"""Seconds that the first replica waits for the others' stacks, and these for it to have written them."""
STACK_PATIENCE = 1.0
"""Seconds that a rank has to write its stack."""
STACK_LIMIT = 64 << 10
"""Bytes of a rank's stack, from its end on, where the main thread is."""
MESSAGE_LIMIT = 16 << 20
"""Bytes of a message: the stacks of a replica's ranks."""


class Peer:
    """Another replica, as the first one knows it.

    :ivar heard: rank -> when it last wrote something, by our clock; None: it has not yet.
    :ivar stacks: rank -> its stack, once they were asked for and have come.
    """

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.open = True
        self.heard: dict[int, float | None] = {}
        self.stacks: dict[int, str] | None = None

    def hear(self, message: Message) -> None:
        """Take what it says.

        :raises NoMessage: it is nothing that it may say.
        """
        try:
            if "ages" in message:
                now = time.monotonic()
                self.heard = {int(rank): None if age is None else now - age for rank, age in message["ages"].items()}
            elif "stacks" in message:
                self.stacks = {int(rank): writable(text) for rank, text in message["stacks"].items()}
        except (AttributeError, OverflowError, TypeError, ValueError):
            raise NoMessage("what it says of its ranks is wrong") from None


class Watch:
    """What one replica's runner does about hangs.

    :param timeout: seconds in which some rank has to write something.
    :param number: of replicas.
    :param first: whether this is the first replica.
    """

    def __init__(self, timeout: float, number: int, first: bool) -> None:
        self.timeout = timeout
        self.number = number
        self.period = min(1.0, timeout / 10)
        self.next_look = 0.0
        self.address = os.environ[Env.HANGS_ADDR], int(os.environ[Env.HANGS_PORT])
        self.key = os.environ.pop(Env.KEY)  # ranks have no use for it
        self.changed = threading.Condition()
        self.peers: list[Peer] = []
        self.listener: Listener | None = None
        if first:
            self.listener = Listener(os.environ[Env.HOST], self.address[1], self.key, self._attend)
        self.listening = False
        self.channel: Channel | None = None  # to the first replica, where we are another one
        self.wait = Wait("worker-0", *self.address, connect=self._join)
        self.last: float | None = None  # that any rank wrote something; None until all replicas are there

    @classmethod
    def of(cls, first_rank: int) -> Watch:
        """The one that the environment asks for.

        :param first_rank: of this replica.
        """
        timeout = float(os.environ[Env.PROGRESS_TIMEOUT])
        return cls(timeout, int(os.environ["GROUP_WORLD_SIZE"]), first_rank == 0)

    def connected(self) -> bool:
        """Whether the first replica can know of this one.

        :raises SystemExit: it cannot, for too long.
        """
        return self.listener is not None or self.wait.over()

    def _join(self) -> None:
        with contextlib.ExitStack() as undo:
            connection = undo.enter_context(socket.create_connection(self.address, timeout=1.0))
            channel = Channel(connection)
            channel.introduce(self.key)
            connection.settimeout(1.0)
            undo.pop_all()
            self.channel = channel

    def waits(self) -> bool:
        """Whether other replicas may still come or hang, which only this one would know."""
        if self.listener is None:
            return False
        return len(self.peers) < self.number - 1 or any(peer.open for peer in self.peers)

    def look(self, heard: Mapping[int, float | None], pids: Mapping[int, int]) -> End | None:
        """How this replica has failed, if the job hangs. By then the stacks are written.

        :param heard: rank -> when it last wrote something, of those that run here; None: it has not yet.
        :param pids: of those ranks.
        """
        now = time.monotonic()
        if now < self.next_look:
            return None
        self.next_look = now + self.period
        if self.listener is None:
            return self._tell(heard, pids, now)
        if not self.listening:  # not before the ranks were started: threads and forks do not go together
            self.listening = True
            self.listener.start()
        everyone = dict(heard)
        for peer in self.peers:
            everyone.update(peer.heard if peer.open else {})
        times = [at for at in everyone.values() if at is not None]
        if self.last is None:
            if len(self.peers) < self.number - 1:
                return None
            self.last = now
        self.last = max([self.last, *times])
        if not everyone or now - self.last < self.timeout:
            return None
        spoke = {rank: at for rank, at in everyone.items() if at is not None} or dict.fromkeys(everyone, self.last)
        rank = min(spoke, key=lambda rank: (spoke[rank], rank))
        silent = round(now - spoke[rank], 1)
        return self._end(End(EXIT_CODE, rank=rank, at=time.time(), silent=silent), pids)

    def _attend(self, channel: Channel) -> None:
        """Hear another replica until it is gone."""
        peer = Peer(channel)
        self.peers.append(peer)
        try:
            while True:
                for message in channel.take(MESSAGE_LIMIT):
                    with self.changed:
                        peer.hear(message)
                        self.changed.notify_all()
        finally:
            with self.changed:
                peer.open = False
                self.changed.notify_all()

    def _tell(self, heard: Mapping[int, float | None], pids: Mapping[int, int], now: float) -> End | None:
        """Tell the first replica; once it says that the job hangs, it is ours too."""
        if self.channel is None:
            return None
        self.channel.send(ages={rank: None if at is None else now - at for rank, at in heard.items()})
        try:
            said = self.channel.take() if readable(self.channel.connection) else []
        except OSError:  # it has ended, well or not
            self.channel.connection.close()
            self.channel = None
            return None
        hang = next((End.from_json(message["hang"]) for message in said if "hang" in message), None)
        if hang is None:
            return None
        found = stacks(pids)
        show(found)
        self.channel.send(stacks=found)
        self.channel.connection.settimeout(2 * PATIENCE)
        with contextlib.suppress(OSError):
            self.channel.take()  # nothing comes: it closes once it has written all
        return failure(hang, pids)

    def _end(self, hang: End, pids: Mapping[int, int]) -> End:
        """Have every replica show its stacks, and end."""
        peers = [peer for peer in self.peers if peer.open]
        for peer in peers:
            peer.channel.send(hang=hang.to_json())
        found = stacks(pids)
        with self.changed:
            self.changed.wait_for(lambda: all(peer.stacks is not None or not peer.open for peer in peers), PATIENCE)
        for peer in peers:
            found.update(peer.stacks or {})
        print(f"no rank has written anything for {self.timeout:g} s; where each of them is:", flush=True)
        show(found)
        for peer in peers:
            with contextlib.suppress(OSError):
                peer.channel.connection.shutdown(socket.SHUT_RDWR)
        return failure(hang, pids)


def failure(hang: End, pids: Mapping[int, int]) -> End:
    """As which a replica's failure counts: that of the one which has the rank comes first."""
    return hang if hang.rank in pids else hang._replace(rank=min(pids, default=None), at=(hang.at or 0.0) + 1)


def stack_file(rank: int) -> str:
    """Where a rank writes its stack."""
    return f"{os.environ[Env.FAILURE]}.{rank}.stack"


def stacks(pids: Mapping[int, int]) -> dict[int, str]:
    """The stacks of all threads of these ranks, the main thread's last."""
    for pid in pids.values():
        with contextlib.suppress(OSError):
            os.kill(pid, STACK_SIGNAL)
    sizes: dict[int, int] = {}
    give_up = time.monotonic() + STACK_PATIENCE
    while time.monotonic() < give_up:
        time.sleep(0.1)
        before, sizes = sizes, {rank: len(_read(rank)) for rank in pids}
        if before == sizes and all(sizes.values()):
            break
    return {rank: _read(rank)[-STACK_LIMIT:] or "it does not answer" for rank in pids}


def show(found: Mapping[int, str]) -> None:
    """Write stacks into the log, each line with its rank."""
    for rank, text in sorted(found.items()):
        print("".join(f"[rank {rank}] {line}\n" for line in text.splitlines()), end="", flush=True)


def readable(source: socket.socket) -> bool:
    """Whether there is something to read at once, or the end."""
    with selectors.DefaultSelector() as selector:
        selector.register(source, selectors.EVENT_READ)
        return bool(selector.select(0))


def _read(rank: int) -> str:
    with contextlib.suppress(OSError), open(stack_file(rank), errors="replace") as file:
        return file.read()
    return ""
