"""torch: scripts that are written for ``torchrun``, or that call ``torch.distributed.init_process_group()``."""

from __future__ import annotations

from practicus_provider.adapters import TRAINING
from practicus_provider.adapters.elastic import ElasticAdapter
from practicus_provider.plan import Framework


class TorchAdapter(ElasticAdapter):
    """PyTorch; ``init_process_group()`` finds the other ranks by ``env://``, its default."""

    client = "practicus_runtime.groups:torch_group"
    framework = Framework({"torch": "pip install torch"}, TRAINING)
    rules = "torch"
    meets = "torch"
