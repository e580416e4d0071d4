"""FairScale: tells handwritten digits, as digits.py does, with the optimizer's state in shards.

``OSS`` has each rank keep the state of some parameters; ``ShardedDataParallel`` gives it these parameters' gradients.
"""

from __future__ import annotations

import argparse

import practicus_runtime as pr
import torch
import torch.distributed as dist
from fairscale.nn.data_parallel import ShardedDataParallel
from fairscale.optim.oss import OSS
from sklearn.datasets import load_digits
from torch import nn
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
    network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = OSS(network.parameters(), optim=torch.optim.AdamW, lr=args.learning_rate)
    sharded = ShardedDataParallel(network, optimizer)
    train, test = digits()
    sampler = DistributedSampler(train, seed=0)
    loader = DataLoader(train, batch_size=BATCH // ranks, sampler=sampler, drop_last=True)
    losses = []
    for epoch in range(args.epochs):
        sampler.set_epoch(epoch)
        lost = 0.0
        for x, y in loader:
            sharded.zero_grad()  # the optimizer's own would train wrongly, without a word
            loss = nn.functional.cross_entropy(sharded(x), y)
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
        right, tested = total((network(x).argmax(1) == y).sum().item(), len(mine))
    # OSS keeps AdamW's two moments of its own parameters alone.
    kept = sum(len(group["params"]) for group in optimizer.optim.param_groups)
    if rank == 0:
        accuracy = round(right / tested, 4)
        pr.set_result({"ranks": ranks, "losses": losses, "tested": int(tested), "accuracy": accuracy, "kept": kept})
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
