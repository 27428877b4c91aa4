"""How alike attention heads are: by where they look, and by what they write."""

from __future__ import annotations

import numpy as np

LOG2 = float(np.log(2))


def pattern_similarity(patterns: np.ndarray) -> np.ndarray:
    """Return 1 - the Jensen-Shannon distance of every two heads, averaged over queries: [heads, heads].

    The distance is the square root of the divergence in bits, so it lies in [0, 1] and is a metric; 1 means equal
    patterns.

    Args:
        patterns: distributions over keys, [heads, queries, keys].
    """
    heads = len(patterns)
    own = _entropy(patterns)
    found = np.eye(heads)
    for head in range(heads - 1):
        mixed = _entropy((patterns[head] + patterns[head + 1 :]) / 2)
        divergence = (mixed - (own[head] + own[head + 1 :]) / 2) / LOG2
        found[head, head + 1 :] = found[head + 1 :, head] = 1 - np.sqrt(np.maximum(divergence, 0.0)).mean(-1)
    return found


def _entropy(shares: np.ndarray) -> np.ndarray:
    return -(shares * np.log(np.maximum(shares, 1e-300))).sum(-1)


def output_similarity(outputs: np.ndarray) -> np.ndarray:
    """Return the linear centred kernel alignment of every two heads' outputs: [heads, heads], in [0, 1].

    CKA(X, Y) = |X'Y|^2 / (|X'X| |Y'Y|) on centred outputs, which rotations and scales leave as it is (Kornblith et al.
    2019, arXiv:1905.00414); 0 where a head's output does not vary.

    Args:
        outputs: [heads, places, dimension].
    """
    centred = outputs - outputs.mean(1, keepdims=True)
    kernels = np.einsum("hpd,hqd->hpq", centred, centred).reshape(len(outputs), -1)
    size = np.linalg.norm(kernels, axis=1)
    scale = np.divide(1.0, size, out=np.zeros_like(size), where=size > 1e-12)
    found: np.ndarray = np.clip((kernels @ kernels.T) * scale[:, None] * scale[None], 0.0, 1.0)
    return found
