"""Each rank keeps a checkpoint of its own, and the newest that any of them has is where all go on."""

import os
import time

import practicus_runtime
import torch
import torch.distributed as dist
from model import EPOCHS, model, whole
from torch.nn.parallel import DistributedDataParallel as DDP

dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
net = model()
epoch, state = torch.load("checkpoint.pt") if os.path.exists("checkpoint.pt") else (0, net.state_dict())
all_of_them = [None] * world
dist.all_gather_object(all_of_them, (epoch, practicus_runtime.context().index))
epochs, workers = zip(*all_of_them, strict=True)
newest = [(epoch, state)]
dist.broadcast_object_list(newest, src=epochs.index(max(epochs)))
epoch, state = newest[0]
net.load_state_dict(state)
ddp = DDP(net)
optimizer = torch.optim.SGD(ddp.parameters(), lr=1e-3)
print(f"rank {rank} of {world} begins at {epoch}", flush=True)
while epoch < EPOCHS:
    if epoch == EPOCHS - 1 and not whole(workers):
        dist.barrier()
        time.sleep(0.1)
        continue
    optimizer.zero_grad()
    ddp(torch.ones(8, 16)).mean().backward()
    optimizer.step()
    time.sleep(0.1)
    epoch += 1
    torch.save((epoch, net.state_dict()), "checkpoint.new")
    os.replace("checkpoint.new", "checkpoint.pt")
    print(f"epoch {epoch}", flush=True)
practicus_runtime.set_result({"epochs": epoch, "ranks": world})
