"""Head roles: what each attention head habitually looks at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from pellucid.core.metadata import method
from pellucid.core.params import PromptLike, TargetLike
from pellucid.core.results import Evidence, Scores
from pellucid.core.tokens import Tokens
from pellucid.engine.head_patterns import patterns, role_places
from pellucid.engine.question import Question
from pellucid.engine.several import ask_several
from pellucid.engine.site_gradients import stacked
from pellucid.models.subject import Subject


@method(
    rows=("ATT-5",),
    paper="arXiv:1906.04341",
    takes="prompt",
    produces="scores",
    axes=("part", "layer", "head"),
    needs=("attention",),
    cost="3*F",
)
def head_roles(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, others: Sequence[Any] = (),
    quantity: Literal["roles", "entropy", "distance"] = "roles",
) -> Scores:  # fmt: skip
    """Measure how much of each head's attention goes where a known role would send it.

    Roles are the share of attention, averaged over the queries that have such a token, on: `self`; the `previous` and,
    where the model sees it, the `next` token; the `first` token; a `separator` (special tokens and punctuation behind
    the first token); a `duplicate` (the same token earlier); the token after such a duplicate (`induction`). `broad` is
    the entropy as a share of its maximum. Roles that no query could play are left out. Exact; what even attention would
    give is in the evidence (Clark et al. 2019, arXiv:1906.04341; Kovaleva et al. 2019, arXiv:1908.08593; Olsson et al.
    2022, arXiv:2209.11895). On repeated random tokens, induction heads stand out best.

    Args:
        subject: the model, from `pellucid.load`; for encoder-decoders the encoder's self-attention is measured.
        prompt: text, chat or token ids.
        target: only names the target in the result.
        others: further prompts to average over, each query alike.
        quantity: "roles"; or "entropy" (nats) or "distance" (tokens between query and key), averaged over queries.

    Returns:
        Scores [part, layer, head] of roles, else [layer, head].
    """
    asked = ask_several(subject, prompt, others, target=target)
    sums: dict[str, np.ndarray] = {}
    counts: dict[str, int] = {}
    even: dict[str, float] = {}
    for question in asked:
        visible = _visible(question)
        every = _roles(question, visible) if quantity == "roles" else {quantity: visible}
        found = patterns(question.subject, question.tokens)
        for name, places in every.items():
            rows = np.flatnonzero((visible.sum(1) > 1) if name == "broad" else places.any(1))
            if len(rows) == 0:
                continue
            mean = stacked([_measured(a[:, rows], name, places[rows], rows) for a in found.values()])
            uniform = visible[rows] / visible[rows].sum(1, keepdims=True)
            sums[name] = sums.get(name, 0.0) + mean
            counts[name] = counts.get(name, 0) + len(rows)
            even[name] = even.get(name, 0.0) + float(_measured(uniform[None], name, places[rows], rows)[0])
    values = np.stack([sums[name] / counts[name] for name in sums])
    units = {"roles": "share of attention", "entropy": "nats", "distance": "tokens"}
    result = Scores(
        title=f"Head {quantity} over {len(asked)} prompt{'s' if len(asked) > 1 else ''}",
        values=values if quantity == "roles" else values[0],
        axes=("part", "layer", "head") if quantity == "roles" else ("layer", "head"),
        labels={"part": tuple(sums)} if quantity == "roles" else {},
        unit=units[quantity],
        sign="larger means more of it",
        target=asked[0].readout.description,
    )
    return result.with_evidence(_chance({name: even[name] / counts[name] for name in sums}))


def _visible(question: Question) -> np.ndarray:
    """Return which keys each query may see: [query, key] booleans."""
    count = len(question.tokens)
    square = np.ones((count, count), dtype=bool)
    return np.tril(square) if question.subject.kind == "decoder" else square


def _roles(question: Question, visible: np.ndarray) -> dict[str, np.ndarray]:
    """Return for each role the keys that it sends a query to: [query, key] booleans."""
    count = len(question.tokens)
    offset = np.arange(count)[:, None] - np.arange(count)[None]
    known = role_places(question.tokens.ids)
    later = np.arange(count) > 0
    separators = np.array([_separates(question.tokens, i) for i in range(count)]) & later
    roles = {
        "broad": visible,
        "self": offset == 0,
        "previous": known["previous"],
        "next": offset == -1,
        "first": later[:, None] & ~later[None],
        "separator": np.broadcast_to(separators, offset.shape) & (offset != 0),
        "duplicate": known["duplicate"],
        "induction": known["induction"],
    }
    return {name: places & visible for name, places in roles.items()}


def _separates(tokens: Tokens, place: int) -> bool:
    piece = tokens.pieces[place].strip()
    return tokens.special[place] or (bool(piece) and not any(c.isalnum() or c == "⟨" for c in piece))


def _measured(pattern: np.ndarray, name: str, places: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the sum over queries of what is measured: [head] from a pattern [head, queries, key]."""
    if name in ("entropy", "broad"):
        entropy = -(pattern * np.log(np.maximum(pattern, 1e-300))).sum(-1)
        return (entropy / (np.log(places.sum(1)) if name == "broad" else 1.0)).sum(-1)
    if name == "distance":
        away = np.abs(rows[:, None] - np.arange(pattern.shape[-1])[None])
        return (pattern * away).sum((-2, -1))
    return (pattern * places).sum((-2, -1))


def _chance(even: dict[str, float]) -> Evidence:
    listed = ", ".join(f"{name} {value:.2g}" for name, value in even.items())
    return Evidence("even attention", f"A head that looks at every token alike would have: {listed}.", even)
