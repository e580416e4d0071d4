"""What the API server has, kept up to date: list, then watch from there on."""

from __future__ import annotations

import http.client
import json
import logging
import socket
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, Protocol, TypeVar

from tests.cluster.api import Api

T = TypeVar("T")
_log = logging.getLogger(__name__)
_GONE = 410


class Expired(Exception):
    """What happened since cannot be told any more: list again."""


class Source(Protocol):
    """Answers GET with JSON objects, one a line."""

    def lines(self, path: str) -> Iterator[bytes]: ...


class Client(Api):
    """An API server whose answers may take for ever."""

    def lines(self, path: str) -> Iterator[bytes]:
        """The lines of an answer, each as soon as it comes.

        :raises OSError: nobody answers, or not this.
        """
        server = urllib.parse.urlsplit(self._server)
        assert server.hostname
        connection = http.client.HTTPSConnection(server.hostname, server.port, context=self._ssl, timeout=10)
        try:
            connection.connect()
            connection.sock.settimeout(None)
            # A server that vanishes says nothing, and a watch has nothing to ask it: but its kernel does not answer.
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in ((socket.TCP_KEEPIDLE, 5), (socket.TCP_KEEPINTVL, 2), (socket.TCP_KEEPCNT, 3)):
                connection.sock.setsockopt(socket.IPPROTO_TCP, option, value)
            connection.request("GET", path, headers={"User-Agent": "practicus-test-policy"})
            answer = connection.getresponse()
            if answer.status == _GONE:
                raise Expired
            if answer.status != http.client.OK:
                raise OSError(f"{path}: {answer.status} {answer.read(500).decode(errors='replace')}")
            yield from answer
        finally:
            connection.close()


class Watch(Generic[T]):
    """All objects of a resource."""

    def __init__(
        self,
        source: Source,
        path: str,
        parse: Callable[[Mapping[str, Any]], T | None],
        changed: Callable[[], None],
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """:param parse: None for an object that is of no interest.
        :param changed: called after every list and every change."""
        self._source = source
        self._path = path
        self._parse = parse
        self._changed = changed
        self._pause = pause
        self._version = ""
        self.objects: Mapping[str, T] = {}
        """By their UID. Never changed, only replaced, so that any thread may read it."""
        self.current = False
        """Whether the objects are what the server has, as far as it has told; not while it cannot be asked."""

    def run(self) -> None:
        """Keep it up to date, for ever."""
        delay = 0.0
        while True:
            try:
                self.relist()
                delay = 0.0
                while True:
                    self.follow()
            except Expired:
                _log.info("%s: listing again", self._path)
            except (OSError, http.client.HTTPException, json.JSONDecodeError) as error:
                _log.warning("%s: %s", self._path, error)
                delay = min(2 * delay or 0.25, 5.0)
            self.current = False
            self._pause(delay)

    def relist(self) -> None:
        answer = json.loads(b"".join(self._source.lines(self._path)))
        self._version = answer["metadata"]["resourceVersion"]
        parsed = {each["metadata"]["uid"]: self._parse(each) for each in answer["items"]}
        self.objects = {uid: each for uid, each in parsed.items() if each is not None}
        self.current = True
        self._changed()

    def follow(self) -> None:
        """Watch until the server has had enough; it tells with bookmarks from where to go on."""
        query = f"watch=true&allowWatchBookmarks=true&timeoutSeconds=600&resourceVersion={self._version}"
        for line in self._source.lines(f"{self._path}?{query}"):
            event = json.loads(line)
            if event["type"] == "ERROR":
                if event["object"].get("code") == _GONE:
                    raise Expired
                raise OSError(event["object"].get("message"))
            self._version = event["object"]["metadata"]["resourceVersion"]
            if event["type"] != "BOOKMARK":
                self._take(event["type"], event["object"])

    def _take(self, type: str, raw: Mapping[str, Any]) -> None:
        uid = raw["metadata"]["uid"]
        parsed = self._parse(raw) if type != "DELETED" else None
        if parsed != self.objects.get(uid):
            others = {key: each for key, each in self.objects.items() if key != uid}
            self.objects = others if parsed is None else {**others, uid: parsed}
            self._changed()
