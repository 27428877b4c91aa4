"""Many edits of one run, each read at the target.

An edit at layer l and position p of a decoder changes nothing below layer l or left of p: blocks below l are
bypassed, positions left of p come from kept keys and values. Within its own block, an edit after the attention pattern
changes the edited positions alone, so that block computes no attention for it. On encoders only the layers below are
saved. `score_edits_plain` runs every edit as a full forward and is the oracle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from pellucid.core.axes import parse_site
from pellucid.core.tokens import Tokens
from pellucid.engine.cone_block import AFTER_PATTERN, after_pattern, at_one_place, has_halves
from pellucid.engine.cone_layers import score_from_layers
from pellucid.engine.cone_rows import Base, Start, base_run, onward
from pellucid.engine.planning import check_cancelled, in_batches, report
from pellucid.engine.reading import not_nan, read
from pellucid.engine.readout import Readout, combined
from pellucid.engine.scoring import trusted
from pellucid.engine.variants import whole
from pellucid.models.edits import Edit
from pellucid.models.kernels import session
from pellucid.models.tails import within_window

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

Edits = tuple[Edit, ...]
SPREADING = ("resid_pre", "attn.q", "attn.k", "attn.v")


def score_edits(subject: Subject, tokens: Tokens, readout: Readout, edits: Sequence[Edits]) -> np.ndarray:
    """Return the scores of the prompt under each set of edits: [sets, readout.size], float64.

    The subject's own edits act too. Exact: equal to a full forward per set, up to rounding.
    """
    if subject.kind == "encoder" and not subject.edits:
        return score_from_layers(subject, tokens, readout, edits)
    entries = [_entry(tokens, one) for one in edits]
    cone = [i for i, entry in enumerate(entries) if entry is not None]
    if len(cone) < 2 or readout.kind != "next" or not _allowed(subject, tokens, readout):
        return score_edits_plain(subject, tokens, readout, edits)
    found = np.zeros((len(edits), readout.size))
    rest = [i for i, entry in enumerate(entries) if entry is None]
    if rest:
        found[rest] = score_edits_plain(subject, tokens, readout, [edits[i] for i in rest])
    try:
        with session(subject, len(tokens) * len(cone)):
            found[cone] = _score_cone(subject, tokens, readout, [e for e in entries if e is not None])
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


def _allowed(subject: Subject, tokens: Tokens, readout: Readout) -> bool:
    """Return whether the model continues from kept values, and its own edits lie before the first block."""
    longest = len(tokens) + max(len(forced) for forced in readout.forced)
    before = all(parse_site(edit.site).part == "embed.token" for edit in subject.edits)
    return before and trusted(subject.without_edits()) and within_window(subject, longest)


@dataclass(frozen=True)
class Entry:
    """A set of edits and where it enters: its first layer, the positions it names (None for all), and how.

    `after_pattern` says that all edits lie in one block, after its attention pattern; `alone` that a query is edited at
    one position.
    """

    edits: Edits
    layer: int
    positions: tuple[int, ...] | None
    after_pattern: bool
    alone: bool


def _entry(tokens: Tokens, edits: Edits) -> Entry | None:
    """Return where a set of edits of blocks enters, or None where only the plain form applies."""
    sites = [parse_site(edit.site) for edit in edits]
    if not edits or any(edit.phase != "all" for edit in edits):
        return None
    if any(s.layer is None or s.stack or s.part not in (*AFTER_PATTERN, *SPREADING) for s in sites):
        return None
    named: set[int] | None = set()
    for edit in edits:
        positions = _positions(tokens, edit)
        if positions is not None and not all(0 <= p < len(tokens) for p in positions):
            return None  # the plain form raises the error
        named = None if named is None or positions is None else named | set(positions)
    layers = {int(site.layer or 0) for site in sites}
    after = len(layers) == 1 and all(site.part in AFTER_PATTERN for site in sites)
    alone = len(edits) == 1 and sites[0].part == "attn.q" and named is not None and len(named) == 1
    return Entry(edits, min(layers), None if named is None else tuple(sorted(named)), after, alone)


def _positions(tokens: Tokens, edit: Edit) -> tuple[int, ...] | None:
    """Return the positions an edit names, counted from the start, or None for all or a slice (of continuations too)."""
    where = edit.where.get("position")
    if where is None or isinstance(where, slice):
        return None
    places = (where,) if isinstance(where, int) else tuple(where)
    return tuple(p if p >= 0 else len(tokens) + p for p in places)


def _score_cone(subject: Subject, tokens: Tokens, readout: Readout, entries: Sequence[Entry]) -> np.ndarray:
    pieces: dict[tuple[int, ...], torch.Tensor] = {}
    for forced in readout.forced:
        base = base_run(subject, tokens.ids + forced, len(tokens))
        wanted = list(range(len(tokens) - 1, len(tokens) + len(forced)))
        pieces[forced] = _logits(subject.without_edits(), base, wanted, entries)
        subject.count(forwards=len(entries))
    values = combined(readout, pieces)
    not_nan(values, readout)
    return values.double().cpu().numpy()


def _logits(subject: Subject, base: Base, wanted: list[int], entries: Sequence[Entry]) -> torch.Tensor:
    """Return the logits [sets, wanted, vocabulary], bucketed by the layer where each set enters."""
    halves = has_halves(subject, base)
    found: dict[int, torch.Tensor] = {}
    for layer in sorted({entry.layer for entry in entries}):
        here = [i for i, entry in enumerate(entries) if entry.layer == layer]
        half = [i for i in here if halves and entries[i].after_pattern]
        alone = [i for i in here if entries[i].alone]
        spread = [i for i in here if i not in {*half, *alone}]
        late: list[Start] = []
        for some, work in ((half, after_pattern), (alone, at_one_place)):
            check_cancelled()
            places = [_places(base, entries[i]) for i in some]
            changed = work(subject, base, layer, [(entries[i].edits, at) for i, at in zip(some, places, strict=True)])
            late += [Start(at[0], at, value) for at, value in zip(places, changed, strict=True)]
        check_cancelled()
        found.update(zip([*half, *alone], onward(subject, base, layer + 1, late, wanted), strict=True))
        early = [Start(_places(base, entries[i])[0], edits=entries[i].edits) for i in spread]
        found.update(zip(spread, onward(subject, base, layer, early, wanted), strict=True))
        report(len(found), len(entries))
    return torch.stack([found[i] for i in range(len(entries))])


def _places(base: Base, entry: Entry) -> tuple[int, ...]:
    return tuple(range(len(base.ids))) if entry.positions is None else entry.positions
