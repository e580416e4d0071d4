"""A plain watch of a namespace's pods: it tells of each whose container has ended, as soon as that is to be seen."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import IO

from benchmarks.kubernetes.place import terminated
from practicus_provider.backends.kubernetes.access import Access
from practicus_provider.backends.kubernetes.api import connected
from practicus_provider.backends.kubernetes.labels import CLUSTER

SILENCE = 600.0


async def main(kubeconfig: str, namespace: str, told: IO[str]) -> None:
    """Write the workload's name, and when it was seen; until the process is killed."""
    seen = set()
    async with connected(Access(kubeconfig), namespace) as api:
        version = (await api.list("Pod", labelSelector=CLUSTER, limit="1"))["metadata"]["resourceVersion"]
        async with api.watch("Pod", silence=SILENCE, labelSelector=CLUSTER, resourceVersion=version) as events:
            print("it watches", flush=True)
            async for event in events:
                name = event["object"]["metadata"]["labels"][CLUSTER]
                if name not in seen and terminated(event["object"]):
                    seen.add(name)
                    print(name, time.time(), file=told, flush=True)


if __name__ == "__main__":
    with open(sys.argv[3], "a") as file:
        asyncio.run(main(sys.argv[1], sys.argv[2], file))
