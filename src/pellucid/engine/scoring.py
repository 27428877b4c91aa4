"""Scoring variants of an input: each different variant once, what variants share once.

The plain form (padded batches) is the oracle; the trie shares prefixes and is used where the model itself has
confirmed that both agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from pellucid.core.errors import PellucidError
from pellucid.core.tokens import Tokens
from pellucid.engine import store, trie
from pellucid.engine.memory import ran_out
from pellucid.engine.planning import in_batches, room_for
from pellucid.engine.reading import not_nan, read
from pellucid.engine.readout import Part, Readout, combined, log_probabilities, measured
from pellucid.engine.variants import Variant
from pellucid.models.kernels import session
from pellucid.models.proofs import probe
from pellucid.models.tails import can_continue, within_window

if TYPE_CHECKING:
    from pellucid.models.subject import Subject


def score(subject: Subject, tokens: Tokens, readout: Readout, variants: Sequence[Variant]) -> np.ndarray:
    """Return the score of every variant: [variants, readout.size], float64; equal variants are run once.

    Variants whose scores are already known, from this call or an earlier one on the same model and prompt, are not run.
    Exact: equal to running each variant alone, up to rounding.
    """
    if not variants:
        return np.zeros((0, readout.size))
    different = list(dict.fromkeys(variants))

    def run(some: list[Variant]) -> np.ndarray:
        with session(subject, len(some) * max(len(variant.ids) for variant in some)):
            return _run(subject, tokens, readout, some)

    answers = store.answered(subject, tokens, readout, different, run)
    place = {variant: i for i, variant in enumerate(different)}
    return answers[[place[v] for v in variants]]


def _run(subject: Subject, tokens: Tokens, readout: Readout, different: list[Variant]) -> np.ndarray:
    longest = max(len(v.ids) for v in different) + max(len(forced) for forced in readout.forced)
    shared = (
        len(different) > 1
        and not any(v.hollow for v in different)
        and readout.kind == "next"
        and trusted(subject)
        and within_window(subject, longest)
    )
    if shared:
        try:
            return score_shared(subject, tokens, readout, different)
        except Exception as error:
            if not ran_out(error):
                raise
    return score_plain(subject, tokens, readout, different)  # keeps no keys and values, and halves its batches


def score_plain(subject: Subject, tokens: Tokens, readout: Readout, variants: Sequence[Variant]) -> np.ndarray:
    """Score variants as rows of padded batches: [variants, readout.size]."""

    def run(batch: list[Variant]) -> list[np.ndarray]:
        values, _ = read(subject, tokens, readout, batch)
        return list(values.detach().double().cpu().numpy())

    forced = max(len(ids) for ids in readout.forced)
    lengths = [len(v.ids) + (0 if subject.kind == "encoder-decoder" else forced) for v in variants]
    with torch.no_grad():
        return np.stack(in_batches(variants, lengths, run, fits=room_for(subject, lengths, forced + 1)))


def score_shared(subject: Subject, tokens: Tokens, readout: Readout, variants: Sequence[Variant]) -> np.ndarray:
    """Score variants through a trie of their tokens; equal to `score_plain` up to rounding."""
    pieces: dict[tuple[int, ...], torch.Tensor] = {}
    for forced in readout.forced:
        sequences = [v.ids + forced for v in variants]
        pieces[forced] = _values(subject, readout, forced, sequences)
        subject.count(forwards=len(sequences))
    total: torch.Tensor = torch.zeros(len(variants), readout.size, dtype=torch.float64)
    if readout.function is not None:
        total = pieces[()][:, 0]
    for part in readout.parts if readout.function is None else ():
        own = [p for p in readout.parts if p.ids[:-1] == part.ids[:-1]].index(part)
        value = pieces[part.ids[:-1]][:, own] * part.sign
        total = total + (value if readout.each else value.sum(-1, keepdim=True))
    not_nan(total, readout)
    return total.numpy()


def _values(
    subject: Subject, readout: Readout, forced: tuple[int, ...], sequences: list[tuple[int, ...]]
) -> torch.Tensor:
    """Return the measures [sequences, parts with this continuation, targets] (or a function's value)."""
    parts = (
        [part for part in readout.parts if part.ids[:-1] == forced] if readout.function is None else [readout.parts[0]]
    )
    values = torch.zeros(len(sequences), len(parts), len(forced) + 1, dtype=torch.float64)

    def take(logits: torch.Tensor, places: list[tuple[int, int]]) -> None:
        for chunk in range(0, len(places), 512):
            here, rows = places[chunk : chunk + 512], logits[chunk : chunk + 512]
            index, target = torch.tensor([i for i, _ in here]), torch.tensor([k for _, k in here])
            if readout.function is not None:
                values[index, 0, target] = combined(readout, {(): rows[:, None]}).double().cpu()[:, 0]
                continue
            for number, part in enumerate(parts):
                ids = torch.tensor(part.ids)[target]
                values[index, number, target] = _measured(rows, ids, readout.measure).double().cpu()

    trie.run(subject, trie.build(sequences, len(forced) + 1), take, len(sequences))
    return values


def _measured(rows: torch.Tensor, ids: torch.Tensor, measure: str) -> torch.Tensor:
    """Return the measure of a different token in each row of logits."""
    if measure == "entropy":
        return measured(rows[:, None], [0], measure)[:, 0]
    own = ids.to(rows.device)
    if measure in ("logit", "output"):
        return rows.gather(-1, own[:, None])[:, 0]
    found = log_probabilities(rows, own)
    return found if measure == "log_prob" else found.exp()


def trusted(subject: Subject) -> bool:
    """Return whether this model's shared scores were compared with its plain ones and agree."""
    if not can_continue(subject):
        return False
    key = ("shared prefixes", type(subject.model), subject.dtype)
    if key not in subject.state.cache:
        with subject.uncounted():
            subject.state.cache[key] = _agrees(subject)
    return bool(subject.state.cache[key])


def _agrees(subject: Subject) -> bool:
    ids = probe(subject, 40).ids
    if len(ids) < 40 or not within_window(subject, 41):
        return False
    tokens = Tokens(ids, ("",) * 40, (False,) * 40)
    readout = Readout("next", (Part(ids[:2]),), "logit", True, ("", ""), "probe")
    variants = [Variant(ids[:i] + ids[i + 1 :], tuple(j for j in range(40) if j != i)) for i in (0, 5, 30, 38)]
    try:
        plain, shared = (score_by(subject, tokens, readout, variants) for score_by in (score_plain, score_shared))
    except (PellucidError, RuntimeError, TypeError, ValueError, AttributeError, IndexError):
        return False
    bar = 2000 * torch.finfo(getattr(torch, subject.dtype)).eps * max(1.0, float(np.abs(plain).max()))
    if subject.dtype == "float64":
        bar = max(bar, 200 * torch.finfo(torch.float32).eps)  # rotations and norms that are float32 in every dtype
    return bool(np.abs(plain - shared).max() <= bar)
