"""Elastic Horovod: tells handwritten digits, as digits.py does, while workers come and go.

However many ranks there are, together they learn from the same digits at a time: the network is the same in the end.
"""

from __future__ import annotations

import argparse

import horovod.torch as hvd
import practicus_runtime as pr
import torch
from sklearn.datasets import load_digits
from torch import nn

BATCH = 64
"""Digits that all ranks together learn from at a time."""
TEST = 360
"""Digits, of 1,797, that nobody learns from."""


@hvd.elastic.run
def train(state, x: torch.Tensor, y: torch.Tensor, epochs: int) -> None:
    """Go on from the last commit; Horovod calls it anew, with the state of rank 0, when the ranks have changed."""
    while state.epoch < epochs:
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(state.epoch))
        batches = order[: len(y) // BATCH * BATCH].split(BATCH)
        lost = torch.zeros(())
        for rows in batches:
            mine = rows[hvd.rank() :: hvd.size()]
            state.optimizer.zero_grad()
            # Horovod takes the mean over ranks, whose parts of a batch are unlike where it does not divide evenly.
            loss = nn.functional.cross_entropy(state.model(x[mine]), y[mine], reduction="sum") * hvd.size() / BATCH
            loss.backward()
            state.optimizer.step()
            lost += loss.detach()
        lost = hvd.allreduce(lost, name="lost").item() / len(batches)
        # New lists: what a commit remembers must not change afterwards.
        state.losses, state.ranks = [*state.losses, round(lost, 4)], [*state.ranks, hvd.size()]
        state.epoch += 1
        if hvd.rank() == 0:
            pr.progress(state.epoch / epochs, f"epoch {state.epoch}: loss {state.losses[-1]}")
        state.commit()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--learning-rate", type=float, required=True)
    args = parser.parse_args()
    hvd.init()

    pixels, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    x, y = torch.tensor(pixels, dtype=torch.float32)[order] / 16, torch.tensor(labels)[order]
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    # Horovod begins with a step of zero gradients, to have a state to send: AdamW counts it, and SGD does not move.
    optimizer = hvd.DistributedOptimizer(
        torch.optim.SGD(network.parameters(), lr=args.learning_rate, momentum=0.9),
        named_parameters=network.named_parameters(),
    )
    state = hvd.elastic.TorchState(network, optimizer, epoch=0, losses=[], ranks=[])
    train(state, x[TEST:], y[TEST:], args.epochs)

    with torch.no_grad():
        right = (network(x[:TEST]).argmax(1) == y[:TEST]).sum().item()
    if hvd.rank() == 0:
        accuracy = round(right / TEST, 4)
        pr.set_result({"ranks": state.ranks, "losses": state.losses, "tested": TEST, "accuracy": accuracy})


if __name__ == "__main__":
    main()
