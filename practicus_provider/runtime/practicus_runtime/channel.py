"""Messages between replicas, one of which leads: JSON lines over one connection. It leads an elastic training, or hears
of ranks that say nothing; the others are its members.

Before the first one, both sides show that they hold the cluster's key, each by an HMAC of what the other has made up.
The key itself never travels, and nobody without it can join, nor lead members astray. What is read is JSON and nothing
else: no message can have code run.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import secrets
import socket
import socketserver
import threading
import time
from typing import Any, Callable, Dict

from practicus_runtime.addresses import family

LIMIT = 4 << 20
"""Bytes of a message: a result and a rank's last lines, with room to spare."""
STRANGER_LIMIT = 1024
"""Likewise of one whose sender has shown nothing yet."""
STRANGER_PATIENCE = 10.0
"""Seconds in which it must."""
REFUSALS = 10.0
"""Seconds between two lines of the log that tell of somebody who was refused: nobody may fill it so."""
SILENCE = 20
"""Seconds after which a machine that does not answer is lost, and its connection with it."""
Message = Dict[str, Any]


class NoMessage(ConnectionError):
    """What came is nothing that the other side may say."""


class Stranger(PermissionError):
    """The other side does not hold the key."""


class Channel:
    """One side of a connection; several threads may send."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.rest = b""
        self.sending = threading.Lock()
        notice_loss(connection)

    def send(self, **message: Any) -> None:
        """Send a message. If the other side is gone it is lost, as reading shows."""
        with contextlib.suppress(OSError), self.sending:
            self.connection.sendall(json.dumps(message).encode() + b"\n")

    def take(self, limit: int = LIMIT) -> list[Message]:
        """Wait for something to come; the messages that are whole with it, perhaps none.

        :raises OSError: the other side is gone, or sends what is no message.
        """
        data = self.connection.recv(1 << 16)
        if not data:
            raise ConnectionError("the other side has closed the connection")
        *lines, self.rest = (self.rest + data).split(b"\n")
        if max(map(len, (*lines, self.rest))) > limit:
            raise NoMessage("a message is too long")
        try:
            messages = [json.loads(line) for line in lines]
        except (ValueError, RecursionError) as error:
            raise NoMessage("what came is no message") from error
        if not all(isinstance(message, dict) for message in messages):
            raise NoMessage("what came is no message")
        return messages

    def admit(self, key: str) -> None:
        """The coordinator's side of the introduction.

        :raises OSError: the other side does not hold the key.
        """
        ours = secrets.token_hex()
        self.send(nonce=ours)
        told = self._introduction()
        if not same(told.get("proof"), proof(key, "member", ours, told.get("nonce"))):
            raise Stranger("a stranger asked to join")
        self.send(proof=proof(key, "coordinator", told.get("nonce"), ours))
        self.connection.settimeout(None)

    def introduce(self, key: str) -> None:
        """The member's side.

        :raises OSError: the other side does not hold the key.
        """
        theirs = self._introduction().get("nonce")
        ours = secrets.token_hex()
        self.send(nonce=ours, proof=proof(key, "member", theirs, ours))
        if not same(self._introduction().get("proof"), proof(key, "coordinator", ours, theirs)):
            raise PermissionError("who answers is not this cluster's coordinator")
        self.connection.settimeout(None)

    def _introduction(self) -> Message:
        """The one message that comes next, soon: a stranger may keep us waiting, but not for long."""
        until = time.monotonic() + STRANGER_PATIENCE
        while True:
            self.connection.settimeout(max(0.001, until - time.monotonic()))
            messages = self.take(STRANGER_LIMIT)
            if messages:
                if len(messages) > 1 or self.rest:
                    raise NoMessage("more came than was asked for")
                return messages[0]


class Listener(socketserver.ThreadingTCPServer):
    """The coordinator's ear: who holds the key is let in, each in a thread of its own.

    :param attend: hears one member until it is gone, which an OSError tells.
    """

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 1024

    def __init__(self, address: str, port: int, key: str, attend: Callable[[Channel], None]) -> None:
        self.key = key
        self.attend = attend
        self.refusing = threading.Lock()
        self.next_refusal = 0.0
        self.address_family = family(address)
        super().__init__((address, port), Introduction)

    def start(self) -> None:
        """Listen from now on; who has come before waits until then."""
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def refused(self, address: str, why: OSError) -> None:
        """Say it in the log, if that was not done just now."""
        now = time.monotonic()
        with self.refusing:
            if now < self.next_refusal:
                return
            self.next_refusal = now + REFUSALS
        print(f"the connection of {address} was closed: {why}", flush=True)


class Introduction(socketserver.BaseRequestHandler):
    """One connection."""

    server: Listener

    def handle(self) -> None:
        """Let it in if it may, and hear it to its end."""
        try:
            channel = Channel(self.request)
            channel.admit(self.server.key)
            self.server.attend(channel)
        except (NoMessage, Stranger) as error:
            self.server.refused(self.client_address[0], error)
        except OSError:
            pass  # it is gone


def proof(key: str, who: str, theirs: Any, ours: Any) -> str:
    """That ``who`` holds the key, for the one who has made up ``theirs``."""
    return hmac.new(key.encode(), json.dumps([who, theirs, ours]).encode(), "sha256").hexdigest()


def same(given: Any, expected: str) -> bool:
    """Whether they are equal, told in a time that gives nothing away."""
    return isinstance(given, str) and hmac.compare_digest(given.encode(errors="replace"), expected.encode())


def notice_loss(connection: socket.socket) -> None:
    """Have the kernel break the connection if the other machine is gone without a word (tcp(7))."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", SILENCE // 4),
        ("TCP_KEEPINTVL", SILENCE // 4),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", SILENCE * 1000),
    ):
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
