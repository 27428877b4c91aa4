"""Gates that can be exactly 0 or 1 and still be trained: the hard concrete distribution.

A logistic draw is squeezed into (0, 1), stretched beyond both ends and cut off there, so that 0 and 1 have a chance of
their own, whose size is differentiable (Louizos et al. 2018, arXiv:1712.01312).
"""

from __future__ import annotations

import math

import torch

TEMPERATURE = 2 / 3
LOW, HIGH = -0.1, 1.1


def sampled(locations: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return a random gate in [0, 1] for each location (log alpha), differentiable in it."""
    uniform = torch.rand(locations.shape, generator=generator, dtype=torch.float64).to(locations)
    uniform = uniform.clamp(1e-6, 1 - 1e-6)
    noise = uniform.log() - (-uniform).log1p()
    return _cut(((noise + locations) / TEMPERATURE).sigmoid())


def settled(locations: torch.Tensor) -> torch.Tensor:
    """Return the gate without noise, in [0, 1]: what is used once training is over."""
    return _cut(locations.sigmoid())


def open_chance(locations: torch.Tensor) -> torch.Tensor:
    """Return the chance that a random gate is not 0; its sum is the expected number of open gates."""
    return (locations - TEMPERATURE * math.log(-LOW / HIGH)).sigmoid()


def _cut(shares: torch.Tensor) -> torch.Tensor:
    return (shares * (HIGH - LOW) + LOW).clamp(0, 1)
