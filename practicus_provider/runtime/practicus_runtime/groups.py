"""What ``practicus_runtime.get_client()`` gives in a training: the initialised process group."""

from __future__ import annotations

import os
from typing import Any


def torch_group() -> Any:
    """torch's default process group: NCCL for GPUs, Gloo for the rest, or what the script has chosen."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group()
    return torch.distributed.group.WORLD


def deepspeed_group() -> Any:
    """The same, by DeepSpeed's ``init_distributed``."""
    import deepspeed
    import torch

    deepspeed.init_distributed()
    return torch.distributed.group.WORLD


def horovod() -> Any:
    """The initialised module ``horovod.torch``."""
    import horovod.torch as hvd

    hvd.init()
    return hvd
