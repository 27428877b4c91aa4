"""Composition scores: how much of what a head writes is read by the queries, keys or values of a later head."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from pellucid.core.metadata import method
from pellucid.core.params import Count
from pellucid.core.results import Evidence, Scores
from pellucid.engine.head_weights import HeadWeights, head_weights
from pellucid.models.subject import Subject


@method(
    rows=("TXB-2",),
    paper="Elhage et al. 2021, transformer-circuits.pub/2021/framework",
    takes="models",
    produces="scores",
    axes=("other_head", "head"),
    needs=("weights",),
    cost="0*F",
)
def composition_scores(subject: Subject, *, reads: Literal["q", "k", "v"] = "k", seed: Count = 0) -> Scores:
    """Score each pair of heads by how well what the first writes fits what the second reads.

    With W_OV = W_V W_O of the first head and W_QK = W_Q W_K^T (for "v" W_OV) of the second, acting on rows,
    C = |W_OV W_QK| / (|W_OV| |W_QK|) for queries, with W_QK^T for keys and the second's W_OV for values; Frobenius
    norms. 0 where the second head does not come later. Exact, from matrices as wide as a head: no product of stream
    width is made (Elhage et al. 2021).

    Args:
        subject: the model, from `pellucid.load`; pre-norm, one stack.
        reads: which input of the second head: "q", "k" or "v".
        seed: of the random heads that scores are compared with.

    Returns:
        Scores [other_head, head]: the head that writes, the head that reads, named layer.head. The score of random
        heads of the same shape is in the evidence.

    Raises:
        CapabilityError: a model without one pre-norm stack.
    """
    layers = [head_weights(subject, layer) for layer in range(subject.layers)]
    heads = [_Head(weights, i) for weights in layers for i in range(len(weights.query))]
    numbers = [layer for layer, weights in enumerate(layers) for _ in range(len(weights.query))]
    values = np.zeros((len(heads), len(heads)))
    for i, first in enumerate(heads):
        for j, second in enumerate(heads):
            if numbers[i] < numbers[j]:
                values[i, j] = _composed(first, second, reads)
    names = tuple(f"{layer}.{i}" for layer, weights in enumerate(layers) for i in range(len(weights.query)))
    result = Scores(
        title=f"{reads.upper()}-composition of heads",
        values=values,
        axes=("other_head", "head"),
        labels={"other_head": names, "head": names},
        unit="share of the product of norms",
        sign="larger means that the second head reads more of what the first writes",
        target="weights",
    )
    return result.with_evidence(_random(layers[0], reads, seed, values[values > 0]))


class _Head:
    """A head as thin factors: of each matrix [dimension, width] the square factor R of QR, which has its norms."""

    def __init__(self, weights: HeadWeights, head: int) -> None:
        self.query, self.key = weights.query[head].double(), weights.key[head].double()
        self.value, self.output = weights.value[head].double(), weights.output[head].double()
        self.r = {
            name: torch.linalg.qr(matrix, mode="r")[1]
            for name, matrix in (("q", self.query), ("k", self.key), ("v", self.value), ("o", self.output.T))
        }


def _composed(first: _Head, second: _Head, reads: str) -> float:
    """Return |W_V W_O A B^T| / (|W_V W_O| |A B^T|), where the second head reads with A and B^T follows."""
    a, b = {"q": (second.query, "k"), "k": (second.key, "q"), "v": (second.value, "o")}[reads]
    together = first.r["v"] @ (first.output @ a) @ second.r[b].T
    sizes = (first.r["v"] @ first.r["o"].T).norm() * (second.r[reads] @ second.r[b].T).norm()
    return float(together.norm() / sizes.clamp(min=1e-300))


def _random(like: HeadWeights, reads: str, seed: int, found: np.ndarray) -> Evidence:
    """Return what heads of Gaussian weights score."""
    generator = torch.Generator().manual_seed(seed)

    def drawn() -> _Head:
        size = like.query[:1].shape
        parts = [torch.randn(size, generator=generator, dtype=torch.float64) for _ in range(3)]
        width = like.output[:1].shape
        return _Head(HeadWeights(*parts, torch.randn(width, generator=generator, dtype=torch.float64)), 0)

    scores = [_composed(drawn(), drawn(), reads) for _ in range(8)]
    mean = float(np.mean(scores))
    above = float((found > max(scores)).mean()) if len(found) else 0.0
    return Evidence(
        "random heads",
        f"Heads of random weights score {mean:.3g} on average; {100 * above:.0f} % of the pairs score above the "
        "largest of them.",
        {"random": mean, "largest": float(max(scores)), "above": above},
    )
