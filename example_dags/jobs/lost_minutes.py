"""Horovod: tells how many minutes a plane loses on its way; the same seed gives the same network.

It learns from a month but for its last days, and is tested on those. It needs no library to read what Spark wrote.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import horovod.torch as hvd
import numpy as np
import practicus_runtime as pr
import torch
from torch import nn
from torch.utils.data import TensorDataset

BATCH = 256
"""Flights that all ranks together learn from at a time."""
TEST_FROM = 24
"""Day of the month."""
MINUTES = 20
"""What the network calls 1."""


def load(folder: str) -> tuple[TensorDataset, TensorDataset]:
    """To train on, and to test on: features, all of one scale; and the minutes lost, by ``MINUTES``."""
    [file] = Path(folder).glob("*.csv")
    table = torch.from_numpy(np.loadtxt(file, delimiter=",", skiprows=1, dtype=np.float32))
    day, x, y = table[:, 0], table[:, 1:-1], table[:, -1:] / MINUTES
    known = day < TEST_FROM
    x = (x - x[known].mean(0)) / x[known].std(0)
    return TensorDataset(x[known], y[known]), TensorDataset(x[~known], y[~known])


def total(name: str, *values: torch.Tensor) -> list[float]:
    """Each value, summed up over all ranks."""
    return hvd.allreduce(torch.stack(values).double(), name=name, op=hvd.Sum).tolist()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--input", required=True, help="folder of CSV that every worker can read")
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--learning-rate", type=float, required=True)
    args = parser.parse_args()
    hvd.init()
    rank, ranks = hvd.rank(), hvd.size()

    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 1))
    optimizer = hvd.DistributedOptimizer(
        torch.optim.AdamW(network.parameters(), lr=args.learning_rate), named_parameters=network.named_parameters()
    )
    hvd.broadcast_parameters(network.state_dict(), root_rank=0)
    train, test = load(args.input)
    losses = []
    for epoch in range(args.epochs):
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(epoch))
        batches = order[: len(train) // BATCH * BATCH].split(BATCH)
        lost = torch.zeros(())
        for rows in batches:
            x, y = train[rows[rank::ranks]]
            optimizer.zero_grad()
            loss = nn.functional.smooth_l1_loss(network(x), y)
            loss.backward()
            optimizer.step()
            lost += loss.detach()
        [lost] = total("loss", lost)
        losses.append(round(lost / ranks / len(batches), 4))
        if rank == 0:
            pr.progress((epoch + 1) / args.epochs, f"epoch {epoch + 1}: loss {losses[-1]}")

    x, y = test[rank::ranks]
    with torch.no_grad():
        off, naive = total("errors", (network(x) - y).abs().sum(), y.abs().sum())
    if rank == 0:
        pr.set_result(
            {
                "ranks": ranks,
                "losses": losses,
                "flights": len(train) + len(test),
                "tested": len(test),
                "mae": round(off / len(test) * MINUTES, 3),
                "naive_mae": round(naive / len(test) * MINUTES, 3),
            }
        )


if __name__ == "__main__":
    main()
