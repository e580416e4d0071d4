"""Lets FairScale's FSDP (0.4.13) train without a GPU; imported before the script, does nothing where there is one.

FSDP asks for CUDA's streams whatever the device. Work on a CPU is done when a call returns, so that there is nothing to
order: streams that do nothing are right. Its collectives into one flat buffer are switched off for the older ones into
lists, which Gloo has had for longer; in torch 2.6, Debian's, it has no ``reduce_scatter`` at all, which is then made of
``all_reduce``.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any, Callable

from practicus_runtime.imports import Execute, wrap

FSDP = "fairscale.nn.data_parallel.fully_sharded_data_parallel"
TESTED = "FairScale 0.4.13 with torch 2.6 and 2.13"
STREAMS = ("fp32_to_fp16", "all_gather", "post_backward")


class Stream:
    """A CUDA stream's methods that FSDP calls."""

    def wait_stream(self, other: Any) -> None:
        """The other's work is done."""

    def synchronize(self) -> None:
        """So is ours."""


def made_of_all_reduce(reduce_scatter: Callable[..., Any]) -> Callable[..., Any]:
    """That function of ``torch.distributed``, where there is no such collective, too: there each rank reduces all, and
    keeps its part."""

    def either(output: Any, input_list: Any, op: Any = None, group: Any = None, async_op: bool = False) -> Any:
        import torch

        how = {"op": torch.distributed.ReduceOp.SUM if op is None else op, "group": group}
        try:
            return reduce_scatter(output, input_list, async_op=async_op, **how)
        except RuntimeError as error:
            if "does not support reduce_scatter" not in str(error):
                raise
        whole = torch.stack(list(input_list))
        torch.distributed.all_reduce(whole, **how)
        output.copy_(whole[torch.distributed.get_rank(group)])
        return None

    return either


def patch(module: ModuleType) -> None:
    """Make that module, FSDP's, do without CUDA."""
    import torch

    if torch.cuda.is_available():
        return
    stream = Stream()
    torch.cuda.current_stream = lambda device=None: stream
    torch.cuda.stream = lambda stream: nullcontext()
    torch.cuda.synchronize = lambda device=None: None
    torch.Tensor.record_stream = lambda self, stream: None
    torch.distributed.reduce_scatter = made_of_all_reduce(torch.distributed.reduce_scatter)
    cls = module.FullyShardedDataParallel
    set_up = cls._setup_streams

    def with_streams(self: Any) -> None:
        set_up(self)
        if self._is_root:
            self._streams.update(dict.fromkeys(STREAMS, stream))

    cls._setup_streams = with_streams


class Unfit(ImportError):
    """FairScale and torch do not go together."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"FairScale {installed('fairscale')} does not go together with torch {installed('torch')}: {reason}. "
            f"Tests run {TESTED}: install that, such as by pip install fairscale==0.4.13 torch==2.13.0"
        )


def installed(name: str) -> str:
    """The version of a package, by what its installation says."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "of an unknown version"


def told(execute: Execute) -> Execute:
    """A loader's ``exec_module`` that says so where a module does not fit torch, or our patch does not fit it."""

    def executed(module: ModuleType) -> None:
        try:
            execute(module)
            if module.__name__ == FSDP:
                patch(module)
        except Unfit:
            raise
        except (ImportError, AttributeError) as error:
            reason = str(error)
            if isinstance(error, ModuleNotFoundError):
                if "." not in (error.name or ""):
                    raise  # a whole package, torch or another, is not there
                reason = f"there is no {error.name}"  # and not Python's words, which read as if one could install it
            raise Unfit(f"{module.__name__}: {reason}") from error

    return executed


def cuda() -> bool:
    """Whether there is a GPU, as far as can be told without torch, whose import may take seconds."""
    return os.path.exists("/dev/nvidiactl") or os.path.exists("/dev/kfd")


if not cuda():
    os.environ.setdefault("ENABLE_NCCL_BASE_COLLECTIVES", "0")  # FairScale reads it when it is imported
wrap(lambda name: name.partition(".")[0] == "fairscale", told)
