"""What every framework trains here: the same model on the same data, so that all must lose the same."""

import torch
from torch import nn

torch.set_num_threads(1)
STEPS = 30


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 1))


def data(rank: int) -> tuple:
    """Every rank has its own."""
    x = torch.randn(8, 16, generator=torch.Generator().manual_seed(1234 + rank))
    return x, x @ torch.randn(16, 1, generator=torch.Generator().manual_seed(7))


def train(net, optimizer, rank: int, zero_grad=None) -> float:
    """The last loss of this rank."""
    x, y = data(rank)
    for _ in range(STEPS):
        (zero_grad or optimizer.zero_grad)()
        loss = nn.functional.mse_loss(net(x), y)
        loss.backward()
        optimizer.step()
    return loss.item()


def tell(rank: int, loss: float) -> None:
    print(f"rank {rank} lost {loss:.4f}", flush=True)


EPOCHS = 12
"""Of an elastic training."""


def whole(workers: list) -> bool:
    """Whether these are two, one of which has taken the place of one that was lost; each rank says its own."""
    return len(set(workers)) == 2 and max(workers) >= 2
