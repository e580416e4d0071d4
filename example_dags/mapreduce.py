"""MapReduce over plain sockets: a whole framework and its adapter, in one file to copy from.

An application is a Python file with three functions: ``split(*args)`` lists inputs, ``map(input)`` returns pairs of key
and value, ``reduce(key, values)`` returns one value. The driver hands out the work, each worker connects and takes it.
All that travels is JSON, between processes that know a common key: no pickle, and no stranger.
"""

import inspect
import json
import queue
import secrets
import socket
import threading
from multiprocessing import AuthenticationError, connection

from practicus_provider.adapters import Adapter, Program
from practicus_provider.errors import SpecError
from practicus_provider.plan import Here, Host, Launch, Port, Role
from practicus_provider.spec import JobSpec

WORK = Port("driver", "work")


class MapReduceAdapter(Adapter):
    """What the provider needs to know: which roles there are, and how each is launched."""

    def roles(self, spec: JobSpec, program: Program) -> tuple[Role, ...]:
        """The driver listens; ``spec.workers`` workers start once it does."""
        if spec.elastic or spec.conf:
            raise SpecError("workers, conf", (spec.workers, spec.conf), "give a number of workers, and no conf")
        main = (program[0], (Here.SCRATCH, "/mapreduce_main.py"))
        common = {"files": {"mapreduce_main.py": MAIN}, "env": {**spec.env, "MAPREDUCE_KEY": secrets.token_hex()}}
        driver = Launch((*main, "drive", Here.HOST, WORK, *program[1:]), ports={"work": 7077}, **common)
        worker = Launch((*main, "work", Host("driver"), WORK, *program[1:]), after=(WORK,), **common)
        return (
            Role("driver", driver, resources=spec.coordinator_resources),
            Role("worker", worker, spec.min_workers, spec.worker_resources),
        )


# The rest runs in the replicas, where this provider need not be installed: MAIN holds it without the adapter.


def drive(job: dict, address: tuple[str, int], key: bytes, args: list[str]) -> None:
    """Hand out the inputs, then the keys; a thread of its own serves each worker."""
    import practicus_runtime

    tasks, answers = queue.Queue(), queue.Queue()

    def accept(listener: connection.Listener) -> None:
        while True:
            try:
                threading.Thread(target=serve, args=[listener.accept()], daemon=True).start()
            except (OSError, EOFError, AuthenticationError):
                continue  # a stranger, or somebody who looked whether we listen

    def serve(worker: connection.Connection) -> None:
        while True:
            task = tasks.get()
            try:
                worker.send_bytes(json.dumps(task).encode())
                answers.put(json.loads(worker.recv_bytes()))
            except (OSError, EOFError):
                return tasks.put(task)  # this worker is gone; another one takes it

    def run(function: str, calls: list) -> list:
        for call in calls:
            tasks.put([function, *call])
        return [answers.get() for _ in calls]

    family = "AF_INET6" if ":" in address[0] else "AF_INET"
    listener = connection.Listener(address, family, backlog=64, authkey=key)
    threading.Thread(target=accept, args=[listener], daemon=True).start()
    groups = {}
    for pairs in run("map", [[item] for item in job["split"](*args)]):
        for name, value in pairs:
            groups.setdefault(name, []).append(value)
    practicus_runtime.progress(0.5, f"reducing {len(groups)} keys")
    practicus_runtime.set_result(dict(run("reduce", list(groups.items()))))


def work(job: dict, address: tuple[str, int], key: bytes, args: list[str]) -> None:
    """Do what the driver says until it is gone."""
    driver = connection.Connection(socket.create_connection(address).detach())  # Client() knows IPv4 alone
    connection.answer_challenge(driver, key)
    connection.deliver_challenge(driver, key)
    while True:
        try:
            function, *call = json.loads(driver.recv_bytes())
        except (OSError, EOFError):
            return
        answer = job["map"](*call) if function == "map" else [call[0], job["reduce"](*call)]
        driver.send_bytes(json.dumps(answer).encode())


MAIN = f"""
import json, os, queue, runpy, socket, sys, threading
from multiprocessing import AuthenticationError, connection
{inspect.getsource(drive)}
{inspect.getsource(work)}
does, host, port, application, *args = sys.argv[1:]
globals()[does](runpy.run_path(application), (host, int(port)), os.environ["MAPREDUCE_KEY"].encode(), args)
"""
