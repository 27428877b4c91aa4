"""`pellucid check`: the proofs of a layout and the exactness of the engine, on the model at hand."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from pellucid.core.results import Table
from pellucid.core.tokens import Tokens
from pellucid.engine.cone import score_edits, score_edits_plain
from pellucid.engine.forward_mode import along, can_go_forward
from pellucid.engine.gradients import site_values, value_and_gradient
from pellucid.engine.probing import small_question
from pellucid.engine.reading import read
from pellucid.engine.readout import Readout
from pellucid.engine.scoring import score_shared, trusted
from pellucid.engine.variants import Variant, whole
from pellucid.models.edits import Edit
from pellucid.models.load import subject_of
from pellucid.models.proofs import Proof, proofs
from pellucid.models.subject import Record

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

COPY_LIMIT = 500_000_000


def check(subject: Subject, *, both: bool = True) -> Table:
    """Prove the layout and the engine on a model and return a table [dtype, check, figure, bar, ok, detail].

    Args:
        subject: the model; it is not changed.
        both: also check copies in float32 and float64 (models of up to 500 million weights); else only the model as
            it is.
    """
    rows = [
        (dtype, proof.name, proof.figure, proof.bar, proof.ok, proof.detail)
        for dtype, one in _copies(subject, both)
        for proof in (*proofs(one), *exactness(one))
    ]
    failed = sum(not row[4] for row in rows)
    verdict = "all passed" if failed == 0 else f"{failed} FAILED"
    return Table(
        title=f"{subject.name} ({subject.need_layout().architecture}, {subject.kind}): {len(rows)} checks, {verdict}",
        columns=("dtype", "check", "figure", "bar", "ok", "detail"),
        rows=tuple(rows),
        provenance=subject.provenance("check", {}, Record(), None),
    )


def _copies(subject: Subject, both: bool) -> Iterator[tuple[str, Subject]]:
    size = sum(p.numel() for p in subject.model.parameters())
    plain = all(p.is_floating_point() and p.device.type != "meta" for p in subject.model.parameters())
    if not both or size > COPY_LIMIT or not plain:
        yield subject.dtype, subject
        return
    for dtype in (torch.float32, torch.float64):
        model = copy.deepcopy(subject.model).to(dtype)
        yield (
            str(dtype).removeprefix("torch."),
            subject_of(model, subject.tokenizer, name=subject.name, layout=subject.layout, proved=False),
        )


def exactness(subject: Subject) -> Iterator[Proof]:
    """Yield what the engine promises of itself: batched = single, gradient = finite difference, fast = plain."""
    question = small_question(subject)
    if question is None:
        return
    tokens, readout = question
    # Llama and its kin normalise in float32 whatever their dtype, so float64 does not buy float64's digits.
    eps = max(
        torch.finfo(getattr(torch, subject.dtype)).eps,
        torch.finfo(torch.float32).eps if subject.dtype == "float64" else 0,
    )
    ids = tokens.ids
    variants = [whole(tokens), Variant(ids[:3], (0, 1, 2)), Variant(ids[1:], (1, 2, 3, 4))]
    with torch.no_grad():
        together = read(subject, tokens, readout, variants)[0].double()
        alone = torch.cat([read(subject, tokens, readout, [v])[0] for v in variants]).double()
    scale = max(1.0, float(alone.abs().max()))
    yield _proof("scores in a batch = one by one", float((together - alone).abs().max()), 2000 * eps * scale)
    yield _gradient(subject, tokens, readout, eps)
    if can_go_forward(subject):
        yield _forward_mode(subject, tokens, readout, eps)
    if readout.kind == "next" and trusted(subject):
        shared = torch.from_numpy(score_shared(subject, tokens, readout, variants))
        yield _proof("shared prefixes = plain", float((shared - alone).abs().max()), 2000 * eps * scale)
    if subject.kind in ("decoder", "encoder"):
        yield _cone(subject, tokens, readout, eps * scale)


def _gradient(subject: Subject, tokens: Tokens, readout: Readout, eps: float) -> Proof:
    point = site_values(subject, tokens, readout)
    direction = torch.randn(point.shape, generator=torch.Generator().manual_seed(0)).to(point)
    direction = direction / direction.norm() * point.norm().clamp(min=1e-3)
    _, gradient = value_and_gradient(subject, tokens, readout, point[None])
    slope = float((gradient[0].sum(0).double() * direction.double()).sum())
    # Routers switch experts at once, so a step that is too long measures a jump, and one that is too short only
    # rounding: any of four lengths may agree.
    errors = []
    for step in (0.1, eps ** (1 / 3), 0.1 * eps ** (1 / 3), 0.01 * eps ** (1 / 3)):
        ends, _ = value_and_gradient(
            subject, tokens, readout, torch.stack([point + step * direction, point - step * direction])
        )
        measured = float((ends[0] - ends[1]).double().sum()) / (2 * step)
        errors.append(abs(slope - measured) / max(abs(slope), abs(measured), 1e-30))
    return _proof("gradient = finite difference (relative)", min(errors), 0.02)


def _forward_mode(subject: Subject, tokens: Tokens, readout: Readout, eps: float) -> Proof:
    point = site_values(subject, tokens, readout)
    direction = torch.randn(point.shape, generator=torch.Generator().manual_seed(1)).to(point)
    slope = float(along(subject, tokens, readout, point[None], direction[None])[1].sum())
    _, gradient = value_and_gradient(subject, tokens, readout, point[None])
    expected = float((gradient[0].sum(0) * direction).sum())
    return _proof("forward mode = gradient (relative)", abs(slope - expected) / max(abs(expected), 1e-6), 1e5 * eps)


def _cone(subject: Subject, tokens: Tokens, readout: Readout, unit: float) -> Proof:
    edits = [
        (Edit(f"blocks.{layer}.{part}", "scale", 0.5, {"position": position}),)
        for layer in range(subject.layers)
        for part in ("resid_pre", "mlp.out", "attn.z")
        for position in (0, len(tokens) - 1)
    ]
    plain = score_edits_plain(subject, tokens, readout, edits)
    fast = score_edits(subject, tokens, readout, edits)
    return _proof("edits in the causal cone = full runs", float(np.abs(plain - fast).max()), 2000 * unit)


def _proof(name: str, figure: float, bar: float) -> Proof:
    return Proof(name, figure, bar, figure <= bar)
