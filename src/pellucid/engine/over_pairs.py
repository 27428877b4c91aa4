"""Effects over a set of prompts or pairs of prompts: their paired interval, and a null of equal norm beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import stats

from pellucid.core.errors import InputError
from pellucid.core.pairs import Pair
from pellucid.core.results import Evidence
from pellucid.engine.coalitions import standard_error


@dataclass(frozen=True)
class AskedPair:
    """A pair of prompts, its target, and the alternative that this is compared with."""

    pair: Pair
    target: Any
    contrast: Any


def several_pairs(
    first: AskedPair, others: Sequence[Pair], targets: Sequence[Any] | None, contrasts: Sequence[Any] | None
) -> list[AskedPair]:
    """Return the first pair and further ones, each with its target and contrast; None takes the first's for all.

    Raises:
        InputError: not as many targets or contrasts as further pairs.
    """
    given = {"other_targets": targets, "other_contrasts": contrasts}
    for name, values in given.items():
        if values is not None and len(values) != len(others):
            raise InputError(f"There are {len(values)} {name} for {len(others)} other pairs; give one each, or none.")
    aims = [first.target] * len(others) if targets is None else targets
    against = [first.contrast] * len(others) if contrasts is None else contrasts
    return [first, *(AskedPair(*one) for one in zip(others, aims, against, strict=True))]


def as_far(plain: torch.Tensor, new: torch.Tensor, dims: Sequence[int], generator: torch.Generator) -> torch.Tensor:
    """Return values moved as far as `new` over the axes `dims` together, but in a random direction of these."""
    random = torch.randn(plain.shape, generator=generator).to(plain)
    both = (new - plain, random)
    far, length = ((v**2).sum(list(dims), keepdim=True).sqrt() if dims else v.abs() for v in both)
    return plain + random * far / length.clamp(min=1e-30)


def stacked_pairs(grids: Sequence[np.ndarray]) -> np.ndarray:
    """Return the effects of all pairs [pairs, ...].

    Raises:
        InputError: pairs of different numbers of tokens.
    """
    shapes = {grid.shape for grid in grids}
    if len(shapes) > 1:
        raise InputError(
            f"Effects are averaged place by place, but the pairs have grids of {sorted(shapes)}; give pairs with "
            "equally many tokens, such as those of one template."
        )
    return np.stack(grids)


def paired(found: np.ndarray) -> Evidence:
    """Return how many effects [pairs, ...] have a 95 % interval over pairs that leaves out 0."""
    count = len(found)
    half = float(stats.t.ppf(0.975, count - 1)) * standard_error(found)
    clear = float((np.abs(found.mean(0)) > half).mean())
    return Evidence(
        "paired interval",
        f"Over {count} prompts, paired, the 95 % interval of {100 * clear:.0f} % of the parts leaves out 0; half its "
        f"width is {half.mean():.2g} on average.",
        {"prompts": float(count), "clear": clear, "half_width": float(half.mean())},
    )


def against_null(found: np.ndarray, null: np.ndarray) -> Evidence:
    """Compare effects [pairs, ...] with those of a random change of equal norm; the curves have both, in C order."""
    effect, chance = found.mean(0), null.mean(0)
    here, there = np.abs(effect), np.abs(chance)
    share = float((here > there).mean())
    numbers = tuple(float(i) for i in range(effect.size))
    return Evidence(
        "null of equal norm",
        f"Moved as far in a random direction, parts change the target by {there.mean():.2g} on average, against "
        f"{here.mean():.2g}; {100 * share:.0f} % of the parts change it more than that.",
        {"effect": float(here.mean()), "null": float(there.mean()), "null_largest": float(there.max()), "share": share},
        {"x": numbers, "effect": tuple(map(float, effect.ravel())), "null": tuple(map(float, chance.ravel()))},
    )
