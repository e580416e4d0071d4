"""Takes 100 MiB, and returns what this container may have of it (``cgroup`` version 2, else 1)."""

from pathlib import Path

import practicus_runtime

taken = b"x" * (100 << 20)
limits = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
practicus_runtime.set_result(int(next(limit for limit in limits if limit.exists()).read_text()) >> 20)
