"""Many edits of one run, each read at the target.

An edit at layer l and position p of a decoder changes nothing below layer l or left of p: blocks below l are
bypassed, positions left of p come from kept keys and values. Within its own block, an edit at one position that
attention does not carry to others changes that position alone. `score_edits_plain` runs every edit as a full forward
and is the oracle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from pellucid.core.axes import parse_site
from pellucid.core.tokens import Tokens
from pellucid.engine.cone_rows import Base, at_one_place, base_run, onward
from pellucid.engine.planning import check_cancelled, in_batches, report
from pellucid.engine.reading import not_nan, read
from pellucid.engine.readout import Readout, combined
from pellucid.engine.scoring import trusted
from pellucid.engine.variants import whole
from pellucid.models.edits import Edit

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

Edits = tuple[Edit, ...]
# Sites whose value at one position reaches, within their block, that position alone.
ALONE = (
    "attn.q",
    "attn.z",
    "attn.out_raw",
    "attn.out",
    "resid_mid",
    "mlp.gate",
    "mlp.up",
    "mlp.post",
    "mlp.out_raw",
    "mlp.out",
)


def score_edits(subject: Subject, tokens: Tokens, readout: Readout, edits: Sequence[Edits]) -> np.ndarray:
    """Return the scores of the prompt under each set of edits: [sets, readout.size], float64.

    Exact: equal to a full forward per set, up to rounding.
    """
    starts = [_start(tokens, one) for one in edits]
    cone = [i for i, start in enumerate(starts) if start is not None]
    if len(cone) < 2 or readout.kind != "next" or not trusted(subject):
        return score_edits_plain(subject, tokens, readout, edits)
    found = np.zeros((len(edits), readout.size))
    rest = [i for i, start in enumerate(starts) if start is None]
    if rest:
        found[rest] = score_edits_plain(subject, tokens, readout, [edits[i] for i in rest])
    try:
        found[cone] = _score_cone(subject, tokens, readout, [(edits[i][0], starts[i]) for i in cone])  # type: ignore[misc]
    except (MemoryError, torch.OutOfMemoryError):
        return score_edits_plain(subject, tokens, readout, edits)  # keeps no keys and values, and halves its batches
    return found


def score_edits_plain(subject: Subject, tokens: Tokens, readout: Readout, edits: Sequence[Edits]) -> np.ndarray:
    """Score each set of edits by a full forward: [sets, readout.size], float64."""

    def run(batch: list[Edits]) -> list[np.ndarray]:
        values, _ = read(subject, tokens, readout, [whole(tokens)] * len(batch), edits=batch)
        return list(values.detach().double().cpu().numpy())

    length = len(tokens) + max(len(forced) for forced in readout.forced)
    with torch.no_grad():
        answers = in_batches(edits, [length] * len(edits), run)
    return np.stack(answers) if answers else np.zeros((0, readout.size))


@dataclass(frozen=True)
class Start:
    """Where an edit enters the cone: its layer and position, and whether it stays there within the block."""

    layer: int
    position: int
    alone: bool


def _start(tokens: Tokens, edits: Edits) -> Start | None:
    """Return where a single edit at one position of a block enters, or None where only the plain form applies."""
    if len(edits) != 1 or edits[0].phase != "all":
        return None
    edit, site = edits[0], parse_site(edits[0].site)
    position = edit.where.get("position")
    if site.layer is None or site.stack or not isinstance(position, int):
        return None
    position = position if position >= 0 else len(tokens) + position
    if not 0 <= position < len(tokens):
        return None
    if site.part == "resid_post":
        return Start(site.layer, position, True)
    return (
        Start(site.layer, position, site.part in ALONE)
        if site.part in (*ALONE, "resid_pre", "attn.k", "attn.v")
        else None
    )


def _score_cone(subject: Subject, tokens: Tokens, readout: Readout, edits: Sequence[tuple[Edit, Start]]) -> np.ndarray:
    pieces: dict[tuple[int, ...], torch.Tensor] = {}
    for forced in readout.forced:
        base = base_run(subject, tokens.ids + forced)
        wanted = list(range(len(tokens) - 1, len(tokens) + len(forced)))
        pieces[forced] = _logits(subject, base, wanted, edits, readout)
        subject.count(forwards=len(edits))
    values = combined(readout, pieces)
    not_nan(values, readout)
    return values.double().cpu().numpy()


def _logits(
    subject: Subject, base: Base, wanted: list[int], edits: Sequence[tuple[Edit, Start]], readout: Readout
) -> torch.Tensor:
    """Return the logits [edits, wanted, vocabulary], bucketed by the layer where each edit enters."""
    found: dict[int, torch.Tensor] = {}
    for layer in sorted({start.layer for _, start in edits}):
        here = [i for i, (_, start) in enumerate(edits) if start.layer == layer]
        alone = [i for i in here if edits[i][1].alone]
        spread = [i for i in here if not edits[i][1].alone]
        if alone:
            check_cancelled()
            changed = at_one_place(subject, base, layer, [(edits[i][0], edits[i][1].position) for i in alone])
            rows = [(edits[i][1].position, value, None) for i, value in zip(alone, changed, strict=True)]
            found.update(zip(alone, onward(subject, base, layer + 1, rows, wanted), strict=True))
        if spread:
            check_cancelled()
            rows = [(edits[i][1].position, None, edits[i][0]) for i in spread]
            found.update(zip(spread, onward(subject, base, layer, rows, wanted), strict=True))
        report(len(found), len(edits))
    return torch.stack([found[i] for i in range(len(edits))])
