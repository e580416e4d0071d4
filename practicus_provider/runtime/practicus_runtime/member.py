"""A replica of an elastic training: ``python -m practicus_runtime.member FRAMEWORK SCRIPT ARGS...``.

It joins at the coordinator, and in each round runs the script ``LOCAL_WORLD_SIZE`` times with the ranks that it is
told. What becomes of them it tells the coordinator, and rank 0's output, which is the job's. Ranks of torch are ended
and started anew for each round. Those of Horovod stay, and ask for their new places themselves; a replica of which one
has failed ends with it, and another takes its place: so does Horovod with a host.
"""

from __future__ import annotations

import contextlib
import glob
import os
import selectors
import signal
import socket
import sys
import time
from collections import deque
from typing import Optional

from practicus_runtime.addresses import joined
from practicus_runtime.channel import Channel, Message
from practicus_runtime.ranks import PATIENCE, Output, Ranks, name_interface
from practicus_runtime.relay import by_ipv4
from practicus_runtime.waiting import Wait

from .contract import RESULT_LIMIT, End, Env, Joining, Saying
from .files import left_in

GRACE = 10.0
"""Seconds that ranks have from SIGTERM on where a round ends only because others have joined."""
TIMEOUT = 10.0
"""Seconds for one try to reach the coordinator."""
TAIL = 50
"""Lines of a rank's output that are told if it fails."""
NOTICE = "notice"
"""File in the scratch folder that tells Horovod's ranks that others have joined."""


class Replica(Ranks):
    """The processes of one replica, over all rounds. Ranks are counted from 0 here: those of the job change."""

    def __init__(self, framework: str, program: list[str]) -> None:
        self.key = os.environ.pop(Env.KEY)  # ranks have no use for it
        super().__init__(program, lambda: True, {})
        self.framework = framework
        self.named = True
        self.base = 0
        self.round: dict[str, str] = {}
        self.running = self.ordered = False
        self.failure: Optional[End] = None  # noqa: UP045  (Python 3.8)
        self.leaving: Optional[int] = None  # noqa: UP045
        self.notice = os.path.abspath(NOTICE)

    def run(self) -> int:
        """Take part until the coordinator says that the job is over; the exit code."""
        self._listen()
        name_interface()
        connection = self._reach()
        if connection is None:
            return 128 + signal.SIGTERM
        try:
            self.channel = self._join(connection)
        except OSError as error:
            print(f"cannot join: {error}", flush=True)
            return 1
        self.selector.register(self.channel.connection, selectors.EVENT_READ, self)
        while self.leaving is None or self.processes:
            self._look()
            if self.stopping and self.leaving is None:
                self.leaving = 128 + signal.SIGTERM
            if self.running and not self.processes:
                self._end_round()
        return self.leaving

    def _reach(self) -> Optional[socket.socket]:  # noqa: UP045  (Python 3.8)
        """A connection to the coordinator; None: we were stopped before.

        :raises SystemExit: there is none to be had.
        """
        host, _, port = os.environ[Env.COORDINATOR].rpartition(":")
        reached: list[socket.socket] = []
        wait = Wait(
            "coordinator-0",
            host,
            int(port),
            connect=lambda: reached.append(socket.create_connection((host, int(port)), timeout=TIMEOUT)),
        )
        while not wait.over():
            if self.stopping:
                return None
        return reached[0]

    def _join(self, connection: socket.socket) -> Channel:
        channel = Channel(connection)
        channel.introduce(self.key)
        name = f"{os.environ[Env.ROLE]}-{os.environ[Env.INDEX]}"
        address, port = os.environ[Env.HOST], os.environ["MASTER_PORT"]
        channel.send(**Joining(name, address, int(port), self.number).to_json())
        return channel

    # ---- what the coordinator says

    def take(self) -> bool:
        """Obey what has come; whether more may."""
        try:
            messages = self.channel.take()
        except OSError as error:
            if self.leaving is None:
                print(f"lost the coordinator: {error}", flush=True)
                self._leave(1)
            return False
        for message in messages:
            self._obey(message)
        return True

    def _obey(self, order: Message) -> None:
        if order["do"] == "run" and self.leaving is None:
            self._begin_round(order)
        elif order["do"] == "stop" and self.running:
            self.ordered = True
            self._quit(GRACE if order["gently"] else PATIENCE)
        elif order["do"] == "notice":
            with open(self.notice + ".new", "w") as file:
                file.write(str(order["round"]))
            os.replace(self.notice + ".new", self.notice)
        elif order["do"] == "end":
            self._leave(0)

    def _begin_round(self, order: Message) -> None:
        self.base = order["rank"]
        if self.processes:  # Horovod's, which have come back
            return
        self.ordered, self.failure = False, None
        self.status = 0
        self.kill_at: Optional[float] = None  # noqa: UP045
        for variable in (Env.FAILURE, Env.RESULT):
            for path in glob.glob(glob.escape(os.environ[variable]) + "*"):  # what an earlier round has left
                os.remove(path)
        self.round = environment(self.framework, order, self.notice)
        for local_rank in range(self.number):
            self._start(local_rank)
        self.running = True

    def _quit(self, patience: float) -> None:
        self._signal_all(signal.SIGTERM)
        self.kill_at = time.monotonic() + patience

    def _leave(self, code: int) -> None:
        self.leaving = code
        self._quit(PATIENCE)

    # ---- what becomes of the ranks

    def _environment(self, local_rank: int) -> dict[str, str]:
        env: dict[str, str] = super()._environment(local_rank)
        if self.framework == "horovod":
            env.update(HOROVOD_RANK=env["RANK"], HOROVOD_LOCAL_RANK=env["LOCAL_RANK"])
            env.setdefault("HOROVOD_GLOO_IFACE", env.get("GLOO_SOCKET_IFNAME", ""))
        return env

    def _place(self, local_rank: int) -> dict[str, str]:
        return {**self.round, "RANK": str(self.base + local_rank), "LOCAL_RANK": str(local_rank)}

    def _output(self, source: int, rank: int) -> Output:
        return Told(source, self, rank)

    def _fail(self, failure: End) -> None:
        if self.ordered or self.stopping or self.leaving is not None:
            return
        self.culprit = failure.rank or 0
        self.failure = failure._replace(rank=self.base + self.culprit)
        super()._fail(self.failure)

    def _end_round(self) -> None:
        self.running = False
        outputs: dict[int, Told] = self.outputs
        tails = {rank: output.close(self.selector) for rank, output in outputs.items()}
        outputs.clear()
        if self.leaving is not None:
            return
        if self.ordered:
            self._say(Saying("free"))
        elif self.failure:
            self._say(Saying("failed", tails[self.culprit], self.failure))
            if self.framework == "horovod":
                self._leave(128 - self.status if self.status < 0 else self.status)
        else:
            result = left_in(os.environ[Env.RESULT], RESULT_LIMIT).decode(errors="replace")
            self._say(Saying("done", result=result or None))

    def _say(self, saying: Saying) -> None:
        self.channel.send(**saying.to_json())


class Told(Output):
    """What one rank writes; if it is rank 0, the coordinator is told, whose log is the job's."""

    def __init__(self, source: int, replica: Replica, local_rank: int) -> None:
        super().__init__(source, b"")
        self.replica = replica
        self.local_rank = local_rank
        self.tail: deque[str] = deque(maxlen=TAIL)

    def _write(self, lines: list[bytes]) -> None:
        rank = self.replica.base + self.local_rank
        self.prefix = f"[rank {rank}] ".encode()
        super()._write(lines)
        texts = [line.decode(errors="replace") for line in lines]
        self.tail.extend(texts)
        if rank == 0 and texts:
            self.replica.channel.send(**Saying("lines", texts).to_json())

    def close(self, selector: selectors.BaseSelector) -> list[str]:
        """Pass on what is left; the last lines of all."""
        self.end()
        with contextlib.suppress(KeyError):
            selector.unregister(self.source)
        os.close(self.source)
        return list(self.tail)


def environment(framework: str, order: Message, notice: str) -> dict[str, str]:
    """What all ranks of a replica are told of a round."""
    if framework == "torch":
        return {
            "WORLD_SIZE": str(order["world"]),
            "GROUP_RANK": str(order["index"]),
            "GROUP_WORLD_SIZE": str(order["members"]),
            "MASTER_ADDR": order["master"][0],
            "MASTER_PORT": str(order["master"][1]),
            "TORCHELASTIC_RESTART_COUNT": str(order["round"] - 1),
            "TORCHELASTIC_MAX_RESTARTS": str(order["max_restarts"]),
        }
    host, _, port = os.environ[Env.STORE].rpartition(":")
    store = joined(*by_ipv4(host, int(port)))
    return {
        "WORLD_SIZE": str(order["world"]),
        "HOROVOD_SIZE": str(order["world"]),
        "HOROVOD_LOCAL_SIZE": os.environ["LOCAL_WORLD_SIZE"],
        "HOROVOD_CROSS_RANK": str(order["index"]),
        "HOROVOD_CROSS_SIZE": str(order["members"]),
        "HOROVOD_HOSTNAME": f"{os.environ[Env.ROLE]}-{os.environ[Env.INDEX]}",
        # Horovod makes a URL of address and port, and shows nothing else of who it is: so a token is made a part of it.
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": f"{store}/{order['token']}",
        "HOROVOD_GLOO_RENDEZVOUS_PORT": "0",
        Env.NOTICE: notice,
    }


if __name__ == "__main__":
    sys.exit(Replica(sys.argv[1], sys.argv[2:]).run())
