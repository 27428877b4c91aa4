"""Scoring variants of an input: plain, in padded batches, each different variant once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from pellucid.core.tokens import Tokens
from pellucid.engine.planning import in_batches
from pellucid.engine.reading import read
from pellucid.engine.readout import Readout
from pellucid.engine.variants import Variant

if TYPE_CHECKING:
    from pellucid.models.subject import Subject


def score(subject: Subject, tokens: Tokens, readout: Readout, variants: Sequence[Variant]) -> np.ndarray:
    """Return the score of every variant: [variants, readout.size], float64; equal variants are run once.

    Exact: equal to running each variant alone, up to rounding.
    """
    different = list(dict.fromkeys(variants))

    def run(batch: list[Variant]) -> list[np.ndarray]:
        values, _ = read(subject, tokens, readout, batch)
        return list(values.detach().double().cpu().numpy())

    with torch.no_grad():
        answers = in_batches(different, [len(v.ids) for v in different], run)
    by_variant = dict(zip(different, answers, strict=True))
    return np.stack([by_variant[v] for v in variants]) if variants else np.zeros((0, readout.size))
