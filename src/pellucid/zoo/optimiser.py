"""The optimiser of the zoo's training scripts: orthogonalised momentum for matrices, AdamW for the rest.

Orthogonalised momentum (Muon, Jordan et al. 2024) replaces the momentum of a weight matrix by the nearest matrix with
equal singular values, found by a few steps of a Newton-Schulz iteration.
"""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalised(matrices: Tensor, steps: int = 5) -> Tensor:
    """Return the roughly orthogonal matrix nearest to each of `matrices` [count, rows, columns]."""
    wide = matrices if matrices.shape[-2] <= matrices.shape[-1] else matrices.mT
    x = wide / (wide.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    a, b, c = _NEWTON_SCHULZ
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide is matrices else x.mT


class Optimiser:
    """Update a model's weights: matrices inside blocks by orthogonalised momentum, everything else by AdamW."""

    def __init__(
        self, named: Iterable[tuple[str, nn.Parameter]], *, matrix_rate: float, other_rate: float, decay: float
    ) -> None:
        self.rates = (matrix_rate, other_rate)
        self.decay = decay
        groups: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
        others = []
        for name, weight in named:
            if weight.ndim == 2 and ".layers." in name:
                groups[weight.shape].append(weight)
            else:
                others.append(weight)
        self.groups = list(groups.values())
        self.momenta = [torch.zeros(len(group), *group[0].shape) for group in self.groups]
        self.adam = torch.optim.AdamW(others, lr=other_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)

    @torch.no_grad()
    def step(self, scale: float) -> None:
        """Take one step with the learning rates times `scale`, and clear the gradients."""
        matrix_rate, other_rate = (rate * scale for rate in self.rates)
        for group, momentum in zip(self.groups, self.momenta, strict=True):
            gradient = torch.stack([weight.grad for weight in group if weight.grad is not None])
            momentum.lerp_(gradient, 0.05)
            update = orthogonalised(gradient.lerp(momentum, 0.95))
            size = max(1.0, update.shape[-2] / update.shape[-1]) ** 0.5
            for weight, direction in zip(group, update, strict=True):
                weight.mul_(1 - matrix_rate * self.decay).sub_(direction, alpha=matrix_rate * size)
                weight.grad = None
        for settings in self.adam.param_groups:
            settings["lr"] = other_rate
        self.adam.step()
        self.adam.zero_grad()

    def tensors(self) -> dict[str, Tensor]:
        """Return the state as named tensors, for a checkpoint."""
        found = {f"momentum.{index}": momentum for index, momentum in enumerate(self.momenta)}
        for index, state in self.adam.state_dict()["state"].items():
            found |= {f"adam.{index}.{key}": value for key, value in state.items()}
        return found

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take the state back from named tensors."""
        for index, momentum in enumerate(self.momenta):
            momentum.copy_(tensors[f"momentum.{index}"])
        state: dict[int, dict[str, Tensor]] = defaultdict(dict)
        for name, value in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "adam":
                index, _, key = rest.partition(".")
                state[int(index)][key] = value
        self.adam.load_state_dict({"state": dict(state), "param_groups": self.adam.state_dict()["param_groups"]})
