"""What the provider and a replica's processes say to each other: the names and the formats, each of them here alone.

The provider imports this module as ``practicus_provider.runtime.practicus_runtime.contract``, a replica as
``practicus_runtime.contract``. So whatever else both of them import says ``from .contract import ...``.

What a job may have written is hostile. Each ``from_json`` takes whatever JSON holds, and raises nothing: a field that
is missing, of another type, or out of its bounds is left out. ``to_json`` gives what may go into JSON, and
``from_json`` reads it back. They are named tuples, since ``dataclasses`` takes longer to import than all else that a
process of ours needs.
"""

from __future__ import annotations

import json
import re
from typing import Any, Dict, List, NamedTuple, Optional, Tuple, Union

PREFIX = "PRACTICUS_"
"""Of our variables' names: nobody else's begin so."""


class Env:
    """Environment variables that tell a replica, or one of its processes, what it has to know."""

    # ---- of every replica

    TASK = "PRACTICUS_TASK"
    """The task instance, as a JSON object: see :class:`practicus_runtime.Context`."""
    ROLE = "PRACTICUS_ROLE"
    """Name of its role."""
    INDEX = "PRACTICUS_INDEX"
    """Its index in its role, from 0."""
    HOST = "PRACTICUS_HOST"
    """Its own address, as others of its cluster reach it; one of IPv6 has no brackets."""
    START_TIMEOUT = "PRACTICUS_START_TIMEOUT"
    """Seconds in which all replicas should run."""
    CLIENT = "PRACTICUS_CLIENT"
    """``module:attribute.path`` that ``get_client()`` calls; missing where the adapter names none."""
    VOLUMES = "PRACTICUS_VOLUMES"
    """JSON object: a volume's path -> where that is found; missing where there are none."""
    CHECKPOINT_DIR = "PRACTICUS_CHECKPOINT_DIR"
    """The task instance's folder for checkpoints; missing where no volume keeps what is written."""
    RESULT = "PRACTICUS_RESULT"
    """File that takes the result of this process."""
    RESULT_OF = "PRACTICUS_RESULT_OF"
    """The role whose results are asked for, where this one's are not."""
    FAILURE = "PRACTICUS_FAILURE"
    """File in which a command says how another process ended, for which it fails."""
    KEY = "PRACTICUS_KEY"
    """The cluster's key, where its replicas must know each other."""
    CLUSTER = "PRACTICUS_CLUSTER"
    """Mark of every process of a local cluster: its uid."""
    REPLICA = "PRACTICUS_REPLICA"
    """Mark of every process of a local replica: ``uid/role-index``."""
    CONTROL = "PRACTICUS_CONTROL"
    """Socket of the local supervisor; missing in a pod."""
    BUNDLE = "PRACTICUS_BUNDLE"
    """Folder of the ConfigMap that travels with a job; in a pod alone."""
    NONCE = "PRACTICUS_NONCE"
    """The pod's uid, which marks the end of its output. The launcher alone sees it."""

    # ---- of ranks

    LOCAL_RANK = "PRACTICUS_LOCAL_RANK"
    """Name of the script's argument that says the local rank; missing where it has none."""
    WORKERS_BEFORE = "PRACTICUS_WORKERS_BEFORE"
    """Workers of the groups before this one's; missing where there is one group."""
    RANKS_BEFORE = "PRACTICUS_RANKS_BEFORE"
    """Ranks of these."""
    MEETS = "PRACTICUS_MEETS"
    """The framework whose function waits for the place where ranks meet; missing: they wait before they start."""
    PREPARE = "PRACTICUS_PREPARE"
    """Module that a rank imports before its script."""
    RANK_FAILURE = "PRACTICUS_RANK_FAILURE"
    """File in which one rank says how it has failed."""
    STACK = "PRACTICUS_STACK"
    """File that takes the stacks of one rank's threads, where ranks are watched for hangs."""
    PROGRESS_TIMEOUT = "PRACTICUS_PROGRESS_TIMEOUT"
    """Seconds in which some rank has to write something; missing where nobody watches."""
    HANGS_ADDR = "PRACTICUS_HANGS_ADDR"
    """Address at which the first replica hears of all ranks' output."""
    HANGS_PORT = "PRACTICUS_HANGS_PORT"
    """The port there."""

    # ---- of trainings and clusters that change while they run

    ELASTIC = "PRACTICUS_ELASTIC"
    """Of who leads them: :class:`Limits`, as a JSON object."""
    SPAWNS = "PRACTICUS_SPAWNS"
    """Of who makes other replicas: their role."""
    COORDINATOR = "PRACTICUS_COORDINATOR"
    """``host:port`` at which workers join an elastic training."""
    STORE = "PRACTICUS_STORE"
    """``host:port`` at which Horovod's ranks ask for their places."""
    NOTICE = "PRACTICUS_NOTICE"
    """File that tells Horovod's ranks that others have joined."""

    # ---- of single frameworks

    CLIENTS_PORT = "PRACTICUS_CLIENTS_PORT"
    """Port at which Dask's scheduler tells from where clients have come."""
    DRIVER_PORT = "PRACTICUS_DRIVER_PORT"
    """Port at which Spark's driver hears of its executors."""
    DRIVER_TOKEN = "PRACTICUS_DRIVER_TOKEN"
    """What they show there."""


LAUNCH_FILE = "launch.json"
"""In a local replica's scratch folder: its :class:`ReplicaLaunch`."""
LAUNCHES_FILE = "launches.json"
"""In a pod's ConfigMap: role -> its :class:`RoleLaunch`."""
NO_DNS = "its name does not resolve, as no DNS server answers"
NO_NAME = "its name does not resolve: DNS knows no such name"
REFUSED = "connection refused"
TIMED_OUT = "connection timed out"
"""What is in the way of who waits for another replica; all else are words of the system's."""

RESULT_FILE = "result.json"
"""Name of the file ``Env.RESULT`` in a folder of the replica's own."""
FAILURE_FILE = "failure.json"
"""Likewise of ``Env.FAILURE``."""
MESSAGE_LIMIT = 4096
"""Bytes that Kubernetes takes of a container's last words."""
FAILURE_LIMIT = 4096
"""Bytes of a file in which somebody says how a process has failed, and of a line of a launcher's report."""
RESULT_LIMIT = 1 << 20
"""Bytes of JSON that a result may have: it becomes an XCom, a row in Airflow's database."""
RESULT_MARK = "\x1epracticus-result "
"""Starts a line of the output that holds a part of a result too long for the last words; ends the line before."""
RESULT_LINE = 8192
"""Characters of such a part; a container runtime splits lines over 16 KiB."""
RESULT_LINES = RESULT_LIMIT // RESULT_LINE + 1
"""Lines of a log that a result takes at most, where it does not fit into the last words."""
END_MARK = "\x1epracticus-end "
"""Starts the end of both outputs: the nonce and the last words follow; what is before it on its line is output."""

LATEST = 250_000_000_000
"""Seconds since the epoch up to which something may be said to happen: ``datetime`` ends after it, in year 9999."""
REQUEST_LIMIT = 4096
"""Bytes of a request at ``Env.CONTROL``."""
TEXT_LIMIT = 500
"""Characters of a text that somebody may read in a verdict."""
NAME = re.compile(r"[a-z0-9-]{1,63}")
"""Of a replica: ``role-index``."""


Text = List[Union[str, Dict[str, str]]]
"""Strings, and ``{"here": ...}`` for what only the pod knows (:class:`practicus_provider.plan.Here`), to be joined."""


class Place(NamedTuple):
    """A port of another replica's."""

    who: str
    host: str
    port: int


class Limits(NamedTuple):
    """How many workers an elastic cluster may have, and what an elastic training allows, by torchrun's names where that
    has them. As JSON it is ``Env.ELASTIC``; Dask's scheduler has no use for more than the bounds.

    :param max_restarts: rounds that may begin because a rank has failed; of lost members there may be any number.
    :param join_timeout: seconds for which fewer members than ``minimum`` wait for others.
    :param last_call_timeout: seconds for which so many wait for still others.
    """

    minimum: int
    maximum: int
    max_restarts: int = 3
    join_timeout: float = 600
    last_call_timeout: float = 10

    @classmethod
    def from_json(cls, data: Dict[str, Any]) -> Limits:  # noqa: UP006  (Python 3.8)
        """Inverse of :meth:`to_json`.

        :raises TypeError: a bound is missing, or there is another field.
        """
        return cls(**data)

    def to_json(self) -> Dict[str, Any]:  # noqa: UP006  (Python 3.8)
        """A JSON-able object."""
        return self._asdict()


class RoleLaunch(NamedTuple):
    """How each replica of a role is started in its pod: one of those in :data:`LAUNCHES_FILE`, by the role's name.

    :param env: variable -> its value.
    :param files: path below the scratch folder -> content.
    :param after: what must accept connections before the command starts.
    :param grace: seconds that the command has between SIGTERM and SIGKILL.
    :param spawns: name of the role whose replicas this one asks for, or starts.
    """

    command: List[Text]  # noqa: UP006  (Python 3.8)
    env: Dict[str, Text]  # noqa: UP006
    files: Dict[str, Text]  # noqa: UP006
    after: List[Place]  # noqa: UP006
    grace: float
    spawns: Optional[str]  # noqa: UP045

    @classmethod
    def from_json(cls, data: Dict[str, Any]) -> RoleLaunch:  # noqa: UP006  (Python 3.8)
        """Inverse of :meth:`to_json`.

        :raises TypeError: a field is missing, or there is another one.
        """
        return cls(**{**data, "after": [Place(*place) for place in data["after"]]})

    def to_json(self) -> Dict[str, Any]:  # noqa: UP006  (Python 3.8)
        """A JSON-able object."""
        return {**self._asdict(), "after": [list(place) for place in self.after]}


class ReplicaLaunch(NamedTuple):
    """What one launcher is told: in :data:`LAUNCH_FILE` where it is of this machine; in a pod ``boot.py`` tells it.

    :param after: what must accept connections before the command starts.
    :param grace: seconds that the command has between SIGTERM and SIGKILL.
    :param report: file descriptor that takes a :class:`Report` a line.
    :param log: file that takes both outputs; None: they stay as they are.
    :param log_bytes: those of these that are kept.
    :param leash: whether a supervisor holds its standard input, whose end is the supervisor's.
    :param message: file that takes the :class:`LastWords`.
    :param nonce: starts the end of both outputs.
    """

    command: List[str]  # noqa: UP006  (Python 3.8)
    after: List[Place]  # noqa: UP006
    grace: float
    report: Optional[int] = None  # noqa: UP045
    leash: bool = False
    message: Optional[str] = None  # noqa: UP045
    nonce: Optional[str] = None  # noqa: UP045
    log: Optional[str] = None  # noqa: UP045
    log_bytes: int = 0

    @classmethod
    def from_json(cls, data: Dict[str, Any]) -> ReplicaLaunch:  # noqa: UP006  (Python 3.8)
        """Inverse of :meth:`to_json`.

        :raises TypeError: a field is missing, or there is another one.
        """
        return cls(**{**data, "after": [Place(*place) for place in data["after"]]})

    def to_json(self) -> Dict[str, Any]:  # noqa: UP006  (Python 3.8)
        """A JSON-able object."""
        return {**self._asdict(), "after": [list(place) for place in self.after]}


def precedence(signal: Union[int, str, None], at: float) -> Tuple[bool, float]:  # noqa: UP006, UP007  (Python 3.8)
    """Of several failures the least is the cause: the others failed later, in consequence.

    Nobody is sent SIGKILL because another failed, and it leaves no time to say when it was.

    :param signal: its number or its name, where one ended it.
    :param at: when it failed, seconds since the epoch.
    """
    return signal not in (9, "SIGKILL"), at


class Unreached(NamedTuple):
    """Whom a process has waited for in vain.

    :param who: a replica, and where.
    :param why: what was in the way last, such as :data:`REFUSED`.
    :param seconds: for which it has waited.
    """

    who: str
    why: str
    seconds: float

    @classmethod
    def from_json(cls, data: object) -> Optional[Unreached]:  # noqa: UP045  (Python 3.8)
        """Inverse of :meth:`to_json`; None: it is none."""
        fields = _object(data)
        who, why, seconds = _text(fields.get("who")), _text(fields.get("why")), _number(fields.get("seconds"))
        return None if who is None or why is None or seconds is None else cls(who, why, seconds)

    def to_json(self) -> Dict[str, Any]:  # noqa: UP006  (Python 3.8)
        """A JSON-able object."""
        return self._asdict()


class WaitLine(NamedTuple):
    """A line of a replica's log that tells of its wait for another one.

    :param who: is waited for, and where, such as ``worker-0 (10.0.0.7:29500)``.
    :param seconds: for which it has waited.
    :param why: what is in the way; empty: nothing any more, it was reached.
    :param given_up: whether it waits no longer although that is so.
    """

    who: str
    seconds: int
    why: str = ""
    given_up: bool = False

    @classmethod
    def found_in(cls, line: str) -> Optional[WaitLine]:  # noqa: UP045  (Python 3.8)
        """The one that a line of a log ends with, whatever stands before it; None: there is none."""
        found = _WAIT_LINE.search(line)
        return found and cls(found["who"], int(found["seconds"]), found["why"] or "", bool(found["gave_up"]))

    def text(self) -> str:
        """As it is written."""
        if not self.why:
            return f"reached {self.who} after {self.seconds} s"
        if self.given_up:
            return f"gave up waiting for {self.who} after {self.seconds} s: {self.why}"
        return f"waiting for {self.who} since {self.seconds} s: {self.why}"


_WAIT_LINE = re.compile(
    r"(?:reached|(?P<gave_up>gave up )?waiting for) (?P<who>\S.{0,63}? \(\S{1,300}\))"
    r" (?:since|after) (?P<seconds>[0-9]{1,9}) s(?:: (?P<why>.+))?$"
)


class End(NamedTuple):
    """How a process has ended: a replica's command, or another one for which that has failed.

    It stands in the files ``Env.FAILURE`` and ``Env.RANK_FAILURE`` where it failed, in a launcher's report, and in its
    last words.

    :param exit_code: 0 to 255; None where a signal ended it, or where nobody knows.
    :param signal: number of that signal.
    :param rank: which rank it was, if it was one.
    :param at: when, in seconds since the epoch, where it said so itself.
    :param replica: ``role-index`` of where it ran, if it was not here.
    :param silent: seconds for which that rank had written nothing, where all ranks had for too long.
    :param unreached: whom it gave up to wait for, if that was its end.
    :param oom: whether the kernel has killed a process of this container as memory ran out.
    :param stopped: whether the launcher was told to stop it: then exit code 0 does not say that its work is done.
    """

    exit_code: Optional[int] = None  # noqa: UP045  (Python 3.8)
    signal: Optional[int] = None  # noqa: UP045
    rank: Optional[int] = None  # noqa: UP045
    at: Optional[float] = None  # noqa: UP045
    replica: Optional[str] = None  # noqa: UP045
    silent: Optional[float] = None  # noqa: UP045
    unreached: Optional[Unreached] = None  # noqa: UP045
    oom: bool = False
    stopped: bool = False

    @property
    def known(self) -> bool:
        """Whether it says how."""
        return self.exit_code is not None or self.signal is not None

    @property
    def failed(self) -> bool:
        """Whether it says that it did not end well."""
        return bool(self.exit_code or self.signal)

    @property
    def precedence(self) -> Tuple[bool, float]:  # noqa: UP006  (Python 3.8)
        """Of several failures the least is the cause; see :func:`precedence`."""
        return precedence(self.signal, self.at or 0.0)

    def because(self, cause: End) -> End:
        """The end of the process for which this one failed; this one's own where that tells of no failure."""
        return cause._replace(oom=self.oom, stopped=self.stopped) if cause.failed else self

    @classmethod
    def from_json(cls, data: object) -> End:
        """Inverse of :meth:`to_json`."""
        fields = _object(data)
        signal, replica = _whole(fields.get("signal"), 1, 127), fields.get("replica")
        return cls(
            exit_code=_whole(fields.get("exit_code"), 0, 255) if signal is None else None,
            signal=signal,
            rank=_whole(fields.get("rank"), 0, 1 << 31),
            at=_number(fields.get("at")),
            replica=replica if isinstance(replica, str) and NAME.fullmatch(replica) else None,
            silent=_number(fields.get("silent")),
            unreached=Unreached.from_json(fields.get("unreached")),
            oom=fields.get("oom") is True,
            stopped=fields.get("stopped") is True,
        )

    def to_json(self) -> Dict[str, Any]:  # noqa: UP006  (Python 3.8)
        """A JSON-able object: exit code and signal always, else what there is."""
        found = {**self._asdict(), "unreached": self.unreached and self.unreached.to_json()}
        always = ("exit_code", "signal")
        return {name: value for name, value in found.items() if name in always or not (value is None or value is False)}


class LastWords(NamedTuple):
    """What a launcher leaves as its container's termination message, and at the end of its outputs.

    :param result: JSON text that the application has left; None: it has left none, or it is elsewhere.
    :param result_lines: number of lines at the end of the output that have it, where it is too long.
    :param unreadable: why what is said of a result cannot be taken, as a sentence's rest; empty if it can be.
    """

    end: End = End()
    result: Optional[str] = None  # noqa: UP045  (Python 3.8)
    result_lines: Optional[int] = None  # noqa: UP045
    unreadable: str = ""

    @property
    def complete(self) -> bool:
        """Whether nothing more is to be had of who said them: it ended well, and they hold its result."""
        whole = self.result_lines is None and not self.unreadable
        return self.end.exit_code == 0 and not self.end.stopped and whole

    @classmethod
    def from_json(cls, data: object) -> LastWords:
        """Inverse of :meth:`to_json`."""
        fields = _object(data)
        end = End.from_json(fields)
        if "result_lines" in fields:
            lines = fields["result_lines"]
            if _whole(lines, 1, RESULT_LINES) is not None:
                return cls(end, result_lines=lines)
            number = f"lines of its log whose number is {_kind(lines)}"
            what = f"{lines} lines of its log"[:TEXT_LIMIT] if type(lines) is int else number
            return cls(end, unreadable=f"is said to have {what}; from 1 to {RESULT_LINES} fit")
        result = fields.get("result")
        if result is None:
            return cls(end, unreadable="" if "result" in fields or not end.known else "is not told of")
        if isinstance(result, str):
            return cls(end, result)
        return cls(end, unreadable=f"is no JSON text, but {_kind(result)}")

    def to_json(self) -> Dict[str, Any]:  # noqa: UP006  (Python 3.8)
        """A JSON-able object; what cannot be taken is left out."""
        if self.unreadable:
            return self.end.to_json()
        if self.result_lines is not None:
            return {**self.end.to_json(), "result_lines": self.result_lines}
        return {**self.end.to_json(), "result": self.result}


class Report(NamedTuple):
    """A line that a launcher writes for the supervisor that holds it: that its command has started, or how it ended.

    :param pid: of the command.
    """

    pid: Optional[int] = None  # noqa: UP045  (Python 3.8)
    end: Optional[End] = None  # noqa: UP045

    @classmethod
    def from_json(cls, data: object) -> Report:
        """Inverse of :meth:`to_json`; it has nothing if it is neither."""
        fields = _object(data)
        event = fields.get("event")
        if event == "ended":
            return cls(end=End.from_json(fields))
        return cls(pid=_whole(fields.get("pid"), 1, 1 << 31) if event == "started" else None)

    def to_json(self) -> Dict[str, Any]:  # noqa: UP006  (Python 3.8)
        """A JSON-able object."""
        if self.end is not None:
            return {"event": "ended", **self.end.to_json()}
        return {"event": "started", "pid": self.pid}


class Scale(NamedTuple):
    """A request at ``Env.CONTROL``: have so many replicas of an elastic role in all."""

    role: str
    replicas: int

    @classmethod
    def from_json(cls, data: object) -> Optional[Scale]:  # noqa: UP045  (Python 3.8)
        """Inverse of :meth:`to_json`; None: it is none."""
        fields = _object(data)
        role, replicas = _text(fields.get("role")), _whole(fields.get("replicas"), -(1 << 31), 1 << 31)
        return None if fields.get("do") != "scale" or role is None or replicas is None else cls(role, replicas)

    def to_json(self) -> Dict[str, Any]:  # noqa: UP006  (Python 3.8)
        """A JSON-able object."""
        return {"do": "scale", **self._asdict()}


class Joining(NamedTuple):
    """What a replica of an elastic training says first, once it has shown that it holds the key: who it is.

    :param address: at which its first rank may be reached.
    :param port: at which that may listen.
    :param slots: ranks that it has.
    """

    name: str
    address: str
    port: int
    slots: int

    @classmethod
    def from_json(cls, data: object) -> Optional[Joining]:  # noqa: UP045  (Python 3.8)
        """Inverse of :meth:`to_json`; None: it is none."""
        fields = _object(data)
        name, address = fields.get("name"), _text(fields.get("address"))
        port, slots = _whole(fields.get("port"), 1, 65535), _whole(fields.get("slots"), 1, 65535)
        if not isinstance(name, str) or not NAME.fullmatch(name) or address is None or port is None or slots is None:
            return None
        return cls(name, address, port, slots)

    def to_json(self) -> Dict[str, Any]:  # noqa: UP006  (Python 3.8)
        """A JSON-able object."""
        return self._asdict()


class Saying(NamedTuple):
    """What it says of its ranks from then on.

    :param say: what has happened, ``lines``, ``free`` (they have ended as they were told to), ``failed`` or ``done``.
    :param lines: that rank 0 has written, or the last ones of the rank that has failed.
    :param failure: how that one has failed.
    :param result: JSON text that rank 0 has left, where all have ended well; None: it has left none.
    """

    say: str
    lines: List[str] = []  # noqa: UP006, RUF012  (Python 3.8; nobody changes it)
    failure: End = End()
    result: Optional[str] = None  # noqa: UP045

    @classmethod
    def from_json(cls, data: object) -> Optional[Saying]:  # noqa: UP045  (Python 3.8)
        """Inverse of :meth:`to_json`; None: it is none."""
        fields = _object(data)
        say, lines, result = fields.get("say"), fields.get("lines", []), fields.get("result")
        is_text = isinstance(lines, list) and all(isinstance(line, str) for line in lines)
        if say not in ("lines", "free", "failed", "done") or not is_text or not isinstance(result, (str, type(None))):
            return None
        failure = End.from_json(fields.get("failure"))
        return cls(say, [writable(line) for line in lines], failure, result and writable(result))

    def to_json(self) -> Dict[str, Any]:  # noqa: UP006  (Python 3.8)
        """A JSON-able object."""
        return {**self._asdict(), "failure": self.failure.to_json()}


def template_file(role: str) -> str:
    """Name of the file in a pod's ConfigMap that has the template of an elastic role's pods."""
    return f"pod-{role}.json"


def parsed(text: Union[str, bytes], limit: int) -> object:  # noqa: UP007  (Python 3.8)
    """What a JSON text holds; None if it is longer than ``limit``, or is no such text that can be read."""
    if len(text) > limit:
        return None
    try:
        found: object = json.loads(text if isinstance(text, str) else text.decode())
    except (ValueError, RecursionError):
        return None
    return found


def _object(data: object) -> Dict[str, Any]:  # noqa: UP006  (Python 3.8)
    return data if isinstance(data, dict) else {}


def _whole(value: object, least: int, most: int) -> Optional[int]:  # noqa: UP045  (Python 3.8)
    """That whole number; True and False are none."""
    return value if type(value) is int and least <= value <= most else None


def _number(value: object) -> Optional[float]:  # noqa: UP045  (Python 3.8)
    """That number of seconds; NaN is within no bounds."""
    return value if (type(value) is int or type(value) is float) and 0 <= value <= LATEST else None


def _text(value: object) -> Optional[str]:  # noqa: UP045  (Python 3.8)
    """That text of one line; half of a pair of surrogates is not printable either."""
    return value if isinstance(value, str) and len(value) <= TEXT_LIMIT and value.isprintable() else None


def writable(text: str) -> str:
    """A text as it can be written: half of a pair of surrogates cannot."""
    return text.encode(errors="replace").decode()


def _kind(value: object) -> str:
    return f"of type {type(value).__name__}"
