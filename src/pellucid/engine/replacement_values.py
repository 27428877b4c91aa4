"""What takes the place of an ablated value: zero, a mean, a value drawn elsewhere, or noise."""

from __future__ import annotations

import torch

from pellucid.core.errors import InputError


def replacement_values(
    pool: list[torch.Tensor], plain: torch.Tensor, how: str, per_position: bool, noise: float,
    generator: torch.Generator,
) -> torch.Tensor:  # fmt: skip
    """Return what takes the place of values [position, ...], from those of the references."""
    if how == "zero":
        return torch.zeros_like(plain)
    wide = [reference.to(torch.promote_types(plain.dtype, torch.float32)) for reference in pool]
    if per_position and min(map(len, wide)) < len(plain):
        raise InputError(
            f"A reference has {min(map(len, wide))} tokens, but the prompt has {len(plain)} positions to fill; give "
            "longer references, or per_position=False."
        )
    given = torch.stack([value[: len(plain)] for value in wide]) if per_position else torch.cat(wide)[:, None]
    if how == "mean":
        return given.mean(0).expand_as(plain).to(plain)
    if how == "resample":
        chosen = torch.randint(len(given), (len(plain),), generator=generator)
        return given[chosen, torch.arange(len(plain)) % given.shape[1]].to(plain)
    spread = noise * given.std(0, correction=0)
    return (plain + spread * torch.randn(plain.shape, generator=generator).to(spread)).to(plain)
