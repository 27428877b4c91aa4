"""Logistic regressions of one label on many sets of features at once: all heads or layers in one Newton iteration."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pellucid.core.errors import InputError

NUMBERS_AT_ONCE = 2**23
IN_CACHE = 8  # probes whose features are weighted at a time
SLOW = 0.1  # a step that gains more than this part of the last one's asks for the curvature where it stands
ROUNDING = 1e-13  # gains below this part of a loss are rounding where they no longer fall


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
    loss. Exact to the tolerance, what a further step would still take off a loss, relative to what the best one took.

    Args:
        values: features [probe, item, dimension].
        labels: 0 or 1 for each item.
        strength: of the data against the penalty, scikit-learn's C.
        steps: at most so many.
        tolerance: of the gain of a step.

    Raises:
        InputError: labels of one class only, or NaN among the values.
    """
    y = labels.to(torch.float64)
    if len(torch.unique(labels)) != 2:
        raise InputError(
            f"Probes need labels of two classes, but got {torch.unique(labels).tolist()}; give prompts of both."
        )
    at_once = max(1, NUMBERS_AT_ONCE // max(values[0].numel() + values.shape[-1] ** 2, 1))
    found = [_fitted(part, y.to(part.device), strength, steps, tolerance) for part in values.split(at_once)]
    weights, losses = torch.cat([w for w, _, _ in found]), torch.cat([loss for _, loss, _ in found])
    return Probes(weights[:, :-1], weights[:, -1], losses, max(taken for _, _, taken in found))


class _Problem:
    """The losses of all probes: sums over items in the features' own precision, everything else in float64.

    `x` [probe, dimension + 1, item] has the centred features and a row of ones. In this layout, and with the vector on
    the left, batched products with one vector a probe were measured to be four times as fast as the usual `x @ vector`.
    """

    def __init__(self, values: torch.Tensor, y: torch.Tensor, strength: float) -> None:
        own = values if values.dtype == torch.float64 else values.float()
        self.centre = own.mean(1, keepdim=True)  # the bias takes the centre up; centred sums are better conditioned
        if not bool(torch.isfinite(self.centre).all()):  # a mean shows every value that is not
            raise InputError("Probes need finite values, but NaN or infinity is among them; load the model in float32.")
        self.x = own.new_empty(len(own), own.shape[2] + 1, own.shape[1])
        torch.sub(own.mT, self.centre.mT, out=self.x[:, :-1])
        self.x[:, -1] = 1
        self.y, self.strength = y, strength
        self.ridge = torch.ones(self.x.shape[1], dtype=torch.float64, device=values.device)
        self.ridge[-1] = 0

    def logits(self, w: torch.Tensor) -> torch.Tensor:
        return torch.bmm(w[:, None].to(self.x), self.x)[:, 0].double()

    def loss(self, w: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        data = torch.nn.functional.softplus(logits) - self.y * logits
        return self.strength * data.sum(-1) + 0.5 * (self.ridge * w * w).sum(-1)

    def gradient(self, w: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        sums = torch.bmm((p - self.y)[:, None].to(self.x), self.x.mT)[:, 0]
        return self.strength * sums.double() + self.ridge * w

    def curvature(self, p: torch.Tensor) -> torch.Tensor:
        """Return the Cholesky factors of the Hessians, summed again in float64 where rounding made one indefinite."""
        little = torch.diag(self.ridge + 1e-12 * self.strength * len(self.y))
        share = (self.strength * p * (1 - p))[:, None]
        parts = zip(self.x.split(IN_CACHE), share.to(self.x).split(IN_CACHE), strict=True)
        weighted = torch.empty_like(self.x[:IN_CACHE])  # one for all parts: fresh memory is slow to touch
        sums = torch.cat([torch.bmm(torch.mul(x, weight, out=weighted[: len(x)]), x.mT) for x, weight in parts])
        factors, bad = torch.linalg.cholesky_ex(sums.double() + little)
        for i in bad.nonzero()[:, 0].tolist():
            wide = self.x[i].double()
            factors[i] = torch.linalg.cholesky((wide * share[i]) @ wide.T + little)
        return factors


def _fitted(
    values: torch.Tensor, y: torch.Tensor, strength: float, steps: int, tolerance: float
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Return coefficients with the bias last [probe, dimension + 1], losses [probe] and how many steps were taken.

    The curvature costs more than everything else, so it is kept while steps with it still gain quickly.
    """
    problem = _Problem(values, y, strength)
    w = torch.zeros(len(values), problem.x.shape[1], dtype=torch.float64, device=values.device)
    logits = problem.logits(w)
    loss, taken, factors = problem.loss(w, logits), 0, None
    before = most = torch.zeros_like(loss)
    while taken < steps:
        p = torch.sigmoid(logits)
        gradient = problem.gradient(w, p)
        if factors is None:
            factors, fresh = problem.curvature(p), True
        move = torch.cholesky_solve(gradient[..., None], factors)[..., 0]
        gain = (gradient * move).sum(-1) / 2
        slow = (gain > SLOW * before) & (taken > 0)
        open_ = (gain > tolerance * most) & ~(slow & (gain <= ROUNDING * loss))
        if not bool(open_.any()) and taken:
            break
        if bool((slow & open_).any()) and not fresh:
            factors = None
            continue
        w, logits, loss = _lowered(problem, w, move, logits, loss)
        taken, before, most, fresh = taken + 1, gain, torch.maximum(most, gain), False
    w[:, -1] -= (w[:, :-1] * problem.centre[:, 0]).sum(-1)
    return w, loss, taken


def _lowered(
    problem: _Problem, w: torch.Tensor, move: torch.Tensor, logits: torch.Tensor, loss: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return coefficients, logits and losses after the longest of the steps 1, 1/2, 1/4, ... that raises no loss."""
    along, share = problem.logits(move), torch.ones_like(loss)
    for _ in range(30):
        tried, moved = w - share[:, None] * move, logits - share[:, None] * along
        new = problem.loss(tried, moved)
        worse = new > loss * (1 + 1e-14)
        if not bool(worse.any()):
            return tried, moved, new
        share = torch.where(worse, share / 2, share)
    good = (new <= loss * (1 + 1e-14))[:, None]
    return torch.where(good, tried, w), torch.where(good, moved, logits), torch.where(good[:, 0], new, loss)
