"""DeepSpeed: torch's process group, and DeepSpeed's configuration as the file that scripts take.

Sources: *DeepSpeed Configuration JSON* (https://www.deepspeed.ai/docs/config-json/); for the batch
``deepspeed.runtime.config``, ``_set_batch_related_parameters``, and for ``--local_rank`` ``deepspeed.launcher.launch``,
version 0.19.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from practicus_provider.adapters import TRAINING, Program
from practicus_provider.adapters.spmd import SpmdAdapter, procs, world_size
from practicus_provider.errors import SpecError
from practicus_provider.plan import Framework, Here, Text
from practicus_provider.runtime.practicus_runtime.contract import Env
from practicus_provider.spec import JobSpec

FILE: Text = (Here.SCRATCH, "/ds_config.json")
BATCH, MICRO, STEPS = "train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"
AUTO = "auto"  # Hugging Face's trainer fills it in


class DeepSpeedAdapter(SpmdAdapter):
    """DeepSpeed; ``deepspeed.init_distributed()`` finds the other ranks.

    ``spec.conf`` is DeepSpeed's configuration, or the ``local:///path`` of one. A script gets it as
    ``--deepspeed_config FILE``, or by the argument that ``spec.ds_config_argument`` names, and as the variable
    ``DS_CONFIG``. Its first argument is ``--local_rank=N``, as from DeepSpeed's launcher, unless ``spec.local_rank`` is
    False: that launcher's ``--no_local_rank``.
    """

    client = "practicus_runtime.groups:deepspeed_group"
    meets = "torch"
    framework = Framework({"deepspeed": "pip install deepspeed", "torch": "pip install torch"}, TRAINING)

    def env(self, spec: JobSpec) -> dict[str, Text]:
        """See :meth:`SpmdAdapter.env`."""
        config: dict[str, Text] = {"DS_CONFIG": _path(spec)} if spec.conf else {}
        local_rank: dict[str, Text] = {Env.LOCAL_RANK: "--local_rank"} if spec.local_rank else {}
        return {**super().env(spec), "LOCAL_SIZE": str(procs(spec)), **local_rank, **config}

    def arguments(self, spec: JobSpec) -> Program:
        """See :meth:`SpmdAdapter.arguments`."""
        return (spec.ds_config_argument, _path(spec)) if spec.conf else ()

    def files(self, spec: JobSpec) -> dict[str, Text]:
        """See :meth:`SpmdAdapter.files`."""
        if isinstance(spec.conf, str) or not spec.conf:
            return {}
        check(spec.conf, spec)
        try:
            return {"ds_config.json": json.dumps(spec.conf, indent=2, allow_nan=False)}
        except (TypeError, ValueError) as error:
            raise SpecError("ds_config", spec.conf, f"give what JSON can hold: {error}") from error


def _path(spec: JobSpec) -> Text:
    return spec.conf.removeprefix("local://") if isinstance(spec.conf, str) else FILE


def check(config: Mapping[str, Any], spec: JobSpec) -> None:
    """Refuse what DeepSpeed would refuse once all workers run.

    :raises SpecError: the batch does not go into equal parts, or half precision is asked for without a GPU.
    """
    sizes = {name: config[name] for name in (BATCH, MICRO, STEPS) if config.get(name) not in (None, AUTO)}
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise SpecError(f"ds_config[{name!r}]", size, "give a whole number of at least 1")
    if BATCH not in sizes and MICRO not in sizes and AUTO not in (config.get(BATCH), config.get(MICRO)):
        raise SpecError("ds_config", dict(config), f"DeepSpeed needs {BATCH} or {MICRO}")
    if BATCH in sizes and AUTO not in (config.get(MICRO), config.get(STEPS)):
        _check_batch(sizes, spec)
    match config.get("fp16"):
        case {"enabled": True} as fp16 if not has_device(spec):
            way_out = "DeepSpeed has fp16 on GPUs alone: give worker_resources=Resources(gpu=...), or use bf16"
            raise SpecError("ds_config['fp16']", fp16, way_out)


def _check_batch(sizes: Mapping[str, int], spec: JobSpec) -> None:
    """The whole batch is micro batch x accumulation x ranks; DeepSpeed computes what is left out."""
    world = world_size(spec)
    part = world * sizes.get(MICRO, 1) * sizes.get(STEPS, 1)
    whole = MICRO in sizes and STEPS in sizes
    if sizes[BATCH] != part if whole else sizes[BATCH] % part:
        factors = [f"{sizes[name]} ({name})" for name in (MICRO, STEPS) if name in sizes]
        factors.append(f"{world} (ranks{'' if spec.groups else f': {spec.min_workers} workers x {procs(spec)}'})")
        relation = "is not" if whole else "is no multiple of"
        way_out = f"{sizes[BATCH]} {relation} {' x '.join(factors)}{f' = {part}' if len(factors) > 1 else ''}"
        way_out += f"; change one, or leave {BATCH} out where ranks share a model: DeepSpeed computes it"
        raise SpecError(f"ds_config[{BATCH!r}]", sizes[BATCH], way_out)


def has_device(spec: JobSpec) -> bool:
    """Whether workers ask for a GPU, or for another device."""
    return bool(spec.worker_resources.gpu or spec.worker_resources.extra)
