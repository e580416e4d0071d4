"""As *Elastic Horovod* has it for PyTorch."""

import time

import horovod.torch as hvd
import practicus_runtime
import torch
from model import EPOCHS, model, whole

hvd.init()
net = model()
optimizer = hvd.DistributedOptimizer(
    torch.optim.SGD(net.parameters(), lr=1e-3), named_parameters=net.named_parameters()
)


@hvd.elastic.run
def train(state):
    print(f"rank {hvd.rank()} of {hvd.size()} begins at {state.epoch}", flush=True)
    workers = hvd.allgather_object(practicus_runtime.context().index)
    while state.epoch < EPOCHS:
        time.sleep(0.1)
        if state.epoch == EPOCHS - 1 and not whole(workers):
            state.commit()
            continue
        optimizer.zero_grad()
        net(torch.ones(8, 16)).mean().backward()
        optimizer.step()
        state.epoch += 1
        state.commit()
        print(f"epoch {state.epoch}", flush=True)


state = hvd.elastic.TorchState(net, optimizer, epoch=0)
train(state)
practicus_runtime.set_result({"epochs": state.epoch, "ranks": hvd.size()})
