"""Soft erasure: every component of an embedding stays with a chance that the score of its unit sets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from pellucid.engine.question import Question
from pellucid.evaluate._chance import placed
from pellucid.evaluate._decision import in_measure


def keeping(values: np.ndarray, orders: Sequence[np.ndarray]) -> np.ndarray:
    """Return scores moved to 0 ... 1 (one half where all are equal) and dealt out along orders: [orders, units]."""
    dealt = placed(values, orders)
    low, width = float(dealt.min()), float(np.ptp(dealt))
    result: np.ndarray = (dealt - low) / width if width else np.full_like(dealt, 0.5)
    return result


def losses(question: Question, keep: np.ndarray, samples: int, seed: int) -> tuple[np.ndarray, float]:
    """Return what the target's probability loses when components stay with these chances, and when none stays.

    Args:
        question: the prompt and its units; other tokens stay whole.
        keep: chance to stay, [explanations, units].
        samples: masks per explanation, the same random numbers for all.
        seed: of the masks.

    Returns:
        max(0, p(x) - p(masked)), a mean over masks: [explanations], and the same where every unit is 0.
    """
    question = in_measure(question, "prob")
    embeddings = question.embeddings()
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand((samples, *embeddings.shape), generator=generator, dtype=torch.float64).to(embeddings.device)
    chance = torch.ones(len(keep), len(embeddings), dtype=torch.float64, device=embeddings.device)
    for unit, (start, end) in enumerate(question.units.spans):
        chance[:, start:end] = torch.as_tensor(keep[:, unit, None], device=embeddings.device)
    nothing = embeddings.clone()
    nothing[list(question.units.positions())] = 0
    masked = (draws[None] < chance[:, None, :, None]).to(embeddings.dtype) * embeddings
    values = question.values(torch.cat([embeddings[None], nothing[None], masked.flatten(0, 1)]))[:, 0]
    lost = np.maximum(0, values[0] - values[2:].reshape(len(keep), samples)).mean(1)
    return lost, float(max(0.0, values[0] - values[1]))
