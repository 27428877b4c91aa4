"""Logistic regressions of one label on many sets of features at once: all heads or layers in one Newton iteration."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pellucid.core.errors import InputError

NUMBERS_AT_ONCE = 2**25


@dataclass(frozen=True, eq=False)
class Probes:
    """Logistic probes sigmoid(x w + b): `weights` [probe, dimension], `biases` [probe], `losses` [probe], float64.

    The loss is that of scikit-learn: C times the summed log loss plus |w|^2 / 2. `steps` is how many Newton steps all
    of them took together.
    """

    weights: torch.Tensor
    biases: torch.Tensor
    losses: torch.Tensor
    steps: int

    def logits(self, values: torch.Tensor) -> torch.Tensor:
        """Return x w + b for values [probe, item, dimension]: [probe, item]."""
        wide = values.to(self.weights)
        return torch.baddbmm(self.biases[:, None, None], wide, self.weights[:, :, None])[..., 0]


@torch.no_grad()
def logistic_probes(
    values: torch.Tensor, labels: torch.Tensor, *, strength: float = 1.0, steps: int = 100, tolerance: float = 1e-8
) -> Probes:
    """Fit a logistic regression of one label on each of many sets of features, all in one batched Newton iteration.

    Minimises strength * sum log(1 + exp(-y (x w + b))) + |w|^2 / 2 for each probe, the bias free: the problem that
    scikit-learn's LogisticRegression(C=strength) solves. Convex; a step is halved where it would not lower a probe's
    loss. Exact to the tolerance, the largest entry of a gradient relative to strength times the number of items.

    Args:
        values: features [probe, item, dimension].
        labels: 0 or 1 for each item.
        strength: of the data against the penalty, scikit-learn's C.
        steps: at most so many.
        tolerance: of the gradient.

    Raises:
        InputError: labels of one class only, or NaN among the values.
    """
    y = labels.to(torch.float64)
    if len(torch.unique(labels)) != 2 or not torch.isfinite(values).all():
        raise InputError(
            f"Probes need finite values and labels of two classes, but got {torch.unique(labels).tolist()} as labels; "
            "give prompts of both."
        )
    at_once = max(1, NUMBERS_AT_ONCE // max(values[0].numel() + values.shape[-1] ** 2, 1))
    found = [_fitted(part, y.to(part.device), strength, steps, tolerance) for part in values.split(at_once)]
    weights, losses = torch.cat([w for w, _, _ in found]), torch.cat([loss for _, loss, _ in found])
    return Probes(weights[:, :-1], weights[:, -1], losses, max(taken for _, _, taken in found))


def _fitted(
    values: torch.Tensor, y: torch.Tensor, strength: float, steps: int, tolerance: float
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Return coefficients with the bias last [probe, dimension + 1], losses [probe] and how many steps were taken."""
    wide = values.to(torch.float64)
    centre = wide.mean(1, keepdim=True)  # the bias takes the centre up; centred sums are better conditioned
    x = torch.cat([wide - centre, torch.ones_like(wide[..., :1])], -1)
    size = x.shape[-1]
    ridge = torch.ones(size, dtype=x.dtype, device=x.device)
    ridge[-1] = 0
    w = x.new_zeros(len(x), size)
    loss = _loss(x, y, w, ridge, strength)
    taken = 0
    for _ in range(steps):
        p = torch.sigmoid(torch.bmm(x, w[:, :, None])[..., 0])
        gradient = strength * torch.bmm((p - y)[:, None], x)[:, 0] + ridge * w
        if bool((gradient.abs().amax(-1) <= tolerance * strength * len(y)).all()):
            break
        hessian = torch.bmm(x.mT * (strength * p * (1 - p))[:, None], x)
        hessian += torch.diag(ridge + 1e-12 * strength * len(y))
        move = torch.linalg.solve(hessian, gradient)
        w, loss = _lowered(x, y, w, move, loss, ridge, strength)
        taken += 1
    w[:, -1] -= (w[:, :-1] * centre[:, 0]).sum(-1)
    return w, loss, taken


def _lowered(
    x: torch.Tensor, y: torch.Tensor, w: torch.Tensor, move: torch.Tensor, loss: torch.Tensor, ridge: torch.Tensor,
    strength: float,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Return coefficients and losses after the longest of the steps 1, 1/2, 1/4, ... that raises no probe's loss."""
    share = torch.ones_like(loss)
    for _ in range(30):
        tried = w - share[:, None] * move
        new = _loss(x, y, tried, ridge, strength)
        worse = new > loss * (1 + 1e-14)
        if not bool(worse.any()):
            break
        share = torch.where(worse, share / 2, share)
    good = new <= loss * (1 + 1e-14)
    return torch.where(good[:, None], tried, w), torch.where(good, new, loss)


def _loss(x: torch.Tensor, y: torch.Tensor, w: torch.Tensor, ridge: torch.Tensor, strength: float) -> torch.Tensor:
    logits = torch.bmm(x, w[:, :, None])[..., 0]
    data = torch.nn.functional.softplus(logits) - y * logits
    return strength * data.sum(-1) + 0.5 * (ridge * w * w).sum(-1)
