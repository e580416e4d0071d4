"""The coordinator of an elastic training: ``python -m practicus_runtime.elastic FRAMEWORK ADDRESS PORT STORE_PORT``.

Replicas join here, and are told when to run which ranks; see ``practicus_runtime.membership``. It asks the backend for
those that are missing, and its end is the job's: well once all ranks have ended well, else with the failure that came
first. It runs nothing of the user's.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import Optional

from practicus_runtime import control
from practicus_runtime.channel import Channel, Listener, Message, NoMessage
from practicus_runtime.horovod_store import Store
from practicus_runtime.membership import Group, Member, Phase

from .contract import Env, Joining, Limits, Saying

TICK = 0.5
"""Seconds between two looks at what time alone brings about."""
HIRE = 2.0
"""Seconds between two looks for members that are missing."""


class Coordinator:
    """Listens for replicas, and leads them."""

    def __init__(self, address: str, port: int, group: Group) -> None:
        self.group = group
        self.changed = threading.Condition()
        self.listener = Listener(address, port, os.environ[Env.KEY], self.attend)

    def run(self) -> None:
        """Lead until the job is over."""
        self.listener.start()
        threading.Thread(target=self._hire, daemon=True).start()
        with self.changed:
            while self.group.phase is not Phase.OVER:
                before = self.group.round
                self.group.step(time.monotonic())
                if self.group.round > before:
                    say(f"round {self.group.round}: {' '.join(self.group.present)}")
                    self.changed.notify_all()
                elif self.group.phase is not Phase.OVER:
                    self.changed.wait(TICK)
            self.changed.notify_all()

    def attend(self, channel: Channel) -> None:
        """Hear one replica until it is gone.

        :raises OSError: it is.
        """
        member: Optional[Member] = None  # noqa: UP045  (Python 3.8)
        try:
            while True:
                for message in channel.take():
                    if member is None:
                        member = self._joined(message, channel)
                    else:
                        self._hear(member, message)
        finally:
            with self.changed:
                if member is not None and self._is_here(member):
                    self.group.leave(member.name)
                    self.changed.notify_all()

    def _joined(self, message: Message, channel: Channel) -> Member:
        joining = Joining.from_json(message)
        if joining is None:
            raise NoMessage("what it says of itself is wrong")
        member = Member(*joining, tell=channel.send)
        with self.changed:
            self.group.join(member, time.monotonic())
            self.changed.notify_all()
        return member

    def _is_here(self, member: Member) -> bool:
        """It may have been sent away, and another one have come under its name."""
        return self.group.members.get(member.name) is member

    def _hear(self, member: Member, message: Message) -> None:
        saying = Saying.from_json(message)
        if saying is None:
            raise NoMessage(f"what {member.name} says is wrong")
        if saying.say == "lines":
            say(*saying.lines)
            return
        with self.changed:
            if not self._is_here(member):
                return
            if saying.say == "free":
                self.group.free(member.name)
            elif saying.say == "failed":
                end = saying.failure
                how = f"was killed by signal {end.signal}" if end.signal else f"exited with code {end.exit_code}"
                say(f"rank {end.rank} ({member.name}) {how}")
                self.group.fail(member.name, end, saying.lines)
            else:
                self.group.finish(member.name, saying.result)
            self.changed.notify_all()

    def _hire(self) -> None:
        """Have the backend start what is missing; what is on its way it does not start twice."""
        said = ""
        while True:
            with self.changed:
                wanted = self.group.wanted
                missing = len(self.group.members) < wanted
            if missing:
                try:
                    control.scale(os.environ[Env.SPAWNS], wanted)
                    said = ""
                except Exception as error:  # a quota, say, or an outage: it may be over next time
                    if str(error) != said:
                        say(f"cannot have {wanted} workers now: {error}")
                    said = str(error)
            time.sleep(HIRE)


def say(*lines: str) -> None:
    """Write lines into the job's log, in one piece each time: several threads do."""
    sys.stdout.write("".join(line + "\n" for line in lines))
    sys.stdout.flush()


def main(framework: str, address: str, port: str, store_port: str) -> int:
    """Lead a job; the exit code."""
    limits = Limits.from_json(json.loads(os.environ[Env.ELASTIC]))
    group = Group(limits, stops=framework == "torch")
    coordinator = Coordinator(address, int(port), group)
    if framework == "horovod":
        store = Store(address, int(store_port), group, coordinator.changed)
        threading.Thread(target=store.serve_forever, daemon=True).start()
    coordinator.run()
    if not group.why:
        if group.result is not None:
            with open(os.environ[Env.RESULT], "w") as file:
                file.write(group.result)
        return 0
    say(group.why)
    if group.cause:
        end, tail = group.cause
        with open(os.environ[Env.FAILURE], "w") as file:
            json.dump(end.to_json(), file)
        say(*(f"[rank {end.rank}] {line}" for line in tail))
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
