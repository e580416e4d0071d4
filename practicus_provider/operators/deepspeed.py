"""DeepSpeed jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk.definitions.xcom_arg import XComArg

from practicus_provider.errors import SpecError
from practicus_provider.operators.job import PracticusRunJobOperator


class PracticusDeepSpeedOperator(PracticusRunJobOperator):
    """Trains by DeepSpeed on temporary workers: each runs the application ``procs_per_worker`` times.

    Takes every argument of :class:`~practicus_provider.operators.job.PracticusRunJobOperator` but ``adapter``, and
    ``coordinator_resources``, which has no meaning here.

    :param ds_config: DeepSpeed's configuration: a dict, the path of a JSON file beside the DAG, or a ``local:///path``
        that is there where the job runs. The script gets it as ``--deepspeed_config FILE``; None: it has its own. It is
        this framework's name of ``conf``. (templated)
    :param ds_config_argument: by which the script takes that file: ``--deepspeed`` for Hugging Face's.
    :param local_rank: whether the script's first argument is ``--local_rank=N``, as from the command ``deepspeed``;
        False is its ``--no_local_rank``, for a script that does not take it.
    """

    def __init__(
        self,
        *,
        ds_config: Mapping[str, Any] | str | XComArg | None = None,
        ds_config_argument: str = "--deepspeed_config",
        local_rank: bool = True,
        **kwargs: Any,
    ) -> None:
        if ds_config is not None and "conf" in kwargs:
            raise SpecError("conf", kwargs["conf"], "it is what ds_config= gives: leave one of them out")
        self.ds_config_argument = ds_config_argument
        self.local_rank = local_rank
        super().__init__(adapter="deepspeed", **{"conf": ds_config, **kwargs})
