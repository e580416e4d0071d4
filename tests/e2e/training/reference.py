"""What one process with plain PyTorch loses in each epoch of the example DAGs' trainings.

``python reference.py EPOCHS KILOBYTES FOLDER RATE...`` prints it as JSON: of the GPT, and so much text; of the flights
that Spark wrote into that folder; of the digits where workers come and go; and of the digits, for each learning rate.
The jobs and the runtime have to be on the path.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from unittest import mock

import torch
from torch import nn

# The jobs import them, and take longer for it than all that is done here, which needs none of them.
sys.modules |= dict.fromkeys(("deepspeed", "horovod", "horovod.torch"), mock.MagicMock())

import digits  # noqa: E402
import gpt  # noqa: E402
import lost_minutes  # noqa: E402


def losses(
    network: nn.Module,
    loss_of: Callable[[torch.Tensor], torch.Tensor],
    rows: int,
    batch: int,
    make_optimizer: Callable[..., torch.optim.Optimizer],
    clip: float = float("inf"),
) -> list[float]:
    """The mean over the batches of each epoch.

    :param loss_of: of some rows, by their numbers.
    """
    optimizer = make_optimizer(network.parameters())
    means = []
    for epoch in range(EPOCHS):
        order = torch.randperm(rows, generator=torch.Generator().manual_seed(epoch))
        lost = []
        for chosen in order[: rows // batch * batch].split(batch):
            optimizer.zero_grad()
            loss = loss_of(chosen)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), clip)
            optimizer.step()
            lost.append(loss.item())
        means.append(sum(lost) / len(lost))
    return means


def of_gpt(kilobytes: int) -> list[float]:
    torch.manual_seed(0)
    network, blocks = gpt.GPT(), gpt.blocks(1000 * kilobytes)

    def loss_of(chosen: torch.Tensor) -> torch.Tensor:
        return gpt.loss_of(network(blocks[chosen, :-1]), blocks[chosen])

    return losses(network, loss_of, len(blocks), 64, partial(torch.optim.AdamW, lr=0.003), clip=1.0)


def of_digits(make_optimizer: Callable[..., torch.optim.Optimizer]) -> list[float]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    x, y = digits.digits()[0].tensors

    def loss_of(chosen: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(network(x[chosen]), y[chosen])

    return losses(network, loss_of, len(x), 64, make_optimizer)


def of_flights(folder: str) -> list[float]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 1))
    x, y = lost_minutes.load(folder)[0].tensors

    def loss_of(chosen: torch.Tensor) -> torch.Tensor:
        return nn.functional.smooth_l1_loss(network(x[chosen]), y[chosen])

    return losses(network, loss_of, len(x), 256, partial(torch.optim.AdamW, lr=0.003))


if __name__ == "__main__":
    torch.set_num_threads(1)
    EPOCHS, kilobytes, (folder, *rates) = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    found = {
        "gpt": of_gpt(kilobytes),
        "flights": of_flights(folder),
        "elastic": of_digits(partial(torch.optim.SGD, lr=0.1, momentum=0.9)),
        **{rate: of_digits(partial(torch.optim.AdamW, lr=float(rate))) for rate in rates},
    }
    print(json.dumps(found))
