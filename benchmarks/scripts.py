"""The same small training with each framework, in the parts that benchmarks look at. Nothing in them is ours."""

from __future__ import annotations

from dataclasses import dataclass

MODEL = """
import torch, torch.distributed as dist
from torch import nn
net, x = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 1)), torch.randn(64, 256)
"""
STEP = "optimizer.zero_grad(); net(x).sum().backward(); optimizer.step()\n"
LEAVE = "dist.destroy_process_group()\n"


@dataclass(frozen=True)
class Script:
    """Lines of Python, each part ended by a newline.

    :param imports: with the model.
    :param meet: returns once all ranks are there.
    :param prepare: what wraps the model.
    :param step: one step of the training, on one line.
    :param leave: its orderly end.
    """

    imports: str
    meet: str
    prepare: str
    step: str
    leave: str


SCRIPTS = {
    "torch": Script(
        MODEL,
        "dist.init_process_group('gloo')\n",
        "net = nn.parallel.DistributedDataParallel(net); optimizer = torch.optim.AdamW(net.parameters())\n",
        STEP,
        LEAVE,
    ),
    "deepspeed": Script(
        MODEL + "import deepspeed\n",
        "deepspeed.init_distributed()\n",
        "config = {'train_micro_batch_size_per_gpu': 64, 'zero_optimization': {'stage': 2},\n"
        "          'zero_allow_untested_optimizer': True}\n"
        "net, optimizer, _, _ = deepspeed.initialize(model=net, optimizer=torch.optim.AdamW(net.parameters()),\n"
        "                                            config=config)\n",
        "net.backward(net(x).sum()); net.step()\n",
        LEAVE,
    ),
    "fairscale": Script(
        MODEL + "from fairscale.optim.oss import OSS\n",
        "dist.init_process_group('gloo')\n",
        "optimizer = OSS(params=net.parameters(), optim=torch.optim.AdamW)\n"
        "net = nn.parallel.DistributedDataParallel(net)\n",
        STEP,
        LEAVE,
    ),
    "horovod": Script(
        MODEL + "import horovod.torch as hvd\n",
        "hvd.init()\n",
        "optimizer = hvd.DistributedOptimizer(torch.optim.AdamW(net.parameters()), net.named_parameters())\n",
        STEP,
        "hvd.shutdown()\n",
    ),
}
