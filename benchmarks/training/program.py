"""The user's script of a benchmark: a training that says when what happened."""

from __future__ import annotations

from benchmarks.scripts import SCRIPTS

RANKS = 2
BEGAN, MET, ENDED, USED = "began", "met", "ended", "used"
"""Words of its lines: each is followed by seconds since the epoch, but for ``USED``, processor seconds. All but ``MET``
are rank 0's alone."""


PIN = """
cores = sorted(os.sched_getaffinity(0))
local_rank = os.environ.get("HOROVOD_LOCAL_RANK") or os.environ["LOCAL_RANK"]
os.sched_setaffinity(0, {cores[int(local_rank) % len(cores)]})
"""


def program(framework: str, steps: int, *, pinned: bool = False) -> str:
    """The script, for any launcher of that framework.

    :param pinned: whether each rank keeps to a core of its own.
    """
    script = SCRIPTS[framework]
    return f"""import time
began = time.time()
import os, sys
{PIN if pinned else ""}
def say(word, figure):
    sys.stdout.write(f"{{word}} {{figure}}\\n")  # in one piece, as launchers mix the ranks' outputs
    sys.stdout.flush()

{script.imports}{script.meet}say({MET!r}, time.time())
{script.prepare}for _ in range({steps}):
    {script.step}{script.leave}if "0" in (os.environ.get("RANK"), os.environ.get("HOROVOD_RANK")):
    say({USED!r}, time.process_time())
    say({BEGAN!r}, began)
    say({ENDED!r}, time.time())
"""
