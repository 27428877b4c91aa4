"""The query-key map: the queries and keys of one head over many inputs, as points of one plane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from pellucid.core.errors import InputError
from pellucid.core.metadata import method
from pellucid.core.params import Count, PositiveFloat
from pellucid.core.results import Evidence, Table
from pellucid.core.tokens import Tokens
from pellucid.engine.head_patterns import chosen_layers, one_of
from pellucid.engine.query_key_space import queries_and_keys, shared_space, tracking
from pellucid.models.subject import Subject


@method(
    rows=("ATT-3",),
    paper="arXiv:2305.03210",
    takes="corpus",
    produces="table",
    needs=("attention",),
    cost="prompts*F",
)
def query_key_map(
    subject: Subject, prompts: Sequence[Any], *, layer: int = -1, head: int = 0,
    reduction: Literal["pca", "tsne"] = "pca", perplexity: PositiveFloat = 30.0, seed: Count = 0,
) -> Table:  # fmt: skip
    """Place the queries and keys of one head in a plane where a query lies near the keys it attends to.

    Keys are moved onto the queries and both are scaled against each other, which leaves attention as it is but makes
    distance follow q . k; then PCA or t-SNE of queries and keys together. The map is an approximation: the evidence
    gives the correlation of distance with q . k before, in the full space and in the plane, -1 being perfect
    (Yeh et al. 2023, arXiv:2305.03210).

    Args:
        subject: the model, from `pellucid.load`; for encoder-decoders the encoder's self-attention is mapped.
        prompts: texts, chats or token ids.
        layer: the layer; negative ones from the last.
        head: the head.
        reduction: "pca" (linear, the same every time) or "tsne" (keeps neighbours).
        perplexity: neighbours that t-SNE looks at; lowered where there are few points.
        seed: of t-SNE.

    Returns:
        Table with a row per query and key: kind, prompt, position, token, x, y.

    Raises:
        InputError: fewer than two tokens, or a layer or head that the model lacks.
        SiteError: a model that computes attention outside transformers' attention interface.
    """
    number = chosen_layers(subject, layer)[0]
    encoded = [subject.encode(prompt) for prompt in prompts]
    total = sum(len(tokens) for tokens in encoded)
    if total < 2:
        raise InputError(f"The map was asked for {total} tokens; give prompts of at least 2 tokens together.")
    queries, keys, pairs, first = [], [], [], 0
    for tokens in encoded:
        found = queries_and_keys(subject, tokens, number)
        head = one_of(head, found.queries.shape[1], "head")
        queries.append(found.queries[:, head])
        keys.append(found.keys[:, head])
        # Masked scores are hugely negative, in whatever way the family writes them.
        pairs.append(np.argwhere(found.scores[head] > -1e6) + first)
        first += len(tokens)
    q, k, both = np.concatenate(queries), np.concatenate(keys), np.concatenate(pairs)
    moved = shared_space(q, k, both)
    plane = _plane(np.concatenate(moved), reduction, perplexity, seed)
    products = (q[both[:, 0]] * (k - k.mean(0))[both[:, 1]]).sum(1)
    fits = {
        "as_they_are": tracking(q, k, products, both),
        "rescaled": tracking(*moved, products, both),
        "plane": tracking(plane[:total], plane[total:], products, both),
    }
    table = Table(
        title=f"Queries and keys of head {number}.{head}",
        columns=("kind", "prompt", "position", "token", "x", "y"),
        rows=_rows(encoded, plane),
    )
    return table.with_evidence(_followed(fits))


def _plane(points: np.ndarray, reduction: str, perplexity: float, seed: int) -> np.ndarray:
    if reduction == "pca":
        found: np.ndarray = PCA(2, svd_solver="full").fit_transform(points)
        return found
    near = min(perplexity, max(1.0, (len(points) - 1) / 3))
    return np.asarray(TSNE(2, perplexity=near, init="pca", random_state=seed).fit_transform(points), dtype=np.float64)


def _rows(encoded: Sequence[Tokens], plane: np.ndarray) -> tuple[tuple[Any, ...], ...]:
    places = [
        (number, position, tokens.pieces[position] or f"⟨{tokens.ids[position]}⟩")
        for number, tokens in enumerate(encoded)
        for position in range(len(tokens))
    ]
    named = [(kind, *place) for kind in ("query", "key") for place in places]
    return tuple((*name, float(x), float(y)) for name, (x, y) in zip(named, plane, strict=True))


def _followed(fits: dict[str, float]) -> Evidence:
    return Evidence(
        "distance follows q . k",
        f"Distance and q . k correlate by {fits['as_they_are']:.2f} as they are, {fits['rescaled']:.2f} after moving "
        f"and rescaling, {fits['plane']:.2f} in the plane (-1 is perfect).",
        fits,
        ok=bool(fits["plane"] < -0.5),
    )
