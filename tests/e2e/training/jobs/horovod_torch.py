"""As Horovod's examples for PyTorch have it."""

import horovod.torch as hvd
import torch
from model import model, tell, train

hvd.init()
net = model()
optimizer = hvd.DistributedOptimizer(
    torch.optim.AdamW(net.parameters(), lr=1e-2), named_parameters=net.named_parameters()
)
hvd.broadcast_parameters(net.state_dict(), root_rank=0)
tell(hvd.rank(), train(net, optimizer, hvd.rank()))
