"""Airflow's pages of our jobs, as a browser sees them: on a real Airflow, with clusters of both backends."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.e2e.airflow_home import LOCAL, REPO, Airflow, eventually, framed, running, texts
from tests.e2e.browser import clusters, headless, logged_in, picture
from tests.kubernetes import MAIN, fresh

Job = Callable[..., str]
PAGE_OF = {
    "dashboard_dask": "Dask dashboard",
    "dashboard_spark": "Spark UI",
    "dashboard_of_an_attacker": "Cluster dashboard",
}
HISTORY = "http://history.example.com:18080"
TOKENS = """
import json
from airflow.api_fastapi.app import init_auth_manager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser as User
make = init_auth_manager().generate_jwt
print(json.dumps({role: make(User(username="somebody", role=role or None)) for role in ("", "viewer", "user")}))
"""


@pytest.fixture(scope="module", params=["local", pytest.param("kubernetes", marks=pytest.mark.cluster)])
def place(request: pytest.FixtureRequest) -> Iterator[tuple[dict[str, Any], Callable[[str], str]]]:
    """A connection's extra, and which image has a framework."""
    if request.param == "local":
        yield {**LOCAL, "spark_history": HISTORY}, lambda name: ""
        return
    kubeconfig, image = str(request.getfixturevalue("kubernetes")), request.getfixturevalue("image")
    with fresh(kubeconfig) as namespace:
        overrides = {"spec": {"containers": [MAIN]}}
        extra = {"namespace": namespace.name, "kubeconfig": kubeconfig, "spark_history": HISTORY}
        yield {**extra, "pod_overrides": overrides}, image


@pytest.fixture(scope="module")
def airflow(
    place: tuple[dict[str, Any], Callable[[str], str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Airflow]:
    example = tmp_path_factory.mktemp("example")
    for path in ("plain_scripts.py", "jobs/plain_spark_pi.py", "jobs/plain_dask_pi.py"):
        (example / path).parent.mkdir(exist_ok=True)
        shutil.copy(REPO / "example_dags" / path, example / path)
    folders, more = [REPO / "tests" / "e2e" / "dags", example], {"AIRFLOW__CORE__TEST_CONNECTION": "Enabled"}
    with running(tmp_path_factory.mktemp("airflow"), folders, place[0], all_admins=False, more=more) as airflow:
        yield airflow


@pytest.fixture(scope="module")
def job(airflow: Airflow, place: tuple[dict[str, Any], Callable[[str], str]]) -> Iterator[Job]:
    """Gives the link of a DAG's job once there is something to look at; it is started once."""
    links: dict[str, str] = {}

    def job(dag_id: str, image: str = "python") -> str:
        if dag_id not in links:
            airflow.trigger(dag_id, "run", {"image": place[1](image)})
            links[dag_id] = ""
            airflow.await_state(dag_id, "run", "deferred")
            eventually(f"the job of {dag_id} says so", lambda: "look now" in airflow.log(dag_id, "run"), 300)
            links[dag_id] = f"{airflow.url}{buttons(airflow, dag_id)[PAGE_OF[dag_id]]}"
        return links[dag_id]

    yield job
    for dag_id in links:
        if airflow.task(dag_id, "run")["state"] == "deferred":
            end(airflow, dag_id)
    token = {"_token": airflow.token}
    for link in filter(None, links.values()):
        eventually("its cluster is gone", lambda link=link: httpx.get(link, cookies=token).status_code == 404)


def task(dag_id: str) -> str:
    return f"/api/v2/dags/{dag_id}/dagRuns/run/taskInstances/job"


def buttons(airflow: Airflow, dag_id: str) -> dict[str, str | None]:
    """What is on the task's page -> where it leads."""
    found: dict[str, str | None] = airflow.call("GET", f"{task(dag_id)}/links")["extra_links"]
    return found


@pytest.fixture(scope="module")
def cookies(airflow: Airflow) -> dict[str, dict[str, str]]:
    """Role -> the cookies of somebody who has it; the empty one is none."""
    command = [sys.executable, "-c", TOKENS]
    made = subprocess.run(command, env=airflow.env, capture_output=True, text=True, check=True).stdout
    return {role: {"_token": token} for role, token in json.loads(made.splitlines()[-1]).items()}


def end(airflow: Airflow, dag_id: str) -> None:
    """As the user marks the task failed; its cluster goes."""
    airflow.call("PATCH", task(dag_id), {"new_state": "failed"})


@pytest.fixture
def browser(airflow: Airflow) -> Iterator[httpx.Client]:
    """Who has logged in: Airflow's cookie goes with every request."""
    with httpx.Client(cookies={"_token": airflow.token}, timeout=60) as client:
        yield client


def opened(browser: httpx.Client, link: str, headers: dict[str, str] | None = None) -> httpx.Response:
    """What the page that a link leads to has in its frame."""
    around = browser.get(link)
    assert around.status_code == 200, around.text
    return browser.get(str(around.url.join(framed(around.text))), follow_redirects=True, headers=headers)


def test_dasks_dashboard_is_shown_with_what_its_websocket_says(job: Job, browser: httpx.Client) -> None:
    link = job("dashboard_dask", "dask")
    page = opened(browser, link)
    assert (page.status_code, page.url.path.rpartition("/")[2]) == (200, "status")
    assert "<title>Dask Diagnostic UI</title>" in page.text
    for name in ("static/js/bokeh.min.js", "statics/css/base.css", "info/main/workers.html"):
        assert httpx.get(page.url.join(name), timeout=60).status_code == 200, name
    assert httpx.get(page.url.join("json/counts.json")).json()["workers"] == 1
    assert bokeh(str(page.url), page.text) == "ACK"


def bokeh(url: str, page: str) -> str:
    """What Bokeh's server says first to the script of the page, whose document is of no origin."""
    token = json.loads(page.partition('"token":')[2].partition(",")[0])
    socket = f"ws{url.removeprefix('http')}/ws"
    with connect(socket, subprotocols=["bokeh", token], origin="null", max_size=None) as connection:
        return str(json.loads(connection.recv())["msgtype"])


def test_sparks_ui_is_shown_with_links_that_lead_below_its_own_url(job: Job, browser: httpx.Client) -> None:
    link = job("dashboard_spark", "spark")
    page = opened(browser, link)
    prefix = page.url.path.removesuffix("/jobs/")
    assert page.status_code == 200
    assert "Spark Jobs" in page.text
    assert "<head><script>" in page.text
    assert f'href="{prefix}/executors/"' in page.text
    assert f"setUIRoot('{prefix}')" in page.text
    assert httpx.get(page.url.join(f"{prefix}/executors/"), timeout=60).status_code == 200
    applications = page.url.join(f"{prefix}/api/v1/applications")
    (application,) = httpx.get(applications, timeout=60).json()
    jobs = httpx.get(f"{applications}/{application['id']}/jobs", timeout=60).json()
    assert {job["status"] for job in jobs} == {"SUCCEEDED"}


def test_a_page_gets_nothing_of_airflows_and_changes_nothing_there(job: Job, browser: httpx.Client) -> None:
    link = job("dashboard_of_an_attacker")
    choice = browser.get(link)
    assert "label=Same+page" in choice.text
    page = opened(browser, f"{link}?label=Page", {"Authorization": f"Bearer {browser.cookies['_token']}"})
    asked = page.json()
    assert asked["path"] == "/"
    assert set(asked["headers"]) == {
        *("accept", "accept-encoding", "host", "user-agent", "x-forwarded-context", "x-forwarded-prefix")
    }
    assert not {"set-cookie", "clear-site-data", "strict-transport-security", "service-worker-allowed"} & set(
        page.headers
    )
    assert page.headers["content-security-policy"].startswith("sandbox allow-scripts ")
    assert "allow-same-origin" not in page.headers["content-security-policy"]
    assert browser.get(f"{page.url}x%2Fy/../z?a=%2F&b").json()["path"] in ("/x%2Fy/../z?a=%2F&b", "/z?a=%2F&b")
    moved = browser.get(f"{page.url}elsewhere")
    assert (moved.status_code, moved.headers["location"]) == (302, f"{page.url.path}found?a=b")
    assert browser.post(str(page.url)).status_code == 405
    preflight = browser.options(str(page.url), headers={"Origin": "null", "Access-Control-Request-Method": "GET"})
    assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (200, "*")


def test_who_may_not_see_the_task_does_not_see_its_page(
    job: Job, browser: httpx.Client, airflow: Airflow, cookies: dict[str, dict[str, str]]
) -> None:
    link = job("dashboard_of_an_attacker")
    assert httpx.get(link).status_code == 401
    login = httpx.get(link, headers={"Accept": "text/html"})
    assert login.status_code == 303
    assert parse_qs(urlsplit(login.headers["location"]).query) == {"next": [urlsplit(link).path]}
    assert httpx.get(link, cookies=cookies[""]).status_code == 403
    assert browser.get(f"{link}?label=Page").status_code == 200

    refusals = {
        link.replace("dashboard_of_an_attacker", "dashboard_dask"): "DAG dashboard_dask has no cluster",
        f"{link}?label=hidden": "serves no page &#x27;hidden&#x27;",
        f"{link}-other": "there is no cluster",
        link.replace("practicus_default", "other"): "there is no connection &#x27;other&#x27;",
    }
    for url, message in refusals.items():
        answer = browser.get(url)
        assert (answer.status_code, message in answer.text) == (404, True), (url, answer.text)
    forged = f"{airflow.url}/practicus/pages/WyJhIl0.aaaa.bbbb/"
    assert browser.get(forged).status_code == 403
    with pytest.raises(InvalidStatus, match="403"):
        connect(forged.replace("http", "ws", 1))


# ---- in Chromium


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with headless() as browser:
        yield browser


@pytest.fixture
def window(chromium: Browser, airflow: Airflow) -> Iterator[Page]:
    """Airflow's pages, as an administrator sees them."""
    page = logged_in(chromium, airflow)
    yield page
    page.context.close()


def test_the_page_of_clusters_shows_replicas_and_their_logs(job: Job, window: Page, request: Any) -> None:
    job("dashboard_dask", "dask")
    frame = clusters(window)
    row = frame.get_by_role("row").filter(has_text="dashboard_dask")
    for text in ("running", "dask", "practicus_default"):
        expect(row).to_contain_text(text)
    for role in ("coordinator", "worker", "driver"):
        expect(row.get_by_role("img", name=f"{role}: 1 running")).to_be_visible()
    expect(frame.get_by_text("CPU and memory are not measured: practicus_default.")).to_be_visible()
    picture(window, f"list-{request.node.callspec.id}")

    row.get_by_role("link", name=re.compile("^c-")).click()
    log = frame.get_by_label("Log", exact=True)
    expect(frame.get_by_role("heading", name="Log of driver-0")).to_be_visible()
    expect(log).to_contain_text("look now")
    expect(frame.get_by_text("50 % half of it")).to_be_visible()
    frame.get_by_role("button", name="worker-0: running").click()
    expect(frame.get_by_role("heading", name="Log of worker-0")).to_be_visible()
    expect(log).to_contain_text("Starting established connection to")
    expect(log).not_to_contain_text("look now")
    picture(window, f"cluster-{request.node.callspec.id}")

    frame.get_by_role("link", name="job", exact=True).click()
    window.wait_for_url("**/dags/dashboard_dask/runs/run/tasks/job*")


def test_a_hostile_page_neither_shows_another_url_nor_reaches_airflow_or_other_tickets(job: Job, window: Page) -> None:
    link = job("dashboard_of_an_attacker")
    answered: list[str] = []
    window.on("response", lambda response: answered.append(response.url))
    window.goto(f"{link}?label=Page&at=hostile")
    inside = window.frame_locator("iframe")
    expect(inside.get_by_role("heading", name="Sign in to Airflow")).to_be_visible()
    expect(inside.locator("pre")).to_contain_text("{")
    told = json.loads(inside.locator("pre").inner_text())
    assert told.pop("own") == "done: 200"
    told.pop("url")  # browsers let it: nobody sees it
    assert told == dict.fromkeys(("airflow", "ticket", "icon", "script", "window", "top", "cookie"), "refused")
    assert urlsplit(window.url).path == urlsplit(link).path
    assert "/pages/" not in window.url
    bar = window.get_by_role("banner")
    for words in ("dashboard_of_an_attacker, task job, run run", "This page is served by the job, not by Airflow."):
        expect(bar).to_contain_text(words)
    picture(window, "hostile")
    reached = {urlsplit(url).path for url in answered}
    assert not {"/api/v2/version", "/practicus/pages/other/", "/practicus/ui/static/list.js"} & reached
    window.reload()  # it has told where it is, which leads out of it
    expect(inside.get_by_text('"path": "/"')).to_be_visible()


def test_a_page_by_itself_in_a_window_is_replaced_by_the_one_around_it(
    job: Job, window: Page, browser: httpx.Client
) -> None:
    link = job("dashboard_of_an_attacker")
    ticket = opened(browser, f"{link}?label=Page").url
    window.goto(f"{ticket}hostile")
    assert parse_qs(urlsplit(window.url).query) == {"label": ["Page"], "at": ["hostile"]}
    assert urlsplit(window.url).path == urlsplit(link).path
    expect(window.frame_locator("iframe").get_by_role("heading", name="Sign in to Airflow")).to_be_visible()
    around = browser.get(f"{link}?label=Page", headers={"Sec-Fetch-Dest": "document"})
    assert (around.headers["x-frame-options"], around.headers["referrer-policy"]) == ("DENY", "no-referrer")
    assert "frame-ancestors 'none'" in around.headers["content-security-policy"]


def test_links_inside_the_frame_lead_on_and_where_they_have_led_is_kept(job: Job, window: Page) -> None:
    window.goto(job("dashboard_spark", "spark"))
    inside = window.frame_locator("iframe")
    inside.get_by_role("link", name="Executors", exact=True).first.click()
    expect(inside.get_by_text("Summary").first).to_be_visible()
    window.wait_for_url(lambda url: parse_qs(urlsplit(url).query).get("at") == ["executors/"])
    picture(window, "frame")
    window.reload()
    expect(inside.get_by_text("Summary").first).to_be_visible()


def test_who_may_not_see_a_task_neither_sees_nor_deletes_its_cluster(
    job: Job, airflow: Airflow, cookies: dict[str, dict[str, str]]
) -> None:
    job("dashboard_of_an_attacker")
    api = f"{airflow.url}/practicus/ui/api/clusters"

    def get(role: str, path: str = "") -> httpx.Response:
        return httpx.get(f"{api}{path}", cookies=cookies[role], timeout=60)

    rows = get("viewer").json()["clusters"]
    [row] = [row for row in rows if row["dag_id"] == "dashboard_of_an_attacker"]
    path = f"/{row['dag_id']}/{row['connection']}/{row['cluster']}"
    assert get("viewer", path).json()["may"] == {"logs": True, "delete": False}
    assert get("user", path).json()["may"] == {"logs": True, "delete": True}
    assert get("").json() == {"clusters": [], "troubles": {}, "unmeasured": []}
    assert get("", path).status_code == get("", f"{path}/logs/driver-0?uid={row['uid']}").status_code == 403
    assert get("viewer", f"{path}/logs/driver-0?uid=another").json()["detail"].startswith("cluster ")
    assert httpx.get(api).status_code == httpx.delete(f"{api}{path}?uid={row['uid']}").status_code == 401
    assert httpx.delete(f"{api}{path}?uid={row['uid']}", cookies=cookies["viewer"]).status_code == 403
    other_dag = path.replace("dashboard_of_an_attacker", "dashboard_dask")
    assert get("user", other_dag).status_code == 404

    elsewhere = {"Origin": "https://elsewhere.example.com", "Access-Control-Request-Method": "DELETE"}
    preflight = httpx.options(f"{api}{path}", headers=elsewhere, cookies=cookies["viewer"])
    assert "access-control-allow-origin" not in preflight.headers
    page = httpx.get(f"{airflow.url}/practicus/ui/page", cookies=cookies["viewer"])
    assert page.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
    login = httpx.get(f"{airflow.url}/practicus/ui/page?cluster=x", headers={"Accept": "text/html"})
    assert parse_qs(urlsplit(login.headers["location"]).query) == {"next": ["/practicus/ui/page?cluster=x"]}


@pytest.mark.parametrize("dag_id", PAGE_OF)
def test_each_button_of_a_task_opens_what_it_says(job: Job, window: Page, airflow: Airflow, dag_id: str) -> None:
    job(dag_id, dag_id.removeprefix("dashboard_") if dag_id != "dashboard_of_an_attacker" else "python")

    def button(name: str) -> Locator:
        window.goto(f"/dags/{dag_id}/runs/run/tasks/job/details")
        return window.get_by_role("link", name=name, exact=True)

    button(PAGE_OF[dag_id]).click()
    seen = {"dashboard_dask": "Data Transfer", "dashboard_spark": "Spark Jobs", "dashboard_of_an_attacker": "Same page"}
    shown = window if dag_id == "dashboard_of_an_attacker" else window.frame_locator("iframe")
    expect(shown.get_by_text(seen[dag_id]).first).to_be_visible()
    button("Cluster").click()
    frame = window.frame_locator("iframe")
    expect(frame.get_by_role("heading", name=re.compile("^c-dashboard-"))).to_be_visible()
    button("Logs of replicas").click()
    expect(frame.get_by_label("Log", exact=True)).to_contain_text("look now")
    if dag_id == "dashboard_spark":
        expect(button("Spark history")).to_have_attribute("href", HISTORY)


@pytest.mark.parametrize("place", ["local"], indirect=True, scope="module")  # the form is the same for both
def test_a_connection_is_made_and_tested_in_its_form(window: Page, airflow: Airflow) -> None:
    window.route("**/api/v2/connections/test", without_port)
    bad = {"backend": "kubernetes", "kubeconfig": "/nowhere/kubeconfig"}
    said = {"good": ("Successful", "replicas run on this machine"), "bad": ("Failed", "/nowhere/kubeconfig")}
    for conn_id, fields in (("good", {"backend": "local"}), ("bad", bad)):
        window.goto("/connections")
        window.get_by_role("button", name="Add Connection").first.click()
        form = window.get_by_role("dialog")
        form.get_by_label("Connection ID").fill(conn_id)
        form.get_by_role("combobox", name="Connection Type").fill("practicus")
        window.get_by_role("option", name="Practicus", exact=True).click()
        form.get_by_role("button", name="Extra Fields", exact=True).click()
        form.get_by_role("group").filter(has_text="Where clusters run").get_by_role("combobox").click()
        window.get_by_role("option", name=fields.pop("backend"), exact=True).click()
        for name, value in fields.items():
            form.locator(f"#element_{name}").fill(value)
        picture(window, f"connection-{conn_id}")
        form.get_by_role("button", name="Save").click()
        expect(form).to_be_hidden()
        row = window.get_by_role("row").filter(has=window.get_by_role("cell", name=conn_id, exact=True))
        row.get_by_role("button", name="Test Connection").click()
        toast = window.get_by_role("status").filter(has_text="Test Connection")
        for words in said[conn_id]:
            expect(toast).to_contain_text(words)
        picture(window, f"tested-{conn_id}")
    frame = clusters(window)
    expect(frame.get_by_text("Connection bad cannot be reached")).to_be_visible()
    expect(frame.get_by_text("/nowhere/kubeconfig")).to_be_visible()
    picture(window, "trouble")
    for conn_id in said:
        airflow.call("DELETE", f"/api/v2/connections/{conn_id}")


@pytest.mark.parametrize("place", ["local"], indirect=True, scope="module")  # what it is about is never reached
def test_a_connection_runs_no_program_in_the_api_server_and_who_may_not_read_it_learns_nothing_of_it(
    airflow: Airflow, cookies: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": "touch", "args": [str(ran)]}
    kubeconfig = {
        **{"apiVersion": "v1", "kind": "Config", "current-context": "it"},
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        "clusters": [{"name": "it", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "it", "user": {"exec": plugin}}],
    }
    extra = json.dumps({"backend": "kubernetes", "kubeconfig_secret": json.dumps(kubeconfig)})
    body = {"connection_id": "hostile", "conn_type": "practicus", "extra": extra}
    assert str(ran) not in json.dumps(airflow.call("POST", "/api/v2/connections", body))
    assert str(ran) not in json.dumps(airflow.call("GET", "/api/v2/connections/hostile"))

    def asked(who: dict[str, str], path: str = "") -> httpx.Response:
        return httpx.get(f"{airflow.url}/practicus/ui/api/clusters{path}", cookies=who, timeout=60)

    admin, viewer = {"_token": airflow.token}, cookies["viewer"]
    eventually("the DAG is parsed", lambda: airflow.found("/api/v2/dags/dashboard_dask"))
    for path in ("/dashboard_dask/hostile/c-1", "/dashboard_dask/hostile/c-1/logs/driver-0?uid=u"):
        told, kept = asked(admin, path), asked(viewer, path)
        assert (told.status_code, kept.status_code) == (502, 502)
        assert "the kubeconfig's user has 'exec'" in told.json()["detail"]
        assert kept.json() == {"detail": "connection hostile cannot be used; who may read it in Airflow sees why"}
    assert asked(admin, "/no_such_dag/hostile/c-1").json() == {"detail": "there is no DAG no_such_dag"}
    assert asked(viewer, "/no_such_dag/hostile/c-1").status_code == 404
    assert "'exec'" in asked(admin).json()["troubles"]["hostile"]
    assert asked(viewer).json()["troubles"] == {"hostile": ""}
    assert not ran.exists()
    airflow.call("DELETE", "/api/v2/connections/hostile")


def without_port(route: Route) -> None:
    """Airflow 3.3.2 says of a connection without a port that it has port 0, and then refuses to test that (mended by
    its pull request 73298).
    """
    body = route.request.post_data_json
    route.continue_(post_data=json.dumps({**body, "port": body["port"] or None}))


@pytest.mark.parametrize("place", ["local"], indirect=True, scope="module")  # no backend is asked for it
def test_a_form_starts_a_run_with_what_was_chosen_and_takes_nothing_else(window: Page, airflow: Airflow) -> None:
    eventually("the DAG is parsed", lambda: airflow.found("/api/v2/dags/practicus_plain_scripts"))
    window.goto("/dags/practicus_plain_scripts")
    window.get_by_test_id("trigger-dag-button").first.click()
    form = window.get_by_role("dialog")
    partitions, trigger = form.get_by_label("Partitions"), form.get_by_test_id("trigger-dag-submit")
    partitions.fill("0")
    partitions.blur()
    expect(partitions).to_have_value("1")
    partitions.fill("")
    partitions.blur()
    expect(trigger).to_be_disabled()
    partitions.fill("2")
    partitions.blur()
    picture(window, "trigger")
    form.get_by_text("Unpause ").click()  # what is chosen is all that this is about
    trigger.click()
    window.wait_for_url("**/dags/practicus_plain_scripts/runs/manual__*")
    [run] = airflow.call("GET", "/api/v2/dags/practicus_plain_scripts/dagRuns")["dag_runs"]
    assert run["conf"] == {"partitions": 2}


ONE_PLACE = pytest.mark.parametrize("place", ["local"], indirect=True, scope="module")
VERDICT = "Error: driver-0 exited with code 1"
LEVELS = {"a detail": "info", "a fact": "info", "a doubt": "warning", "a fault": "error", "no such table": "error"}


@ONE_PLACE  # the triggerer's log is the same for both
@pytest.mark.parametrize("task_id", ["deferred", "worker"])
def test_a_failed_tasks_page_shows_its_error_without_a_click_and_filters_what_the_job_has_written(
    window: Page, airflow: Airflow, task_id: str
) -> None:
    if not airflow.found("/api/v2/dags/levels/dagRuns/run"):
        airflow.trigger("levels", "run", {})
    assert airflow.await_state("levels", "run", "failed", "success", task_id=task_id) == "failed"
    eventually("its log is whole", lambda: VERDICT in "".join(airflow.log("levels", "run", task_id)))
    entries = airflow.entries("levels", "run", task_id)
    errors = [entry for entry in entries if entry.get("level") == "error" and entry.get("logger") != "driver-0"]
    assert [VERDICT in "\n".join(texts(entry)) for entry in errors] == [True]
    assert "practicus_provider" not in str([error["frames"] for error in errors[0].get("error_detail", ())])
    written = {words: entry for words in LEVELS for entry in entries if words in entry["event"]}
    assert {words: written[words]["level"] for words in LEVELS} == LEVELS

    window.goto(f"/dags/levels/runs/run/tasks/{task_id}")
    log = window.get_by_test_id("virtualized-list")
    for words in (VERDICT, "ValueError: no such table: flights"):
        expect(log.get_by_text(words).last).to_be_in_viewport()
    picture(window, f"log-{task_id}")

    def chosen(choice: str, option: str) -> None:
        window.get_by_role("combobox").filter(has_text=choice).click()
        window.get_by_role("option", name=option, exact=True).click()
        window.keyboard.press("Escape")

    chosen("All Sources", "driver-0")
    expect(log).not_to_contain_text(VERDICT)
    expect(log).to_contain_text("a doubt")
    chosen("All Log Levels", "WARNING")
    expect(log).not_to_contain_text("a fault")
    expect(log).to_contain_text("a doubt")
    picture(window, f"filtered-{task_id}")


def test_a_cluster_is_deleted_on_its_page_which_then_says_that_it_is_gone(
    job: Job, window: Page, airflow: Airflow
) -> None:
    job("dashboard_dask", "dask")
    frame = clusters(window)
    frame.get_by_role("row").filter(has_text="dashboard_dask").get_by_role("link", name=re.compile("^c-")).click()
    frame.get_by_role("button", name="Delete").click()
    dialog = frame.get_by_role("dialog")
    picture(window, "delete")
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_be_hidden()
    frame.get_by_role("button", name="Delete").click()
    dialog.get_by_role("button", name="Delete").click()
    expect(frame.get_by_text("The cluster is gone")).to_be_visible()
    assert airflow.await_state("dashboard_dask", "run", "failed", "success") == "failed"
    assert any("Deleted: " in line for line in airflow.log("dashboard_dask", "run"))
    [event] = airflow.call("GET", "/api/v2/eventLogs?event=delete_practicus_cluster")["event_logs"]
    assert (event["dag_id"], event["owner"]) == ("dashboard_dask", "admin")


# It ends the job, so it comes last.
def test_the_page_of_a_cluster_that_is_gone_says_so(airflow: Airflow, browser: httpx.Client, job: Job) -> None:
    link = job("dashboard_of_an_attacker")
    page = opened(browser, f"{link}?label=Page")
    end(airflow, "dashboard_of_an_attacker")
    eventually("the cluster is gone", lambda: browser.get(link).status_code == 404)
    assert "<h1>The cluster is gone</h1>" in browser.get(link).text
    assert browser.get(str(page.url)).status_code == 404
    links = buttons(airflow, "dashboard_of_an_attacker")
    assert links.keys() == {"Cluster", "Cluster dashboard", "Logs of replicas"}
    assert links["Cluster dashboard"] == urlsplit(link).path
