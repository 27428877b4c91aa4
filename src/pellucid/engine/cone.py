"""Many edits of one run, each read at the target: the plain form of the causal cone, kept as the oracle of the fast one.

An edit at layer l and position p of a decoder changes nothing below layer l or left of p. Here every edit is a full forward; edits
are rows of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from pellucid.core.tokens import Tokens
from pellucid.engine.planning import in_batches
from pellucid.engine.reading import read
from pellucid.engine.readout import Readout
from pellucid.engine.variants import whole
from pellucid.models.edits import Edit

if TYPE_CHECKING:
    from pellucid.models.subject import Subject


def score_edits(subject: Subject, tokens: Tokens, readout: Readout, edits: Sequence[tuple[Edit, ...]]) -> np.ndarray:
    """Return the scores of the prompt under each set of edits: [sets, readout.size], float64. Exact."""

    def run(batch: list[tuple[Edit, ...]]) -> list[np.ndarray]:
        values, _ = read(subject, tokens, readout, [whole(tokens)] * len(batch), edits=batch)
        return list(values.detach().double().cpu().numpy())

    length = len(tokens) + max(len(forced) for forced in readout.forced)
    with torch.no_grad():
        answers = in_batches(edits, [length] * len(edits), run)
    return np.stack(answers) if answers else np.zeros((0, readout.size))
