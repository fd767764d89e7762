"""Muon for the weight matrices of the layers, AdamW for the rest, and an average of the weights."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """(K, m, n) to nearly orthogonal matrices by Newton-Schulz steps (Muon, Jordan 2024)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices.bfloat16()
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum, for all matrices of one shape at once; steps as large as AdamW's.

    The factor 0.2 sqrt(max(m, n)) is that of Moonlight (Liu et al., 2025).
    """

    def __init__(
        self,
        params: list[nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.05,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step."""
        for group in self.param_groups:
            shapes: dict[tuple[int, ...], list[nn.Parameter]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    shapes[tuple(p.shape)].append(p)
            for shape, params in shapes.items():
                state = self.state[params[0]]
                grads = torch.stack([p.grad for p in params])
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(grads)
                buffer = state["momentum"]
                buffer.lerp_(grads, 1 - group["momentum"])
                update = orthogonalise(grads.lerp(buffer, group["momentum"]))
                update = update * (0.2 * max(shape) ** 0.5)
                torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(params, list(update.unbind()), alpha=-group["lr"])


def optimisers(model: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside layers and the adapter, AdamW for the rest."""
    matrices, others = [], []
    for name, p in model.named_parameters():
        inner = (
            p.ndim == 2
            and ("layers." in name or "projector" in name)
            and "ada_rms_norm" not in name
        )
        (matrices if inner else others).append(p)
    adam = torch.optim.AdamW(
        others, lr=lr, betas=(0.9, 0.98), weight_decay=0.01, fused=others[0].is_cuda
    )
    return [Muon(matrices, lr), adam]


class Average:
    """Exponential moving average of a module's parameters."""

    def __init__(self, model: nn.Module) -> None:
        self.source = [p for p in model.parameters()]
        self.values = [p.detach().clone() for p in self.source]

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """Move towards the weights."""
        torch._foreach_lerp_(self.values, [p.detach() for p in self.source], 1 - decay)
