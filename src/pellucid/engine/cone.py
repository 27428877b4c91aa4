"""Many edits of one run, each read at the target.

An edit at layer l and position p of a decoder changes nothing below layer l or left of p: blocks below l are
bypassed, positions left of p come from kept keys and values. Within its own block, an edit after the attention pattern
changes the edited positions alone, so that block computes no attention for it. Edits of the embeddings, as noise, make
whole runs, from which those of the blocks depart. On encoders only the layers below are saved. `score_edits_plain`
runs every edit as a full forward and is the oracle.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from pellucid.core.axes import parse_site
from pellucid.core.tokens import Tokens
from pellucid.engine.cone_block import AFTER_PATTERN, after_pattern, at_one_place, has_halves
from pellucid.engine.cone_layers import score_from_layers
from pellucid.engine.cone_onward import Start, onward
from pellucid.engine.cone_rows import Base, at_some, base_runs
from pellucid.engine.model_head import LateOutputs
from pellucid.engine.planning import TOKENS_PER_BATCH, check_cancelled, in_batches, report
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
Ids = tuple[int, ...]
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
    """A set of edits: those before the first block, which make its run, and where the others enter.

    `own` are the edits of the first layer where all of them come after its attention pattern, made for their positions
    `at` alone, `later` the others; `start` is the first position that any names; `alone` says that only a query is
    edited, at one position.
    """

    run: Edits
    layer: int = 0
    start: int = 0
    own: Edits = ()
    at: tuple[int, ...] = ()
    later: Edits = ()
    alone: bool = False


def _entry(tokens: Tokens, edits: Edits) -> Entry | None:
    """Return where a set of edits enters, or None where only the plain form applies."""
    run = tuple(edit for edit in edits if parse_site(edit.site).part == "embed.token")
    rest = [edit for edit in edits if parse_site(edit.site).part != "embed.token"]
    sites = [parse_site(edit.site) for edit in rest]
    if any(edit.phase != "all" for edit in edits):
        return None
    if any(s.layer is None or s.stack or s.part not in (*AFTER_PATTERN, *SPREADING) for s in sites):
        return None
    named = [_positions(tokens, edit) for edit in rest]
    if not all(0 <= p < len(tokens) for at in named for p in at or ()):
        return None  # the plain form raises the error
    if not rest:
        return Entry(run)
    layer = min(int(site.layer or 0) for site in sites)
    first = [i for i, site in enumerate(sites) if site.layer == layer]
    start = min(min(at, default=0) if at is not None else 0 for at in named)
    alone = len(rest) == 1 and sites[0].part == "attn.q" and len(named[0] or ()) == 1
    if not alone and any(sites[i].part in SPREADING for i in first):
        return Entry(run, layer, start, later=tuple(rest))
    places = [named[i] for i in first]
    at = () if None in places else tuple(sorted({p for one in places for p in one or ()}))
    own, later = tuple(rest[i] for i in first), tuple(e for i, e in enumerate(rest) if i not in first)
    return Entry(run, layer, start, own, at, later, alone)


def _positions(tokens: Tokens, edit: Edit) -> tuple[int, ...] | None:
    """Return the positions an edit names, counted from the start, or None for all or a slice (of continuations too)."""
    where = edit.where.get("position")
    if where is None or isinstance(where, slice):
        return None
    places = (where,) if isinstance(where, int) else tuple(where)
    return tuple(p if p >= 0 else len(tokens) + p for p in places)


def _score_cone(subject: Subject, tokens: Tokens, readout: Readout, entries: Sequence[Entry]) -> np.ndarray:
    runs: dict[tuple[int, ...], list[int]] = {}
    for i, entry in enumerate(entries):
        runs.setdefault(tuple(map(id, entry.run)), []).append(i)
    found = np.zeros((len(entries), readout.size))
    together = max(1, TOKENS_PER_BATCH // (len(tokens) + max(len(forced) for forced in readout.forced)))
    alike = list(runs.values())
    for first in range(0, len(alike), together):
        here = alike[first : first + together]
        found[[i for run in here for i in run]] = _score_runs(
            subject, tokens, readout, [[entries[i] for i in run] for run in here]
        )
    return found


def _score_runs(subject: Subject, tokens: Tokens, readout: Readout, runs: Sequence[Sequence[Entry]]) -> np.ndarray:
    """Return the scores [sets of all runs, readout.size] of the sets that depart from each run."""
    values = torch.zeros(sum(map(len, runs)), readout.size, dtype=torch.float64)
    whole_rows = [(number, entry) for number, run in enumerate(runs) for entry in run]
    plain = subject.without_edits()
    for forced in readout.forced:
        wanted = list(range(len(tokens) - 1, len(tokens) + len(forced)))
        rows = [(number, _read_alone(entry, subject.layers - 1, wanted, len(tokens))) for number, entry in whole_rows]
        base = base_runs(subject, tokens.ids + forced, len(tokens), [run[0].run for run in runs], wanted)
        part = replace(readout, parts=tuple(part for part in readout.parts if part.ids[:-1] == forced))

        def add(logits: torch.Tensor, numbers: list[int], part: Readout = part, forced: Ids = forced) -> None:
            values[numbers] += combined(part, {forced: logits}).double().cpu()

        same = [i for i, (_, entry) in enumerate(rows) if not (entry.own or entry.later)]
        if same:
            add(base.logits[[rows[i][0] for i in same]], same)
        ends = LateOutputs(plain, add)  # logits of all sets are never held at once
        for numbers, vectors in _ends(plain, base, wanted, rows):
            ends.add(vectors, numbers)
        ends.finish()
        subject.count(forwards=len(rows))
    not_nan(values, readout)
    return values.numpy()


def _ends(
    subject: Subject, base: Base, wanted: list[int], rows: Sequence[tuple[int, Entry]]
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Give the numbers of some sets that change their run, and what the last block gives [sets, wanted, dimension]."""
    begun: dict[int, Start] = {}
    for layer in sorted({entry.layer for _, entry in rows}):
        check_cancelled()
        here = [i for i, (_, entry) in enumerate(rows) if entry.layer == layer and (entry.own or entry.later)]
        begun |= _begun(subject, base, layer, {i: rows[i] for i in here})
    numbers, done = list(begun), len(rows) - len(begun)
    for some, vectors in onward(subject, base, [begun[i] for i in numbers], wanted):
        yield [numbers[i] for i in some], vectors
        done += len(some)
        report(done, len(rows))


def _read_alone(entry: Entry, last: int, wanted: Sequence[int], prompt: int) -> Entry:
    """Return a set of edits behind the last attention for the positions that are read, or one where none is.

    There every position goes its own way, so no other reaches a result.
    """
    if entry.layer != last or not entry.own or entry.later or entry.alone or len(entry.at) < 2:
        return entry
    places = tuple(p for p in entry.at if p in wanted) or entry.at[:1]
    own = [at_some(edit, places, prompt) for edit in entry.own]
    if None in own:
        return entry
    kept = tuple(edit for edit in own if edit is not None and edit.where["position"] != ())
    return replace(entry, own=kept, at=places, start=places[0])


def _begun(subject: Subject, base: Base, layer: int, rows: Mapping[int, tuple[int, Entry]]) -> dict[int, Start]:
    """Return where the sets of one layer begin: behind its block, computed here, for those of few positions."""
    halves = has_halves(subject, base)
    begun: dict[int, Start] = {}
    for work, alone in ((at_one_place, True), (after_pattern, False)):
        some = {i: (run, e) for i, (run, e) in rows.items() if e.own and e.alone == alone and (alone or halves)}
        places = {i: e.at or tuple(range(len(base.ids))) for i, (_, e) in some.items()}
        alike = {i: (run, *map(id, e.own), places[i]) for i, (run, e) in some.items()}
        placed = {alike[i]: (run, e.own, places[i]) for i, (run, e) in some.items()}
        changed = dict(zip(placed, work(subject, base, layer, list(placed.values())), strict=True))
        for i, (run, entry) in some.items():
            begun[i] = Start(run, layer + 1, entry.start, places[i], changed[alike[i]], entry.later)
    for i, (run, entry) in rows.items():
        if i not in begun:
            begun[i] = Start(run, layer, entry.start, edits=(*entry.own, *entry.later))
    return begun
