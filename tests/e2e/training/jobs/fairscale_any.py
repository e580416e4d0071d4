"""FairScale's ways to train: ``oss``, ``shardedddp``, ``fsdp``, and ``pipe``, which is one process."""

import sys

import torch
import torch.distributed as dist
from model import model, tell, train
from torch import nn

WAY = sys.argv[1]
rank, net, zero_grad = 0, model(), None
if WAY == "pipe":
    from fairscale.nn import Pipe

    net = Pipe(net, balance=[2, 1], devices=["cpu", "cpu"], chunks=4)
else:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
if WAY in ("oss", "shardedddp"):
    from fairscale.nn.data_parallel import ShardedDataParallel
    from fairscale.optim.oss import OSS

    optimizer = OSS(params=net.parameters(), optim=torch.optim.AdamW, lr=1e-2)
    net = ShardedDataParallel(net, optimizer) if WAY == "shardedddp" else nn.parallel.DistributedDataParallel(net)
    zero_grad = net.zero_grad if WAY == "shardedddp" else None
else:
    if WAY == "fsdp":
        from fairscale.nn import FullyShardedDataParallel as FSDP

        cpu = torch.device("cpu")
        net = FSDP(nn.Sequential(FSDP(net[0], compute_device=cpu), net[1], net[2]), compute_device=cpu)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
tell(rank, train(net, optimizer, rank, zero_grad))
