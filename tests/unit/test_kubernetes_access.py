"""How an API server is reached, and as whom; servers, plugins and certificates are real ones here."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import ssl
import stat
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from kubernetes_asyncio.config import incluster_config

from practicus_provider.backends.kubernetes import access as access_module
from practicus_provider.backends.kubernetes import exec_plugin
from practicus_provider.backends.kubernetes.access import Access, Logins, configured
from practicus_provider.backends.kubernetes.api import Api, ApiError, connected
from practicus_provider.backends.kubernetes.exec_plugin import Credential, CredentialsError
from practicus_provider.errors import BackendError
from tests.cluster.pki import Authority, KeyPair
from tests.kubernetes_server import POD, Handler, Server, kubeconfig, refuses, says, streams
from tests.plans import PATIENCE

VERSION = "client.authentication.k8s.io/v1"
UNAUTHORIZED = refuses(401, "Unauthorized", "Unauthorized")
FOUND = says(POD)
NO_ANSWER = "does not answer with an ExecCredential: "


@dataclass
class Plugin:
    """A program that gives the token ``first``, and then what it is told to.

    :ivar config: as the ``exec`` of a kubeconfig's user.
    """

    folder: Path
    config: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.config = {"apiVersion": VERSION, "command": str(self.folder / "plugin"), "args": None, "env": None}
        self.gives(token="first")

    def gives(self, **status: Any) -> None:
        answer = json.dumps({"apiVersion": VERSION, "kind": "ExecCredential", "status": status})
        self.does(f"echo run >> {self.folder}/runs\ncat <<'END'\n{answer}\nEND")

    def does(self, script: str) -> None:
        """The program is replaced: one that runs goes on."""
        made = self.folder / "made"
        made.write_text(f"#!/bin/sh\n{script}\n")
        made.chmod(stat.S_IRWXU)
        made.rename(self.folder / "plugin")

    @property
    def runs(self) -> int:
        return len((self.folder / "runs").read_text().splitlines())


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[Plugin]:
    yield Plugin(tmp_path)
    exec_plugin._given.clear()


def takes(*tokens: str, then: Handler = FOUND) -> Handler:
    """An answer to who shows one of these tokens."""

    async def answer(request: web.Request) -> web.StreamResponse:
        known = request.headers.get("authorization") in [f"Bearer {token}" for token in tokens]
        return await (then if known else UNAUTHORIZED)(request)

    return answer


# ---- credentials end

Renew = Callable[[str], object]


@pytest.fixture(params=["exec", "tokenFile", "kubeconfig"])
def renewable(request: pytest.FixtureRequest, server: Server, plugin: Plugin, tmp_path: Path) -> tuple[Access, Renew]:
    """How the server is reached with the token ``first``, and what puts another one there."""
    token, config = tmp_path / "token", tmp_path / "config"
    token.write_text("first\n")
    match request.param:
        case "exec":
            config.write_text(kubeconfig(server.url, exec=plugin.config))
            return Access(str(config)), lambda token: plugin.gives(token=token)
        case "tokenFile":
            config.write_text(kubeconfig(server.url, tokenFile="token"))
            return Access(str(config)), lambda text: token.write_text(f"{text}\n")
    config.write_text(kubeconfig(server.url, token="first"))
    return Access(str(config)), lambda text: config.write_text(kubeconfig(server.url, token=text))


async def get(api: Api) -> Any:
    return await api.get("Pod", "p")


async def watch(api: Api) -> Any:
    async with api.watch("Pod", silence=PATIENCE) as events:
        return await anext(events)


async def log(api: Api) -> Any:
    async with api.stream("pods/p/log", silence=PATIENCE) as lines:
        return json.loads(b"".join([line async for line in lines]))


async def forward(api: Api) -> Any:
    socket = await api.websocket("pods/p/portforward", "v4.channel.k8s.io", ports="1")
    found = await socket.receive_json()
    await socket.close()
    return found


async def serve(request: web.Request) -> web.StreamResponse:
    """What is asked for, however."""
    if request.headers.get("upgrade") != "websocket":
        return await streams(json.dumps(POD).encode() + b"\n")(request)
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    await socket.send_json(POD)
    await socket.close()
    return socket


async def answered(request: web.Request) -> web.StreamResponse:
    return web.json_response(POD) if request.path.endswith("/p") else await serve(request)


@pytest.mark.parametrize("ask", [get, watch, log, forward])
async def test_credentials_that_are_over_are_had_again_whatever_is_asked(server, renewable, ask):
    access, renew = renewable
    async with connected(access, "jobs") as api:
        server.answers = [takes("first", then=answered)]
        assert await ask(api) == POD
        renew("second")
        server.answers = [takes("second", then=answered)]
        assert await ask(api) == POD
        assert len(server.asked) == 3  # once with what was over


@pytest.mark.parametrize("ask", [get, watch, log, forward])
async def test_credentials_that_are_refused_and_have_no_successor_are_told_at_once(server, renewable, ask):
    async with connected(renewable[0], "jobs") as api:
        server.answers = [UNAUTHORIZED]
        with pytest.raises(ApiError) as error:
            await ask(api)
    assert error.value.status == 401
    assert "renew the connection's credentials" in str(error.value)
    assert len(server.asked) == 1


async def test_a_plugin_is_run_anew_for_each_refusal_though_it_gave_the_same_before(server, plugin):
    async with connected(Access(inline=kubeconfig(server.url, exec=plugin.config)), "jobs") as api:
        server.answers = [UNAUTHORIZED]
        for _ in range(2):
            with pytest.raises(ApiError):
                await get(api)
        plugin.gives(token="second")
        server.answers = [takes("second")]
        assert await get(api) == POD
    assert plugin.runs == 4


async def test_of_many_requests_that_are_refused_one_has_the_credentials_renewed(server, plugin):
    async with connected(Access(inline=kubeconfig(server.url, exec=plugin.config)), "jobs") as api:
        plugin.gives(token="second")
        server.answers = [takes("second")]
        assert await asyncio.gather(*(get(api) for _ in range(50))) == [POD] * 50
    assert plugin.runs == 2


async def test_a_request_that_was_under_way_as_others_renewed_goes_by_their_credentials(server, plugin):
    async with connected(Access(inline=kubeconfig(server.url, exec=plugin.config)), "jobs") as api:
        plugin.gives(token="second")
        came, go = asyncio.Event(), asyncio.Event()

        async def slow(request: web.Request) -> web.StreamResponse:
            came.set()
            await go.wait()
            return await UNAUTHORIZED(request)

        server.answers = [slow, takes("second")]
        first = asyncio.create_task(get(api))
        await came.wait()
        assert await get(api) == POD
        go.set()
        assert await first == POD
    assert plugin.runs == 2


def in_seconds(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))


async def test_a_plugin_is_asked_anew_before_the_end_that_it_told(server, plugin, monkeypatch):
    clock = time.time
    plugin.gives(token="first", expirationTimestamp=in_seconds(900))
    async with connected(Access(inline=kubeconfig(server.url, exec=plugin.config)), "jobs") as api:
        plugin.gives(token="second", expirationTimestamp=in_seconds(1800))
        for later, token, runs in ((830, "first", 1), (850, "second", 2), (1730, "second", 2), (1750, "second", 3)):
            monkeypatch.setattr(time, "time", lambda seconds=later: clock() + seconds)
            server.answers = [takes(token)]
            assert await get(api) == POD
            assert plugin.runs == runs


CONFIG = {"apiVersion": VERSION, "command": "aws"}


def told(**status: Any) -> bytes:
    return json.dumps({"apiVersion": VERSION, "kind": "ExecCredential", "status": status}).encode()


@pytest.mark.parametrize(
    ("end", "until"),
    [
        ("1970-01-01T00:15:00Z", 840.0),  # a minute before
        ("1970-01-01T02:15:00+02:00", 840.0),
        ("1970-01-01T00:00:20Z", 16.0),  # a fifth of its life before
        ("1970-01-01T00:00:00Z", 1.0),  # over already: not asked again for each request
        ("", float("inf")),
        (None, float("inf")),
    ],
)
def test_when_a_plugins_credential_is_due_follows_from_its_end(end, until):
    found = exec_plugin.read(CONFIG, told(token="t", expirationTimestamp=end), now=0.0)
    assert found == Credential({"token": "t"}, until)


def test_a_plugin_may_give_a_certificate_with_or_without_a_token():
    certificate = {"clientCertificateData": "PEM", "clientKeyData": "KEY"}
    user = {"client-certificate-data": base64.b64encode(b"PEM").decode(), "client-key-data": "S0VZ"}
    assert exec_plugin.read(CONFIG, told(**certificate), now=0.0) == Credential(user)
    assert exec_plugin.read(CONFIG, told(token="t", **certificate), now=0.0) == Credential({"token": "t", **user})


async def test_files_are_read_again_before_the_server_minds(server, tmp_path, monkeypatch):
    monkeypatch.setattr(access_module, "READ_AGAIN", 0.0)
    token = tmp_path / "token"
    token.write_text("first")
    (tmp_path / "config").write_text(kubeconfig(server.url, tokenFile=str(token)))
    async with connected(Access(str(tmp_path / "config")), "jobs") as api:
        for text in ("second", "third"):
            token.write_text(text)
            server.answers = [takes(text)]
            assert await get(api) == POD
    assert len(server.asked) == 2


async def test_all_connections_of_a_process_share_what_a_plugin_gave(server, plugin):
    server.answers = [takes("first")]
    access = Access(inline=kubeconfig(server.url, exec=plugin.config))
    for _ in range(3):
        async with connected(access, "jobs") as api:
            assert await get(api) == POD
    assert plugin.runs == 1


async def test_plugins_with_other_arguments_share_nothing(server, plugin):
    server.answers = [takes("first")]
    for arguments in (["a"], ["b"]):
        async with connected(Access(inline=kubeconfig(server.url, exec={**plugin.config, "args": arguments})), "jobs"):
            pass
    assert plugin.runs == 2


async def test_where_a_plugin_fails_before_the_end_the_old_credentials_are_used_as_long_as_they_are_taken(
    server, plugin, monkeypatch, caplog
):
    plugin.gives(token="first", expirationTimestamp=in_seconds(900))
    clock = time.time
    async with connected(Access(inline=kubeconfig(server.url, exec=plugin.config)), "jobs") as api:
        plugin.does("echo no network >&2; exit 1")
        monkeypatch.setattr(time, "time", lambda: clock() + 850)
        server.answers = [takes("first")]
        assert [await get(api), await get(api)] == [POD, POD]
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        "Kubernetes' credentials could not be renewed, and are used as they are: the kubeconfig's exec plugin "
        f"{plugin.config['command']!r} exited with code 1 and says: no network"
    )


async def test_a_plugin_that_fails_for_a_moment_is_asked_again_as_the_server_would_be(server, plugin):
    async with connected(Access(inline=kubeconfig(server.url, exec=plugin.config)), "jobs") as api:
        plugin.does("echo no network >&2; exit 1")

        async def mended(request: web.Request) -> web.StreamResponse:
            plugin.gives(token="second")
            return await UNAUTHORIZED(request)

        server.answers = [UNAUTHORIZED, mended, takes("second")]
        assert await get(api) == POD


# ---- a plugin's own words


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            "echo 'Token has expired: run aws sso login' >&2; exit 255",
            "exited with code 255 and says: Token has expired",
        ),
        ("echo 'not logged in'; exit 1", "exited with code 1 and says: not logged in"),
        ("exit 3", "exited with code 3 and says: nothing"),
        ("kill -9 $$", "exited with code -9 and says: nothing"),
        ("echo hello", f"{NO_ANSWER}JSONDecodeError"),
        ("echo '{}'", f"{NO_ANSWER}KeyError('apiVersion')"),
        ("echo '[]'", f"{NO_ANSWER}TypeError"),
        (
            f"echo '{told(token='t', expirationTimestamp='soon').decode()}'",
            f"{NO_ANSWER}ValueError",
        ),
        (f"echo '{told(clientKeyData='k').decode()}'", "gives neither a token nor a client certificate with its key"),
        ('echo \'{"apiVersion": "old", "status": {}}\'', f"answers by old, and the kubeconfig says {VERSION}"),
        ("exec sleep 60", "does not answer within 0.3 s"),
    ],
)
async def test_why_a_plugin_gives_no_credentials_is_told_in_its_words(plugin, monkeypatch, script, said):
    if "sleep" in script:
        monkeypatch.setattr(exec_plugin, "TIMEOUT", 0.3)
    plugin.does(script)
    with pytest.raises(CredentialsError) as error:
        await Logins(Access(inline=kubeconfig("http://here:1", exec=plugin.config))).login()
    assert str(error.value).startswith(f"the kubeconfig's exec plugin {plugin.config['command']!r} {said}")


async def test_a_plugin_that_is_not_there_is_told_with_the_kubeconfigs_hint():
    absent = {"apiVersion": VERSION, "command": "no-such-plugin", "installHint": "Install it: pip install it.\n"}
    with pytest.raises(BackendError) as error:
        await Logins(Access(inline=kubeconfig("http://here:1", exec=absent))).login()
    assert str(error.value) == (
        "the kubeconfig's exec plugin 'no-such-plugin' cannot be run: No such file or directory. "
        "Install it: pip install it."
    )


async def test_a_plugin_without_a_command_is_told_by_its_field():
    with pytest.raises(BackendError, match=r"^the kubeconfig's exec plugin has no command: give its user's exec\.com"):
        await Logins(Access(inline=kubeconfig("http://here:1", exec={"apiVersion": VERSION}))).login()


async def test_a_plugin_is_given_what_the_kubeconfig_says_and_none_of_our_input(plugin, tmp_path, monkeypatch):
    (tmp_path / "config").write_text(
        kubeconfig(
            "http://here:1",
            exec={
                **plugin.config,
                "command": "./plugin",  # from the kubeconfig's folder
                "args": ["eks", "get-token"],
                "env": [{"name": "AWS_PROFILE", "value": "jobs"}],
            },
        )
    )
    answer = json.dumps({"apiVersion": VERSION, "status": {"token": "%s"}})
    plugin.does(f"""printf '{answer}' "$(cat)$1 $2 $AWS_PROFILE $(echo $KUBERNETES_EXEC_INFO | tr -d '"')" """)
    login = await Logins(Access(str(tmp_path / "config"))).login()
    info = f"{{apiVersion: {VERSION}, kind: ExecCredential, spec: {{interactive: false}}}}"
    assert login.authorization == f"Bearer eks get-token jobs {info}"
    await login.client.close()


# ---- a kubeconfig that cannot be read


# ---- in Airflow's API server


def of_user(user: dict[str, Any]) -> str:
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "it",
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
            "clusters": [{"name": "it", "cluster": {"server": "https://127.0.0.1:1"}}],
            "users": [{"name": "it", "user": user}],
        }
    )


@pytest.mark.parametrize("as_file", [False, True], ids=["content", "path"])
@pytest.mark.parametrize("name", ["exec", "auth-provider"])
async def test_a_connection_that_is_not_trusted_has_no_program_run(plugin, tmp_path, name, as_file):
    google = {"name": "gcp", "config": {"cmd-path": plugin.config["command"], "cmd-args": ""}}
    inline = of_user({name: plugin.config if name == "exec" else google})
    path = tmp_path / "kubeconfig"
    path.write_text(inline)
    access = Access(str(path), is_trusted=False) if as_file else Access(inline=inline, is_trusted=False)
    with pytest.raises(BackendError, match=rf"has '{name}', .* \[practicus\] trust_kubeconfigs = True"):
        await configured(access, None)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["tokenFile", "client-certificate", "client-key"])
async def test_a_connection_that_is_not_trusted_has_no_file_sent(tmp_path, name):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    inline = of_user({name: str(secret)})
    with pytest.raises(BackendError, match=rf"has '{name}', .* read its files"):
        await configured(Access(inline=inline, is_trusted=False), None)


async def test_a_kubeconfig_that_the_deployment_wrote_may_name_files_of_its_own(tmp_path):
    path, token = tmp_path / "kubeconfig", tmp_path / "token"
    token.write_text("secret\n")
    path.write_text(of_user({"tokenFile": str(token)}))
    configuration, _, _ = await configured(Access(str(path), is_trusted=False), None)
    assert configuration.api_key == {"BearerToken": "Bearer secret"}


async def test_a_kubeconfig_that_is_not_there_is_named(tmp_path):
    path = str(tmp_path / "absent")
    with pytest.raises(BackendError) as error:
        await Logins(Access(path)).login()
    assert str(error.value) == f"cannot read how to reach Kubernetes from {path}: there is no file {path}"


@pytest.mark.parametrize(
    "inline",
    [
        "{",
        "",
        "a: b",
        kubeconfig("http://here:1").replace('"here"', '"nowhere"', 1),
        kubeconfig("https://here:1", **{"client-certificate": "/nowhere", "client-key": "/nowhere"}),
        kubeconfig("https://here:1", **{"client-certificate-data": "QQ==", "client-key-data": "QQ=="}),
        kubeconfig("https://here:1", tokenFile="/nowhere"),
    ],
)
async def test_a_kubeconfig_that_makes_no_sense_is_said(inline):
    access = Access(inline=inline)
    with pytest.raises(BackendError, match=r"^cannot read how to reach Kubernetes from its inline kubeconfig: "):
        await Logins(access).login()


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ("users:\n- user: {token: hidden, [}", " in line 2, column 26"),
        ("users:\n\ttoken: hidden", " in line 2, column 1"),
        ("token: *hidden", " in line 1, column 8"),
        ("token: !hidden x", " in line 1, column 8"),
        ("token: hidden\0", ""),
    ],
)
@pytest.mark.parametrize("inline", [True, False])
async def test_of_a_kubeconfig_that_is_no_yaml_nothing_is_shown_but_where(tmp_path, content, where, inline):
    (tmp_path / "config").write_text(content)
    access = Access(inline=content) if inline else Access(kubeconfig=str(tmp_path / "config"))
    with pytest.raises(BackendError) as raised:
        await configured(access, None)
    words = f"cannot read how to reach Kubernetes from {access}: it is no YAML{where}"
    assert (str(raised.value), "hidden" in "".join(traceback.format_exception(raised.value))) == (words, False)


async def test_outside_of_a_cluster_in_cluster_is_an_error(monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(BackendError, match=r"^cannot read how to reach Kubernetes from in_cluster: "):
        await Logins(Access(in_cluster=True)).login()


async def test_a_kubeconfig_file_is_read(tmp_path: Path):
    (tmp_path / "config").write_text(kubeconfig("http://here:1"))
    async with connected(Access(str(tmp_path / "config")), "jobs") as api:
        assert api.host == "http://here:1"


async def test_neither_an_access_nor_a_login_shows_its_secrets(plugin):
    plugin.gives(token="secret-token")
    access = Access(inline=kubeconfig("http://here:1", exec=plugin.config, password="secret"))
    login = await Logins(access).login()
    assert "secret" not in f"{access!r} {access} {login!r}"
    await login.client.close()


# ---- TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"), "https://192.0.2.1")


@contextlib.asynccontextmanager
async def secure(pair: KeyPair, clients: Authority | None = None, answer: Handler | None = None) -> AsyncIterator[int]:
    """The port of a server on loopback that shows a certificate, and may want one; it says whose that is."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.certificate, pair.key)
    if clients:
        context.load_verify_locations(clients.certificate)
        context.verify_mode = ssl.CERT_OPTIONAL

    async def whose(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        shown = request.transport.get_extra_info("peercert") or {"subject": ()}
        names = {key: value for part in shown["subject"] for key, value in part}
        return web.json_response({"who": names.get("commonName"), "token": request.headers.get("authorization")})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer or whose)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    yield int(runner.addresses[0][1])
    await runner.cleanup()


def trusting(authority: Authority, port: int, host: str = "127.0.0.1", **user: Any) -> str:
    config = json.loads(kubeconfig(f"https://{host}:{port}", **user))
    config["clusters"][0]["cluster"]["certificate-authority"] = str(authority.certificate)
    return json.dumps(config)


async def test_a_certificate_of_a_plugin_is_replaced_by_the_next_one(authority, plugin):
    def shows(pair: KeyPair) -> None:
        plugin.gives(clientCertificateData=pair.certificate.read_text(), clientKeyData=pair.key.read_text())

    expired = False

    async def whose(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        name = request.transport.get_extra_info("peercert")["subject"][0][0][1]
        return await (UNAUTHORIZED if expired and name == "one" else says({"who": name}))(request)

    shows(authority.issue("one"))
    server = authority.issue("server", addresses=["127.0.0.1"])
    async with (
        secure(server, authority, whose) as port,
        connected(Access(inline=trusting(authority, port, exec=plugin.config)), "jobs") as api,
    ):
        assert await get(api) == {"who": "one"}
        shows(authority.issue("two"))
        expired = True
        assert await get(api) == {"who": "two"}


async def test_in_a_cluster_the_service_accounts_token_is_read_again(authority, tmp_path, monkeypatch):
    token = tmp_path / "token"
    token.write_text("first\n")
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(authority.certificate))
    expired = False

    async def whose(request: web.Request) -> web.StreamResponse:
        shown = request.headers["authorization"]
        return await (UNAUTHORIZED if expired and shown == "Bearer first" else says({"token": shown}))(request)

    async with secure(authority.issue("server", addresses=["127.0.0.1"]), answer=whose) as port:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(port))
        async with connected(Access(in_cluster=True), "jobs") as api:
            assert await get(api) == {"token": "Bearer first"}
            token.write_text("second\n")
            expired = True
            assert await get(api) == {"token": "Bearer second"}
            monkeypatch.setattr(access_module, "READ_AGAIN", 0.0)
            token.write_text("third\n")
            assert await get(api) == {"token": "Bearer second"}  # whose minute is not over


@pytest.mark.parametrize("fault", ["unknown", "another name", "no TLS"])
async def test_a_server_that_is_not_as_the_kubeconfig_describes_it_is_told_at_once(server, authority, fault):
    pair = authority.issue("server", addresses=["127.0.0.1"])
    async with secure(pair) as port, asyncio.timeout(PATIENCE / 2):
        inline = {
            "unknown": kubeconfig(f"https://127.0.0.1:{port}"),
            "another name": trusting(authority, port, "localhost"),
            "no TLS": kubeconfig(server.url.replace("http:", "https:")),
        }[fault]
        async with connected(Access(inline=inline), "jobs", patience=PATIENCE) as api:
            with pytest.raises(BackendError) as error:
                await get(api)
            words = {"unknown": "issuer", "another name": "mismatch", "no TLS": "SSL"}[fault]
            start = f"the Kubernetes API server at {api.host} is not as the kubeconfig describes it: "
    assert str(error.value).startswith(start)
    assert words in str(error.value)
    assert str(error.value).endswith("; mend its server, certificate-authority or tls-server-name")
