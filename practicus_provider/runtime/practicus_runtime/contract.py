"""What the provider and a replica's processes say to each other: the names and the formats, each of them here alone.

The provider imports this module as ``practicus_provider.runtime.practicus_runtime.contract``, a replica as
``practicus_runtime.contract``. So whatever else both of them import says ``from .contract import ...``.
"""

from __future__ import annotations

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
    """Of who leads them: how many workers there may be."""
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
