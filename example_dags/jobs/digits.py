"""PyTorch: tells handwritten digits, trained over all ranks of the job; the same seed gives the same network."""

from __future__ import annotations

import argparse

import practicus_runtime as pr
import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

BATCH = 64
"""Digits that all ranks together learn from at a time."""
TEST = 360
"""Digits, of 1,797, that nobody learns from."""


def digits() -> tuple[TensorDataset, TensorDataset]:
    """To train on, and to test on."""
    pixels, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    x, y = torch.tensor(pixels, dtype=torch.float32)[order] / 16, torch.tensor(labels)[order]
    return TensorDataset(x[TEST:], y[TEST:]), TensorDataset(x[:TEST], y[:TEST])


def total(*values: float) -> list[float]:
    """Each value, summed up over all ranks."""
    summed = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(summed)
    return summed.tolist()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--learning-rate", type=float, required=True)
    args = parser.parse_args()
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()

    torch.manual_seed(0)
    network = DistributedDataParallel(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)))
    optimizer = torch.optim.AdamW(network.parameters(), lr=args.learning_rate)
    train, test = digits()
    sampler = DistributedSampler(train, seed=0)
    loader = DataLoader(train, batch_size=BATCH // ranks, sampler=sampler, drop_last=True)
    losses = []
    for epoch in range(args.epochs):
        sampler.set_epoch(epoch)
        lost = 0.0
        for x, y in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(network(x), y)
            loss.backward()
            optimizer.step()
            lost += loss.item()
        [lost] = total(lost)
        losses.append(round(lost / len(loader) / ranks, 4))
        if rank == 0:
            pr.progress((epoch + 1) / args.epochs, f"epoch {epoch + 1}: loss {losses[-1]}")

    mine = list(range(rank, len(test), ranks))
    with torch.no_grad():
        x, y = test[mine]
        right, tested = total((network.module(x).argmax(1) == y).sum().item(), len(mine))
    if rank == 0:
        pr.set_result({"ranks": ranks, "losses": losses, "tested": int(tested), "accuracy": round(right / tested, 4)})
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
