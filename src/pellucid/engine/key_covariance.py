"""Second moments of the keys of feed-forward layers, C = E[k k^T], for all layers from one pass over text.

The pass stops at the deepest layer asked for. The estimate is shrunk toward a multiple of the identity by the amount of
Ledoit and Wolf (2004), with the mean known to be zero because C is not centred; `error` says how far the two halves of
the text are apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from pellucid.core.errors import InputError
from pellucid.core.results import Evidence
from pellucid.engine.down_projection import DownProjection
from pellucid.engine.own_text import own_texts
from pellucid.engine.planning import in_batches
from pellucid.models.batch import Row
from pellucid.models.forward import forward
from pellucid.models.kernels import session

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

PROBES = 32  # random vectors that estimate how far the halves are apart
STRIPS = 8  # of rows of C; of each, only what lies right of the diagonal's block is multiplied
KEPT = "key covariance"


@dataclass(frozen=True, eq=False)
class Moments:
    """The second moments of one layer's keys: C [neuron, neuron] in float64, not shrunk, over `count` tokens.

    `shrinkage` is the share of the identity that Ledoit and Wolf give it. `error` estimates |estimate - C| / |C| from
    the two halves of the text.
    """

    matrix: torch.Tensor
    count: int
    shrinkage: float
    error: float

    def shrunk(self) -> torch.Tensor:
        """Return (1 - s) C + s tr(C)/d I, which is of full rank."""
        size = len(self.matrix)
        mean = self.matrix.diagonal().mean()
        return (1 - self.shrinkage) * self.matrix + self.shrinkage * mean * torch.eye(size).to(self.matrix)


def key_covariance(
    subject: Subject, layers: Sequence[DownProjection], texts: Sequence[Any] | None = None, seed: int = 0
) -> list[Moments]:
    """Return the second moments of the keys of some layers, from one streamed pass over texts.

    Products are float32 (float64 in a float64 model) within a batch and summed in float64. What was measured is kept
    with the subject, by the hash of the weights and of the texts, so the same layers cost nothing a second time.

    Args:
        subject: the model.
        layers: from `engine.down_projection.down_projections`.
        texts: prompts of any kind; every token but the first of each counts. None means text that the model writes
            itself: 16 tokens for each neuron, in texts of 64.
        seed: of the model's own text and of the error's random vectors.

    Raises:
        InputError: texts without a second token.
    """
    rows = _rows(subject, layers, texts, seed)
    key = (subject.weights_hash(), hashlib.sha256(repr((rows, seed)).encode()).hexdigest())
    kept: dict[Any, Moments] = subject.state.cache.setdefault(KEPT, {})
    lacking = [layer for layer in layers if (*key, layer.name) not in kept]
    if lacking:
        sums = [_Sums(layer, seed) for layer in lacking]
        with session(subject, sum(map(len, rows))):
            _stream(subject, lacking, rows, sums)
        kept.update({(*key, layer.name): one.moments() for layer, one in zip(lacking, sums, strict=True)})
    return [kept[(*key, layer.name)] for layer in layers]


def _rows(
    subject: Subject, layers: Sequence[DownProjection], texts: Sequence[Any] | None, seed: int
) -> list[tuple[int, ...]]:
    if texts is None:
        width = max(layer.neurons for layer in layers)
        return _written(subject, -(-16 * width // 63), 64, seed)
    rows = [subject.encode(text).ids for text in texts]
    rows = [row for row in rows if len(row) > 1]
    if not rows:
        raise InputError("The key covariance was asked over texts without a second token; give some real text.")
    return rows


def _written(subject: Subject, count: int, length: int, seed: int) -> list[tuple[int, ...]]:
    key = ("own text", subject.weights_hash(), count, length, seed)
    if key not in subject.state.cache:
        subject.state.cache[key] = own_texts(subject, count, length, seed)
    found: list[tuple[int, ...]] = subject.state.cache[key]
    return found


@torch.no_grad()
def _stream(
    subject: Subject, layers: Sequence[DownProjection], rows: Sequence[tuple[int, ...]], sums: Sequence[_Sums]
) -> None:
    def run(batch: list[int]) -> list[None]:
        output = forward(subject, [Row(rows[i]) for i in batch], capture=[layer.key for layer in layers], stop=True)
        for layer, one in zip(layers, sums, strict=True):
            for half in (0, 1):
                own = [output.row(layer.key, n)[1:] for n, i in enumerate(batch) if i % 2 == half]
                if own:
                    one.add(torch.cat(own), half)
        return [None] * len(batch)

    in_batches(range(len(rows)), [len(row) for row in rows], run)


class _Sums:
    """Running sums of one layer: k k^T, |k|^4, and k k^T times random vectors for each half of the texts."""

    def __init__(self, layer: DownProjection, seed: int) -> None:
        size = layer.neurons
        device = layer.weight.device
        self.products = torch.zeros(size, size, dtype=torch.float64, device=device)
        generator = torch.Generator().manual_seed(seed)
        self.probes = torch.randn(size, PROBES, generator=generator, dtype=torch.float64).to(device)
        self.halves = [torch.zeros_like(self.probes) for _ in range(2)]
        self.counts = [0, 0]
        self.fourth = 0.0

    def add(self, keys: torch.Tensor, half: int) -> None:
        """Add keys [tokens, neuron]."""
        keys = keys if keys.dtype == torch.float64 else keys.float()
        step = -(-keys.shape[1] // STRIPS)
        for first in range(0, keys.shape[1], step):  # the product is symmetric, so that half of it is enough
            self.products[first : first + step, first:] += (keys[:, first : first + step].T @ keys[:, first:]).double()
        self.halves[half] += (keys.T @ (keys @ self.probes.to(keys))).double()
        self.fourth += float(keys.double().square().sum(-1).square().sum())
        self.counts[half] += len(keys)

    def moments(self) -> Moments:
        """Return the moments, their shrinkage and their error."""
        count, size = sum(self.counts), len(self.products)
        upper = self.products.triu() / count
        matrix = upper + upper.triu(1).T
        squared = float(matrix.square().sum())
        far = max(squared - float(matrix.diagonal().sum()) ** 2 / size, 1e-300)  # |C - tr(C)/d I|^2
        noise = max(self.fourth / count - squared, 0.0) / count
        error = float("nan")
        if all(self.counts):
            first, second = (total / number for total, number in zip(self.halves, self.counts, strict=True))
            apart = float((first - second).square().sum()) / PROBES  # E |A z|^2 = |A|^2
            error = 0.5 * (apart / max(squared, 1e-300)) ** 0.5
        return Moments(matrix, count, min(1.0, noise / far), error)


def evidence(layers: Iterable[DownProjection], moments: Iterable[Moments]) -> Evidence:
    """Return what the second moments rest on, and how sure they are."""
    pairs = [(layer.layer, one) for layer, one in zip(layers, moments, strict=True)]
    worst = max(one.error for _, one in pairs)
    values = {f"layer {number}: {name}": float(getattr(one, name)) for number, one in pairs for name in _SHOWN}
    return Evidence(
        name="key covariance",
        summary=f"Second moments of keys over {pairs[0][1].count} tokens, off by about {worst:.1%} of their size as "
        "judged by the two halves of the text.",
        values=values,
    )


_SHOWN = ("shrinkage", "error")
