"""Addresses of either family: as texts, what listens there, and the interface that has one."""

from __future__ import annotations

import json
import socket
import threading
import urllib.error
import urllib.request

import pytest
from practicus_runtime.addresses import bracketed, family, joined
from practicus_runtime.channel import Channel, Listener
from practicus_runtime.contract import Limits
from practicus_runtime.executors import listen
from practicus_runtime.horovod import Rendezvous
from practicus_runtime.horovod_store import Store
from practicus_runtime.membership import Group
from practicus_runtime.ranks import interface
from practicus_runtime.waiting import Wait

from example_dags import mapreduce

LOOPBACKS = pytest.mark.parametrize("loopback", ["127.0.0.1", "::1"])


@pytest.mark.parametrize(
    ("host", "text", "number"),
    [
        ("10.0.0.7", "10.0.0.7:80", socket.AF_INET),
        ("job-0.job", "job-0.job:80", socket.AF_INET),
        ("fd00::7", "[fd00::7]:80", socket.AF_INET6),
        ("::1", "[::1]:80", socket.AF_INET6),
    ],
)
def test_an_ipv6_address_stands_in_brackets_before_a_port(host, text, number):
    assert (joined(host, 80), family(host)) == (text, number)
    assert joined(host, 80) == f"{bracketed(host)}:80"


@LOOPBACKS
def test_who_leads_replicas_listens_at_its_address_of_either_family(loopback):
    heard = threading.Event()

    def attend(channel: Channel) -> None:
        for message in channel.take():
            assert message == {"name": "worker-1"}
            heard.set()

    with Listener(loopback, 0, "key", attend) as listener:
        listener.start()
        with socket.create_connection((loopback, listener.server_address[1])) as connection:
            channel = Channel(connection)
            channel.introduce("key")
            channel.send(name="worker-1")
            assert heard.wait(10)
        listener.shutdown()


@LOOPBACKS
@pytest.mark.parametrize("elastic", [False, True], ids=["fixed", "elastic"])
def test_horovods_ranks_find_each_other_at_an_address_of_either_family(loopback, elastic):
    group = Group(Limits(1, 1, 0, 1, 1), stops=False)
    server = Store(loopback, 0, group, threading.Condition()) if elastic else Rendezvous(loopback, 0, 1)
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://{joined(loopback, server.server_address[1])}/global/0"
        with pytest.raises(urllib.error.HTTPError, match="403" if elastic else "404"):
            urllib.request.urlopen(url)
        server.shutdown()


@LOOPBACKS
def test_sparks_driver_hears_of_executors_at_an_address_of_either_family(loopback):
    with listen(loopback, 0) as server, socket.create_connection((loopback, server.getsockname()[1])):
        connection, (address, *_) = server.accept()
        connection.close()
        assert address == loopback


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("127.0.0.1", "lo"),
        ("::1", "lo"),
        ("0:0:0:0:0:0:0:1", "lo"),
        ("192.0.2.1", None),
        ("2001:db8::1", None),
        ("no:address", None),
        ("", None),
    ],
)
def test_the_interface_of_an_address_is_found_whatever_its_family(address, name):
    assert interface(address) == name


@LOOPBACKS
def test_the_example_s_workers_find_their_driver_at_an_address_of_either_family(loopback, tmp_path, monkeypatch):
    monkeypatch.setenv("PRACTICUS_RESULT", str(tmp_path / "result"))
    with socket.create_server((loopback, 0), family=family(loopback)) as free:
        address = free.getsockname()[:2]
    job = {"split": str.split, "map": lambda word: [(word, 1)], "reduce": lambda word, ones: sum(ones)}
    driver = threading.Thread(target=mapreduce.drive, args=[job, address, b"key", ["a b a"]])
    driver.start()
    until_it_listens = Wait("driver", *address)
    until_it_listens.wait()
    threading.Thread(target=mapreduce.work, args=[job, address, b"key", []], daemon=True).start()
    driver.join(10)
    assert json.loads((tmp_path / "result").read_text()) == {"a": 2, "b": 1}
