"""Embeddings with Gaussian noise on the units' tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from pellucid.engine.question import Question


def noisy_embeddings(question: Question, samples: int, noise: float, seed: int) -> torch.Tensor:
    """Return noisy copies of the prompt's embeddings: [samples, positions, dimension].

    eps ~ N(0, (noise * range)^2) on the units' tokens, where the range is that from the smallest to the largest entry
    of the embeddings; every other token stays. The same seed gives the same noise on every device.
    """
    embeddings = question.embeddings()
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn((samples, *embeddings.shape), generator=generator).to(embeddings)
    still = torch.ones(len(embeddings), dtype=torch.bool)
    still[list(question.units.positions())] = False
    draws[:, still] = 0
    return embeddings + noise * (embeddings.max() - embeddings.min()) * draws
