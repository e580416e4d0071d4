"""Pages that attack who passes them on: Airflow's own pages, and other clusters', are answered all the same."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import ClientConnection, connect

from practicus_provider.proxy import budgets
from tests.attacks.pages import (
    AT_ONCE,
    ATTACKS,
    PATIENCE,
    Page,
    Visitors,
    airflow_with_a_dag,
    browser,
    opened_pages,
)
from tests.e2e.airflow_home import Airflow, eventually

LOOKS = 5
"""Pages that are looked at while an attack goes on."""


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    with airflow_with_a_dag(tmp_path_factory.mktemp("attacked")) as airflow:
        yield airflow


@pytest.fixture(scope="module")
def pages(airflow: Airflow) -> Iterator[list[Page]]:
    with opened_pages(airflow) as pages:
        yield pages


def all_is_well(airflow: Airflow, honest: Page) -> None:
    """Airflow's own page, and that of a cluster that attacks nobody, are there."""
    for _ in range(LOOKS):
        assert browser.get(f"{airflow.url}/api/v2/version").status_code == 200
        assert browser.get(f"{honest.url}/fine").text == "fine"


@pytest.mark.parametrize("attack", ATTACKS)
def test_airflow_and_other_dashboards_answer_while_three_tickets_attack(
    airflow: Airflow, pages: list[Page], attack: str
) -> None:
    *attackers, honest = pages
    before = [page.attacks()[1] for page in attackers]
    with Visitors([f"{page.url}{attack}" for page in attackers for _ in range(AT_ONCE)]):
        for page, begun in zip(attackers, before, strict=True):
            eventually("it attacks", lambda page=page, begun=begun: page.attacks()[1] > begun, PATIENCE)
        all_is_well(airflow, honest)


def test_a_hundred_dripping_requests_of_one_ticket_leave_room_for_the_others(
    airflow: Airflow, pages: list[Page]
) -> None:
    attacker, *_, honest = pages
    with Visitors([f"{attacker.url}/dripping-body"] * 100):
        eventually("it has taken all that it may", lambda: attacker.attacks()[0] >= budgets.PER_TICKET, PATIENCE)
        all_is_well(airflow, honest)
        assert attacker.attacks()[0] == budgets.PER_TICKET


@pytest.mark.parametrize("attack", ["/silent", "/dripping-head", "/dripping-body", "/endless-body", "/large-messages"])
def test_nothing_is_fetched_any_more_for_whoever_has_left(pages: list[Page], attack: str) -> None:
    attacker = pages[0]
    with Visitors([f"{attacker.url}{attack}"] * AT_ONCE):
        eventually("it attacks", lambda: attacker.attacks()[0] == AT_ONCE, PATIENCE)
    eventually("its attacks have ended", lambda: attacker.attacks()[0] == 0, PATIENCE)


@pytest.mark.parametrize(
    ("attack", "status", "words"),
    [
        ("/interim", 502, "it sent more than 8 interim answers (HTTP 1xx) before its answer"),
        ("/headers", 502, "the head of its answer is larger than 32 KiB"),
        ("/header", 502, "the head of its answer is larger than 32 KiB"),
        ("/huger-length", 502, "what it answers is not HTTP: bad Content-Length"),
        ("/no-http", 502, "what it answers is not HTTP: illegal status line"),
        ("/no-status", 502, "its answer has the status 999, which is none of HTTP"),
        ("/multipart", 502, "its answer is of several parts (Content-Type: multipart/x-mixed-replace; boundary=b)"),
    ],
)
def test_an_answer_that_is_not_passed_on_is_a_page_that_says_why(
    pages: list[Page], attack: str, status: int, words: str
) -> None:
    answer = browser.get(f"{pages[0].url}{attack}")
    assert (answer.status_code, words in answer.text) == (status, True), answer.text
    assert answer.headers["content-security-policy"].startswith("sandbox; default-src 'none'; ")


@pytest.mark.parametrize("status", [203, 299, 418, 499, 599])
def test_a_status_that_nobody_knows_is_passed_on(pages: list[Page], status: int) -> None:
    answer = browser.get(f"{pages[0].url}/status-{status}")
    assert (answer.status_code, answer.text) == (status, "fine")


@pytest.mark.parametrize("attack", ["/endless-chunk-size", "/endless-trailer"])
def test_an_answer_that_turns_out_to_be_none_is_not_taken_for_whole(pages: list[Page], attack: str) -> None:
    with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
        browser.get(f"{pages[0].url}{attack}")


def test_a_page_leads_nowhere_by_its_headers(pages: list[Page]) -> None:
    answer = browser.get(f"{pages[0].url}/refresh")
    assert answer.status_code == 200
    assert not {"refresh", "link", "alt-svc"} & set(answer.headers)


def test_a_page_s_redirections_stay_below_its_ticket(pages: list[Page]) -> None:
    answer = browser.get(f"{pages[0].url}/out")
    assert (answer.status_code, answer.headers["location"]) == (302, f"{urlsplit(pages[0].url).path}/auth/login")


def socket_of(page: Page, path: str) -> ClientConnection:
    return connect(f"{page.url}{path}".replace("http", "ws", 1), open_timeout=PATIENCE)


QUIET = "more than 20 frames in a second carry nothing: pings, or empty parts of a message"


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        ("/empty-continuations", QUIET),
        ("/pings", QUIET),
        ("/pongs", QUIET),
        ("/frames-of-a-byte", "a message is cut into more than 4096 frames"),
        ("/too-large-message", "a message is larger than 2 MiB"),
        ("/malformed-deflate", "what it sends is no WebSocket's: reserved bits must be 0"),
        ("/no-frame", "what it sends is no WebSocket's: invalid opcode"),
    ],
)
def test_a_websocket_that_costs_too_much_is_closed_and_says_why(pages: list[Page], attack: str, words: str) -> None:
    with socket_of(pages[0], attack) as websocket, pytest.raises(ConnectionClosedError) as closed:  # noqa: PT012
        while True:
            websocket.recv(PATIENCE)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1011, words)


def test_a_page_s_messages_and_answers_come_through(pages: list[Page]) -> None:
    with socket_of(pages[0], "/fine-socket") as websocket:
        assert websocket.recv(PATIENCE) == "fine"
        websocket.send("x" * (budgets.MESSAGE + 1))
        with pytest.raises(ConnectionClosedError, match="a message is larger than 2 MiB"):
            websocket.recv(PATIENCE)


def test_the_proxy_is_there_again_after_it_was_killed(airflow: Airflow, pages: list[Page]) -> None:
    found = psutil.Process(airflow.process.pid).children(recursive=True)
    (proxy,) = [process for process in found if "practicus_provider.proxy" in process.cmdline()]
    proxy.kill()
    eventually("it has ended", lambda: not proxy.is_running() or proxy.status() == psutil.STATUS_ZOMBIE)
    eventually("there is another", lambda: browser.get(f"{pages[0].url}/fine").text == "fine", PATIENCE)
    all_is_well(airflow, pages[0])


def test_no_ticket_is_in_the_log_of_who_asked_for_what(airflow: Airflow, pages: list[Page]) -> None:
    log = (airflow.home / "standalone.log").read_text()
    assert "/practicus/pages/.../fine" in log
    for page in pages:
        assert page.url.rpartition("/")[2] not in log
