"""Queries and keys as they are multiplied, and one space for both in which distance tells attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pellucid.core.errors import SiteError
from pellucid.core.tokens import Tokens
from pellucid.engine.capture import capture
from pellucid.engine.head_patterns import prefix_of

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

SCALES = np.logspace(-1, 1, 81)


class QueriesKeys(NamedTuple):
    """One layer's queries and keys [position, head, dimension], and the model's attention scores [head, query, key].

    Keys are repeated for every query head that shares them; scores hold the mask and whatever the model adds.
    """

    queries: np.ndarray
    keys: np.ndarray
    scores: np.ndarray


def queries_and_keys(subject: Subject, tokens: Tokens, layer: int) -> QueriesKeys:
    """Return queries and keys after norms and rotary positions, as the model multiplies them.

    Raises:
        SiteError: a model that computes attention outside transformers' attention interface.
    """
    site = f"{prefix_of(subject)}blocks.{layer}.attn."
    try:
        found = capture(subject, tokens, [site + part for part in ("q_rot", "k_rot", "scores")])
    except SiteError as error:
        raise SiteError(
            f"{subject.need_layout().architecture} computes attention by itself, so its queries and keys cannot be "
            "read as they are multiplied; use attention_views."
        ) from error
    queries, keys, scores = (found[site + part].double().cpu().numpy() for part in ("q_rot", "k_rot", "scores"))
    return QueriesKeys(queries, keys.repeat(queries.shape[1] // keys.shape[1], 1), scores)


def shared_space(queries: np.ndarray, keys: np.ndarray, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Move and scale queries and keys so that near means attended to, and attention stays as it is.

    q -> c q and k -> (k - mean k) / c + c mean q: a shift of all keys adds the same to all scores of a query, which the
    softmax does not see, and c cancels. Of a grid of c, the one is taken for which distance and q . k correlate most
    negatively over the pairs (Yeh et al. 2023, arXiv:2305.03210).

    Args:
        queries: [queries, dimension].
        keys: [keys, dimension].
        pairs: (query, key) indices that may attend, [pairs, 2].
    """
    centred, middle = keys - keys.mean(0), queries.mean(0)
    start = (np.linalg.norm(centred) / max(float(np.linalg.norm(queries)), 1e-12)) ** 0.5 or 1.0
    moved = [(start * s * queries, centred / (start * s) + start * s * middle) for s in SCALES]
    fit = [tracking(q, k, (queries[pairs[:, 0]] * centred[pairs[:, 1]]).sum(1), pairs) for q, k in moved]
    return moved[int(np.argmin(fit))]


def tracking(queries: np.ndarray, keys: np.ndarray, products: np.ndarray, pairs: np.ndarray) -> float:
    """Return the correlation of distances with products over pairs: -1 where near always means a large product."""
    away = np.linalg.norm(queries[pairs[:, 0]] - keys[pairs[:, 1]], axis=1)
    if np.ptp(away) == 0 or np.ptp(products) == 0:
        return 0.0
    return float(np.corrcoef(away, products)[0, 1])
