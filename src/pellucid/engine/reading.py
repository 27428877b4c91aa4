"""From rows to scores: the one place where a batch is run and its readout taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from pellucid.core.errors import ModelError, PellucidError
from pellucid.core.tokens import Tokens
from pellucid.engine.readout import Readout, combined
from pellucid.engine.variants import Variant, mask_position, row
from pellucid.models import blackbox
from pellucid.models.edits import Edit
from pellucid.models.forward import Output, forward
from pellucid.models.proofs import probe

if TYPE_CHECKING:
    from pellucid.models.subject import Subject


def read(
    subject: Subject,
    tokens: Tokens,
    readout: Readout,
    variants: Sequence[Variant],
    *,
    edits: Sequence[tuple[Edit, ...]] | None = None,
    capture: Sequence[str] = (),
    grad: bool = False,
    outside: bool = False,
) -> tuple[torch.Tensor, Output | None]:
    """Run one batch of variants and return their scores [rows, readout.size] and the output of its first pass.

    `edits[i]` are the edits of row i. A contrast between continuations of several tokens runs one pass per
    continuation. `outside` says that edits lie before the blocks and nothing looks into them, so that the last one
    need not work at positions that are not read.
    """
    if subject.kind == "black-box":
        assert subject.function is not None
        values = blackbox.call(
            subject.function, subject.state.cache.setdefault("pieces", {}), [v.ids for v in variants]
        )
        subject.count(forwards=len(variants))
        return combined(readout, {(): torch.from_numpy(values)[:, None, :]}), None
    pieces: dict[tuple[int, ...], torch.Tensor] = {}
    first: Output | None = None
    for forced in readout.forced:
        rows = [row(subject, tokens, v, forced, edits[i] if edits else ()) for i, v in enumerate(variants)]
        wanted = _wanted(subject, tokens, readout, variants, len(forced) + 1)
        outside = outside or (subject.kind == "encoder" and not (edits or capture or grad))
        ends = _ends(subject, readout, wanted, len(rows)) if outside else None
        output = forward(subject, rows, capture=capture, grad=grad, wanted=wanted, ends=ends)
        first = first or output
        pieces[forced] = _target_logits(readout, output)
    scores = combined(readout, pieces)
    not_nan(scores, readout)
    return scores, first


def not_nan(scores: torch.Tensor, readout: Readout) -> None:
    """Raise `ModelError` for a score that is NaN."""
    if bool(torch.isnan(scores).any()):
        blame = (
            "the function or in the model's weights"
            if readout.function is not None
            else "the model's weights, or overflow in its dtype"
        )
        raise ModelError(f"The score of {readout.description or 'the prediction'} is NaN; look for NaN in {blame}.")


def _wanted(
    subject: Subject, tokens: Tokens, readout: Readout, variants: Sequence[Variant], count: int
) -> torch.Tensor | None:
    """Return the positions [rows, count] whose logits are read, or None where the model pools by itself."""
    if readout.kind in ("pooled", "vector"):
        return None
    if readout.kind == "mask":
        place = mask_position(subject, tokens)
        return torch.tensor([[v.origin.index(place)] for v in variants])
    first = [0 if subject.kind == "encoder-decoder" else len(v.ids) - 1 for v in variants]
    return torch.tensor(first)[:, None] + torch.arange(count)[None]


def _ends(subject: Subject, readout: Readout, wanted: torch.Tensor | None, count: int) -> torch.Tensor | None:
    """Return the positions [rows, n] that alone the head reads: those asked for, or an encoder's first where it pools.

    None where a probe of unequal rows did not show it for this model.
    """
    kinds = {"encoder": ("mask", "pooled"), "decoder": ("next",)}
    if subject.edits or subject.layout is None or readout.kind not in kinds.get(subject.kind, ()):
        return None
    key = ("read behind the last block", type(subject.model), subject.dtype, readout.kind)
    if key not in subject.state.cache:
        with subject.uncounted():
            subject.state.cache[key] = _read_there(subject, pooled=wanted is None)
    if not subject.state.cache[key]:
        return None
    return torch.zeros(count, 1, dtype=torch.long) if wanted is None else wanted


def _read_there(subject: Subject, pooled: bool) -> bool:
    rows = [probe(subject, 9), probe(subject, 4)]
    places = torch.zeros(2, 1, dtype=torch.long) if pooled else torch.tensor([[3], [2]])
    wanted = None if pooled else places
    try:
        whole, alone = (forward(subject, rows, wanted=wanted, ends=ends).logits for ends in (None, places))
    except (PellucidError, RuntimeError, TypeError, ValueError, AttributeError, IndexError):
        return False
    bar = 200 * torch.finfo(whole.dtype).eps * max(1.0, float(whole.abs().max()))
    return whole.shape == alone.shape and bool((whole - alone).abs().max() <= bar)


def _target_logits(readout: Readout, output: Output) -> torch.Tensor:
    if readout.kind == "pooled":
        return output.logits[:, None, :]
    return _pooled(output.logits, output.lengths, readout) if readout.kind == "vector" else output.logits


def _pooled(hidden: torch.Tensor, lengths: list[int], readout: Readout) -> torch.Tensor:
    mask = (
        torch.arange(hidden.shape[1], device=hidden.device)[None] < torch.tensor(lengths, device=hidden.device)[:, None]
    )
    mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    if readout.reference is not None:
        cosine = torch.nn.functional.cosine_similarity(mean, readout.reference[None].to(mean), dim=-1)
        return cosine[:, None, None]
    return mean
