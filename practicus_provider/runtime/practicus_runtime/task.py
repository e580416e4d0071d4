"""What an application is told of its task. Apart from the rest, as ``dataclasses`` takes longer to import than all else
that a process of ours needs.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Dict, Optional

from .contract import Env


@dataclass(frozen=True)
class Context:
    """The task instance that this replica works for, and this process' place in the cluster.

    :param map_index: -1 where the task is not mapped.
    :param attempt: which cluster of this try's it is: 1, and one more after each preemption.
    :param logical_date: ISO 8601, or None for a run without one.
    :param volumes: a volume's ``path`` -> the folder where it is found here: the path itself, but on the local backend.
    """

    dag_id: str
    task_id: str
    run_id: str
    map_index: int
    try_number: int
    attempt: int
    logical_date: Optional[str]  # noqa: UP045  (Python 3.8)
    role: str
    index: int
    rank: int
    world_size: int
    volumes: Dict[str, str]  # noqa: UP006  (Python 3.8)

    @property
    def checkpoint_dir(self) -> Optional[str]:  # noqa: UP045  (Python 3.8)
        """This task instance's folder for what it saves: it outlives the cluster, and every try of the task finds it.

        It is made when it is asked for. None where no volume of the job keeps what is written.

        :raises OSError: the volume cannot be written by this process' user.
        """
        path = os.environ.get(Env.CHECKPOINT_DIR)
        if path is not None:
            os.makedirs(path, exist_ok=True)
        return path
