"""Derivatives along directions: forward mode gives all targets at once, backward mode all directions at once."""

from __future__ import annotations

import functools
import importlib
import warnings
from typing import TYPE_CHECKING

import torch
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from pellucid.core.tokens import Tokens, Units
from pellucid.engine.gradients import frozen, put, site_values, value_and_gradient
from pellucid.engine.planning import in_batches
from pellucid.engine.probing import small_question
from pellucid.engine.reading import read
from pellucid.engine.readout import Readout
from pellucid.engine.variants import token_site, whole

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

FORWARD_PRICE = 3.0  # a forward-mode row, value and derivative, in backward passes of one target


def unit_slopes(
    subject: Subject, tokens: Tokens, readout: Readout, units: Units, points: torch.Tensor, direction: torch.Tensor
) -> torch.Tensor:
    """Return the derivatives of the scores along a direction of the token embeddings, unit by unit.

    Args:
        subject: the model.
        tokens: the prompt.
        readout: what is read.
        units: the parts of the prompt.
        points: token embeddings, [points, positions, dimension].
        direction: [positions, dimension]; a unit's own direction is this one at its positions, zero elsewhere.

    Returns:
        [points, units, targets]. Exact. One forward-mode row per unit gives all targets, one backward pass per target
        gives all units; the cheaper is taken.
    """
    if FORWARD_PRICE * len(units) < readout.size and can_go_forward(subject):
        return along(subject, tokens, readout, points, _of_units(units, direction))[1]
    _, gradients = value_and_gradient(subject, tokens, readout, points)
    by_position = torch.einsum("stpd,pd->spt", gradients, direction.to(gradients))
    return torch.stack([by_position[:, start:end].sum(1) for start, end in units.spans], 1)


def _of_units(units: Units, direction: torch.Tensor) -> torch.Tensor:
    directions = direction.new_zeros(len(units), *direction.shape)
    for number, (start, end) in enumerate(units.spans):
        directions[number, start:end] = direction[start:end]
    return directions


def along(
    subject: Subject, tokens: Tokens, readout: Readout, points: torch.Tensor, directions: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return values [points, targets] and derivatives [points, directions, targets] by forward mode. Exact."""
    _ready()
    site = token_site(subject)
    pairs = [(point, direction.to(point)) for point in points for direction in directions]

    def run(batch: list[tuple[torch.Tensor, torch.Tensor]]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        # Fused attention has no forward-mode derivative.
        with subject.lock, frozen(subject.model), sdpa_kernel(SDPBackend.MATH), forward_ad.dual_level():
            duals = [forward_ad.make_dual(point, direction) for point, direction in batch]
            edits = [(put(site, dual, len(tokens)),) for dual in duals]
            values, _ = read(subject, tokens, readout, [whole(tokens)] * len(batch), edits=edits, grad=True)
            primal, tangent = forward_ad.unpack_dual(values)
        slopes = torch.zeros_like(primal) if tangent is None else tangent
        return list(zip(primal.detach(), slopes.detach(), strict=True))

    answers = in_batches(pairs, [len(tokens) + max(len(f) for f in readout.forced)] * len(pairs), run)
    shape = (len(points), len(directions), -1)
    values = torch.stack([value for value, _ in answers]).view(shape)[:, 0]
    return values, torch.stack([slope for _, slope in answers]).view(shape)


@functools.cache
def _ready() -> None:
    """Let torch load its forward-mode formulas, which it announces with a deprecation warning about itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        importlib.import_module("torch._decomp.decompositions_for_jvp")


def can_go_forward(subject: Subject) -> bool:
    """Return whether this model's forward-mode derivatives were compared with its gradients and agree."""
    key = ("forward mode", type(subject.model), subject.dtype, subject.edits)
    if key not in subject.state.cache:
        with subject.uncounted():
            subject.state.cache[key] = _modes_agree(subject)
    return bool(subject.state.cache[key])


def _modes_agree(subject: Subject) -> bool:
    question = small_question(subject)
    if question is None:
        return False
    tokens, readout = question
    point = site_values(subject, tokens, readout)
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(point.shape, generator=generator).to(point)[None]
    try:
        _, slope = along(subject, tokens, readout, point[None], direction)
    except (RuntimeError, NotImplementedError, TypeError):
        return False
    _, gradient = value_and_gradient(subject, tokens, readout, point[None])
    expected = torch.einsum("stpd,upd->sut", gradient, direction)
    bar = 1e5 * torch.finfo(torch.float32 if subject.dtype == "float64" else point.dtype).eps
    return bool((slope - expected).abs().max() <= bar * expected.abs().max().clamp(min=1e-6))
