"""Several processes that train one model: a process a GPU, gradients averaged at every step.

Started by `torchrun`; without it a group is one process and everything here does nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn


def _as_one(tensors: list[Tensor], change: Callable[[Tensor], object]) -> None:
    """Change tensors in place, all of them laid out in one row."""
    flat = torch.cat([x.flatten() for x in tensors])
    change(flat)
    parts = flat.split([x.numel() for x in tensors])
    torch._foreach_copy_(tensors, [part.view_as(x) for part, x in zip(parts, tensors, strict=True)])


class Group:
    """The processes of a run and this one's place among them."""

    def __init__(self) -> None:
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        local = int(os.environ.get("LOCAL_RANK", "0"))
        self.device = f"cuda:{local}" if torch.cuda.is_available() else "cpu"
        if self.device != "cpu":
            torch.cuda.set_device(local)
        if self.size > 1:
            dist.init_process_group("gloo" if self.device == "cpu" else "nccl")

    @property
    def first(self) -> bool:
        """Whether this process prints, saves and scores."""
        return self.rank == 0

    def average_gradients(self, params: list[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the processes."""
        if self.size == 1:
            return

        def average(flat: Tensor) -> None:
            dist.all_reduce(flat)
            flat /= self.size

        _as_one([p.grad for p in params if p.grad is not None], average)

    def agree(self, going: bool) -> bool:
        """What the first process says."""
        if self.size == 1:
            return going
        said = torch.tensor(float(going), device=self.device)
        dist.broadcast(said, 0)
        return bool(said.item())

    def align(self, tensors: list[Tensor]) -> None:
        """Give everybody the first process's tensors, in case kernels differed in a last bit."""
        if self.size > 1:
            _as_one([x.data for x in tensors], lambda flat: dist.broadcast(flat, 0))

    def close(self) -> None:
        """Leave the group."""
        if self.size > 1:
            dist.destroy_process_group()
