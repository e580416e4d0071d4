"""Throws garbage at whatever reads what a job has written: ``python -m tests.attacks.fuzz --target http``.

Each case is made from a seed and its number alone, so that what was found is seen again with ``--case``. Found is what
no reader may do: raise something else than the error that it documents, hang, take memory without end, or leave a
traceback in a log.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

import practicus_provider

HANG = 20.0
"""Seconds that a case may take: some thousand times what it does."""
GROWTH = 256 << 20
"""Bytes by which the process may grow over all cases."""
SETTLED = 50
"""Cases after which it has imported, and cached, what it needs."""
ENOUGH = 20
"""Findings after which it ends: the next ones would be the same."""

Case = Callable[[random.Random], Awaitable[None]]
"""One case; raises what was found."""
Target = Callable[[], AbstractAsyncContextManager[Case]]


class Found(AssertionError):
    """What a reader may not do."""


@dataclass(frozen=True)
class Finding:
    """What one case has shown."""

    case: int
    what: str


@dataclass
class Report:
    """What came of a run.

    :ivar grown: bytes by which the process grew after :data:`SETTLED` cases.
    """

    target: str
    seed: int
    cases: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    grown: int = 0
    findings: list[Finding] = field(default_factory=list)


async def run(name: str, target: Target, seed: int, seconds: float, only: int | None = None) -> Report:
    """Run cases one after the other, until the time is over.

    :param only: number of the one case to run.
    """
    report, loose = Report(name, seed), list[str]()
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of each connection that the other side has closed
    asyncio.get_running_loop().set_exception_handler(lambda _, context: loose.append(_words(context)))
    begin, process, before = time.monotonic(), psutil.Process(), 0
    async with target() as case:
        number = only or 0
        while time.monotonic() - begin < seconds and len(report.findings) < ENOUGH:
            since = time.monotonic()
            try:
                async with asyncio.timeout(HANG):
                    await case(random.Random(f"{seed}:{number}"))
                found = loose.pop() if loose else ""
            except TimeoutError:
                found = f"it took more than {HANG:g} s"
            except Exception as error:
                found = f"{type(error).__name__}: {error}"
            if found:
                report.findings.append(Finding(number, found[:2000]))
            report.slowest = max(report.slowest, time.monotonic() - since)
            number, report.cases = number + 1, report.cases + 1
            if report.cases == SETTLED:
                before = process.memory_info().rss
            if only is not None:
                break
    report.seconds = round(time.monotonic() - begin, 1)
    report.grown = max(0, process.memory_info().rss - before) if before else 0
    if report.grown > GROWTH:
        report.findings.append(Finding(number, f"the process grew by {report.grown >> 20} MiB"))
    return report


def _words(context: dict[str, Any]) -> str:
    return f"{context['message']}: {context.get('exception')!r}"


# ---- garbage

TOKENS = (
    *(b"", b"\0", b"\r\n", b"\r\n\r\n", b"\n", b" ", b"{", b"}", b"[", b"]", b'"', b":", b",", b"\\ud800", b"\xff\xfe"),
    *(b"NaN", b"Infinity", b"1e999", b"-1", b"0", b"null", b"true", b"9" * 400, b"\xed\xa0\x80", b"\xc3", b"\x1e"),
    *(b"chunked", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"),
    *(b"Location: //x\r\n", b"Location: http://[\r\n", b"Content-Type: multipart/x\r\n", b"HTTP/1.0 200\r\n"),
    *(b"\x81\x7e\xff\xff", b"\x82\x7f" + b"\xff" * 8, b"\x89\x00", b"\x88\x02\x03", b"\xc1", b"\x00\x00"),
)


def mutated(chance: random.Random, seeds: Sequence[bytes], most: int = 6) -> bytes:
    """One of these, or two, with pieces cut out, doubled, changed and put in."""
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.randint(0, most)):
        at, length = chance.randint(0, len(data)), chance.choice((1, 1, 2, 4, 16, 256))
        match chance.randrange(6):
            case 0:
                data[at : at + length] = b""
            case 1:
                data[at:at] = chance.choice(TOKENS)
            case 2:
                data[at : at + 1] = bytes([chance.randrange(256)])
            case 3:
                data[at:at] = data[at : at + length] * chance.choice((1, 2, 50))
            case 4:
                other = chance.choice(seeds)
                data[at:] = other[chance.randint(0, len(other)) :]
            case 5:
                data[at : at + length] = chance.randbytes(length)
    return bytes(data[: 1 << 22])


def pieces(chance: random.Random, data: bytes) -> list[bytes]:
    """The same, as it may come."""
    found = []
    while data:
        size = chance.choice((1, 2, 7, 64, 1000, 1 << 16))
        found.append(data[:size])
        data = data[size:]
        if len(found) > 200:
            return [*found, data] if data else found
    return found


ATOMS: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 3, 127, 128, 255, 256, 2**31, 10**400, 0.5, -0.5, 1e300, float("nan"), float("inf")),
    *("", "a", "driver-0", "worker-1", "\ud800", "a\nb", "\0", "ü", "x" * 600, "ended", "started", "scale", "watch"),
    *("keep", "free", "failed", "done", "lines", "worker", "coordinator", "delete"),
)


def value(chance: random.Random, keys: Sequence[str], depth: int = 0) -> Any:
    """Whatever JSON may hold, in dicts with some of these keys."""
    kind = chance.randrange(8 if depth < 4 else 5)
    if kind == 5:
        return [value(chance, keys, depth + 1) for _ in range(chance.randrange(4))]
    if kind > 5:
        return {chance.choice(keys): value(chance, keys, depth + 1) for _ in range(chance.randrange(6))}
    return chance.choice(ATOMS)


def like(chance: random.Random, data: Any, keys: Sequence[str]) -> Any:
    """Such JSON, but for some of its fields."""
    if chance.random() < 0.1:
        return value(chance, keys)
    if isinstance(data, dict):
        kept = {name: like(chance, one, keys) for name, one in data.items() if chance.random() > 0.05}
        return kept | ({chance.choice(keys): value(chance, keys)} if chance.random() < 0.2 else {})
    return [like(chance, one, keys) for one in data] if isinstance(data, list) else data


# ---- the command


def main() -> int:
    """Run, and say what was found; 1 if something was."""
    sys.path.insert(0, str(Path(practicus_provider.__file__).parent / "runtime"))
    from tests.attacks.targets import TARGETS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", choices=sorted(TARGETS), required=True)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="run this case alone")
    parser.add_argument("--json", action="store_true", help="print a line of JSON")
    asked = parser.parse_args()
    report = asyncio.run(run(asked.target, TARGETS[asked.target], asked.seed, asked.seconds, asked.case))
    if asked.json:
        print(json.dumps(asdict(report)))
    else:
        print(f"{report.target}: {report.cases} cases of seed {report.seed} in {report.seconds:g} s")
        for finding in report.findings:
            print(f"case {finding.case}: {finding.what}")
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
