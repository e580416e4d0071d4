"""DeepSpeed: a small GPT that learns, byte by byte, to write as scikit-learn does about its data sets.

The optimizer, the batch and ZeRO's stage are what the DAG's ``ds_config`` says; the same seed gives the same GPT.
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

import deepspeed
import practicus_runtime as pr
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

BYTES = 256
CONTEXT = 64
"""Bytes that it sees when it tells the next one."""
WIDTH, HEADS, LAYERS = 64, 4, 2


def text() -> bytes:
    """Descriptions of scikit-learn's data sets, and the code that loads them: 97 kB that each worker has."""
    folder = Path(find_spec("sklearn").origin).parent / "datasets"
    return b"".join(path.read_bytes() for path in (*sorted(folder.glob("descr/*.rst")), folder / "_base.py"))


class Layer(nn.Module):
    """Each byte looks at those before it, then goes through a network of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.before_attention, self.before_network = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.query_key_value, self.project = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.network = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = self.query_key_value(self.before_attention(x)).unflatten(-1, (3, HEADS, -1))
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.project(seen.transpose(1, 2).flatten(2))
        return x + self.network(self.before_network(x))


class GPT(nn.Module):
    """From bytes, at most ``CONTEXT``, to scores of each one's next byte."""

    def __init__(self) -> None:
        super().__init__()
        self.byte, self.position = nn.Embedding(BYTES, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.layers = nn.Sequential(*(Layer() for _ in range(LAYERS)))
        self.scores = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, BYTES))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scores(self.layers(self.byte(x) + self.position(torch.arange(x.shape[1], device=x.device))))


def blocks(size: int) -> torch.Tensor:
    """The first bytes of the text, cut into rows of ``CONTEXT`` bytes and the one after them."""
    return torch.frombuffer(bytearray(text()[:size]), dtype=torch.uint8).unfold(0, CONTEXT + 1, CONTEXT).long()


def loss_of(scores: torch.Tensor, block: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(scores.flatten(0, 1), block[:, 1:].flatten())


@torch.no_grad()
def write(engine: deepspeed.DeepSpeedEngine, start: str, length: int) -> str:
    """``start``, and what the GPT writes after it. All ranks call it: with ZeRO-3 each has but a part of the GPT."""
    engine.eval()
    written = list(start.encode())
    chance = torch.Generator().manual_seed(0)
    for _ in range(length):
        scores = engine(torch.tensor([written[-CONTEXT:]], device=engine.device))[0, -1].cpu()
        written += torch.multinomial(F.softmax(scores, -1), 1, generator=chance).tolist()
    return bytes(written).decode(errors="replace")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--kilobytes", type=int, required=True, help="of the text that it learns from")
    parser.add_argument("--start", required=True, help="what the text begins with that the GPT writes in the end")
    parser.add_argument("--local_rank", type=int, help="as DeepSpeed's launcher gives it")
    args = deepspeed.add_config_arguments(parser).parse_args()
    deepspeed.init_distributed()
    rank, ranks = dist.get_rank(), dist.get_world_size()

    torch.manual_seed(0)
    network = GPT()
    size = sum(parameter.numel() for parameter in network.parameters())
    engine, *_ = deepspeed.initialize(args=args, model=network, model_parameters=network.parameters())
    data, batch = blocks(1000 * args.kilobytes).to(engine.device), engine.train_batch_size()
    losses = []
    for epoch in range(args.epochs):
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(epoch))
        batches = order[: len(data) // batch * batch].split(batch)
        lost = torch.zeros((), device=engine.device)
        for rows in batches:
            block = data[rows[rank::ranks]]
            loss = loss_of(engine(block[:, :-1]), block)
            engine.backward(loss)
            engine.step()
            lost += loss.detach() / ranks
        dist.all_reduce(lost)
        losses.append(round(lost.item() / len(batches), 4))
        if rank == 0:
            pr.progress((epoch + 1) / args.epochs, f"epoch {epoch + 1}: loss {losses[-1]}")

    # With ZeRO-3 a rank keeps but a part of each, and the rest of it comes when it is needed.
    kept = sum(getattr(parameter, "ds_tensor", parameter).numel() for parameter in network.parameters())
    sample = write(engine, args.start, 60)
    if rank == 0:
        pr.set_result({"ranks": ranks, "losses": losses, "parameters": size, "kept_by_rank": kept, "sample": sample})
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
