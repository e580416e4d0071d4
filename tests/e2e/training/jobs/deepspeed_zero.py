"""As DeepSpeed's tutorials have it: arguments by ``add_config_arguments``, the rest by ``initialize``."""

import argparse
import os

import deepspeed
import torch
from model import STEPS, data, model, tell

parser = argparse.ArgumentParser()
parser.add_argument("--local_rank", type=int, default=-1)
args = deepspeed.add_config_arguments(parser).parse_args()
assert args.local_rank == int(os.environ["LOCAL_RANK"])
deepspeed.init_distributed()
rank = torch.distributed.get_rank()
net = model()
engine, _, _, _ = deepspeed.initialize(
    args=args, model=net, optimizer=torch.optim.AdamW(net.parameters(), lr=1e-2), model_parameters=net.parameters()
)
x, y = data(rank)
for _ in range(STEPS):
    loss = torch.nn.functional.mse_loss(engine(x), y)
    engine.backward(loss)
    engine.step()
tell(rank, loss.item())
