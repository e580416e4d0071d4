"""Clusters whose pages attack who passes them on, and browsers that look at them through Airflow."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import selectors
import socket
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from practicus_provider.backends.base import Handle
from practicus_provider.backends.local import LocalBackend
from practicus_provider.backends.local.folder import ClusterFolder
from practicus_provider.plan import Here, Launch, Plan, Port, Role
from tests.attacks import hostile
from tests.e2e.airflow_home import Airflow, eventually, framed, running
from tests.local import running as running_now
from tests.plans import TASK, created

ATTACKERS = 3
"""Clusters that attack; one more does not."""
AT_ONCE = 6
"""Connections of each, as a browser's to one server."""
PATIENCE = 10.0
"""Seconds that a page has to be there: some hundred times what it takes. Attacks last until they are ended."""


browser = httpx.Client(timeout=PATIENCE)


@contextlib.contextmanager
def airflow_with_a_dag(folder: Path) -> Iterator[Airflow]:
    """An Airflow that has the DAG whose clusters these are."""
    (folder / "dags").mkdir()
    (folder / "dags" / "d.py").write_text(
        f"from airflow.sdk import DAG\n\ndag = DAG({TASK['dag_id']!r}, schedule=None)\n"
    )
    with running(folder / "airflow", [folder / "dags"], all_admins=False) as airflow:
        eventually("the DAG is parsed", lambda: airflow.found(f"/api/v2/dags/{TASK['dag_id']}"))
        yield airflow


@dataclass(frozen=True)
class Page:
    """Of a cluster that serves :mod:`tests.attacks.hostile`.

    :param url: with a ticket.
    :param port: where it is served on this machine, past Airflow.
    """

    url: str
    port: int

    def attacks(self) -> tuple[int, int]:
        """How many go on, and how many there were."""
        going_on, begun = browser.get(f"http://127.0.0.1:{self.port}/attacks").text.split()
        return int(going_on), int(begun)


HOSTILE = Path(hostile.__file__).read_text()
PAGE = Port("driver", "page")


@contextlib.asynccontextmanager
async def clusters(backend: LocalBackend) -> AsyncIterator[list[Handle]]:
    role = Role("driver", Launch((Here.PYTHON, "-c", HOSTILE), env={"PAGE": PAGE}, ports={"page": 9000}))
    plan = Plan("test", (role,), "driver", 3600.0, links={"Page": PAGE})
    async with contextlib.AsyncExitStack() as stack:
        names = [f"c-hostile-{number}" for number in range(ATTACKERS + 1)]
        handles = [await stack.enter_async_context(created(backend, name, plan)) for name in names]
        for handle in handles:
            await running_now(backend, handle)
        yield handles


def opened(airflow: Airflow, handle: Handle) -> Page:
    link = f"{airflow.url}/practicus/clusters/{TASK['dag_id']}/practicus_default/{handle.name}"
    answer = browser.get(link, headers={"Cookie": f"_token={airflow.token}"})
    assert answer.status_code == 200, answer.text
    page = f"{airflow.url}{framed(answer.text)}"
    eventually("the page is there", lambda: browser.get(f"{page}fine").text == "fine")
    ports = ClusterFolder(airflow.home / "practicus" / handle.name).read("ports.json")
    return Page(page.removesuffix("/"), ports["driver"]["page"])


class Visitors(threading.Thread):
    """Who look at pages, read all that comes, and look again when it has ended."""

    def __init__(self, urls: Sequence[str]) -> None:
        super().__init__(daemon=True)
        self._urls = urls
        self._over = threading.Event()

    def run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for url in self._urls:
                selector.register(self._ask(url), selectors.EVENT_READ, url)
            while not self._over.is_set():
                for key, _ in selector.select(0.1):
                    connection: socket.socket = key.fileobj  # type: ignore[assignment]
                    with contextlib.suppress(OSError):
                        if connection.recv(1 << 16):
                            continue
                    selector.unregister(connection)
                    connection.close()
                    self._over.wait(0.05)
                    selector.register(self._ask(key.data), selectors.EVENT_READ, key.data)
            for key in list(selector.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]

    def _ask(self, url: str) -> socket.socket:
        to = urlsplit(url)
        connection = socket.create_connection((str(to.hostname), int(to.port or 80)))
        lines = [f"GET {to.path} HTTP/1.1", "Host: airflow", "Accept-Encoding: gzip"]
        if f"/{to.path.rpartition('/')[2]}" in hostile.SOCKETS:
            key = base64.b64encode(bytes(16)).decode()
            lines += ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
            lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Extensions: permessage-deflate"]
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        return connection

    def __enter__(self) -> Visitors:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()


@contextlib.contextmanager
def opened_pages(airflow: Airflow) -> Iterator[list[Page]]:
    """Of those who attack, and last of one who does not."""
    with asyncio.Runner() as runner:
        context = clusters(LocalBackend(airflow.home / "practicus"))
        handles = runner.run(context.__aenter__())
        try:
            yield [opened(airflow, handle) for handle in handles]
        finally:
            runner.run(context.__aexit__(None, None, None))


HARMLESS = {"/fine", "/fine-socket", "/refresh", "/out"}
ATTACKS = sorted(path for path in {*hostile.HTTP, *hostile.SOCKETS} - HARMLESS if "status-" not in path)
