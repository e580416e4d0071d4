"""How large Spark's executors and its driver are: as large as their replicas, whatever is heap in them.

Sources: Spark's page *Configuration*; ``JavaUtils.byteStringAs`` for sizes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from math import ceil

from practicus_provider.errors import SpecError
from practicus_provider.spec import JobSpec, Resources

OVERHEAD = 1.4  # A replica's memory over its JVM's heap: Python, off-heap buffers and the JVM itself need the rest.
LEAST_HEAP_MIB = 512  # Spark refuses one under 450 MiB (UnifiedMemoryManager), and the JVM counts some as its own.
LEAST_OVERHEAD = 0.1  # of a heap that the user chooses (spark.executor.memoryOverheadFactor)
GPUS = "spark.executor.resource.gpu.amount"
OFF_HEAP = "spark.memory.offHeap.size"
_SIZE = re.compile(r"([0-9]+)([a-z]*)")
_SHIFT = {
    unit: 10 * power for power, units in enumerate(["b", "k kb", "m mb", "g gb", "t tb"]) for unit in units.split()
}


def executor_memory(spec: JobSpec, theirs: Mapping[str, str]) -> tuple[int, int]:
    """MiB of an executor's heap, and of what it has beside that and Spark's off-heap memory: in all, its worker's.

    :param theirs: the user's properties.
    :raises SpecError: they ask for more than a worker has, or a worker has too little.
    """
    keys = ["spark.executor.memory", "spark.executor.memoryOverhead", "spark.executor.pyspark.memory"]
    if theirs.get("spark.memory.offHeap.enabled", "").lower() == "true":
        keys.append(OFF_HEAP)
    heap = _heap("worker_resources", spec.worker_resources, theirs, keys)
    off_heap = _mebibytes(OFF_HEAP, theirs[OFF_HEAP]) if OFF_HEAP in keys and OFF_HEAP in theirs else 0
    return heap, (spec.worker_resources.memory_bytes >> 20) - heap - off_heap


def driver_memory(spec: JobSpec, theirs: Mapping[str, str]) -> int:
    """MiB of the driver's heap.

    :param theirs: the user's properties.
    :raises SpecError: they ask for more than the driver has, or it has too little.
    """
    keys = ("spark.driver.memory", "spark.driver.memoryOverhead")
    return _heap("coordinator_resources", spec.coordinator_resources, theirs, keys)


def check_room(spec: JobSpec, theirs: Mapping[str, str]) -> None:
    """Refuse an executor that no worker has the cores or GPUs for, and a job that may not have one whole executor.

    :raises SpecError: naming the property.
    """
    most = spec.worker_resources.cores
    cores = _number("spark.executor.cores", theirs, most)
    if cores > most:
        way_out = f"a worker has {most}: give worker_resources=Resources(cpu={cores}), or less here"
        raise SpecError("conf", {"spark.executor.cores": theirs["spark.executor.cores"]}, way_out)
    if _number("spark.cores.max", theirs, cores) < cores:
        way_out = f"an executor has {cores}: give at least as many, or leave it out"
        raise SpecError("conf", {"spark.cores.max": theirs["spark.cores.max"]}, way_out)
    gpus = _number(GPUS, theirs, 1) if GPUS in theirs else 0
    if gpus > spec.worker_resources.gpu:
        way_out = f"a worker has {spec.worker_resources.gpu}: give worker_resources=Resources(gpu={gpus}), or less here"
        raise SpecError("conf", {GPUS: theirs[GPUS]}, way_out)


def _heap(field: str, resources: Resources, theirs: Mapping[str, str], keys: Iterable[str]) -> int:
    """MiB of heap that a replica has room for, beside what else is asked for; the first key is the heap's own."""
    heap_key, overhead_key, *_ = keys
    asked = {key: theirs[key] for key in keys if key in theirs}
    wanted = {key: _mebibytes(key, text) for key, text in asked.items()}
    beside = sum(wanted.values()) - wanted.get(heap_key, 0)
    overhead = 0.0 if overhead_key in wanted else LEAST_OVERHEAD
    whole = resources.memory_bytes >> 20
    heap = wanted.get(heap_key, min(int(whole / OVERHEAD), int((whole - beside) / (1 + overhead))))
    needed = max(heap, LEAST_HEAP_MIB)
    needed += ceil(needed * overhead) + beside
    if heap >= LEAST_HEAP_MIB and needed <= whole:
        return heap
    if not asked:
        least = int(LEAST_HEAP_MIB * OVERHEAD) + 1
        raise SpecError(f"{field}.memory", resources.memory, f"Spark needs at least {least}Mi")
    if wanted.get(heap_key, LEAST_HEAP_MIB) < LEAST_HEAP_MIB:
        raise SpecError("conf", asked, f"Spark needs a heap of at least {LEAST_HEAP_MIB}m: give that, or leave it out")
    enough = max(needed, ceil(wanted.get(heap_key, LEAST_HEAP_MIB) * OVERHEAD))
    way_out = (
        f"with what the JVM and Python need beside a heap, that is more than the {resources.memory} of {field}: give "
        f"{field}=Resources(memory='{enough}Mi'), or less here"
    )
    raise SpecError("conf", asked, way_out)


def _mebibytes(key: str, text: str) -> int:
    """A size as Spark reads it; without a unit it is in MiB, and off the heap in bytes."""
    match = _SIZE.fullmatch(text.strip().lower())
    unit = match and (match[2] or ("b" if key == OFF_HEAP else "m"))
    if not match or unit not in _SHIFT:
        raise SpecError("conf", {key: text}, "write it as Spark does: '4g' are 4 GiB, '512m' are 512 MiB")
    return int(match[1]) << _SHIFT[unit] >> 20


def _number(key: str, theirs: Mapping[str, str], otherwise: int) -> int:
    text = theirs.get(key, str(otherwise)).strip()
    if not text.isdecimal() or not int(text):
        raise SpecError("conf", {key: text}, "give a whole number of at least 1")
    return int(text)
