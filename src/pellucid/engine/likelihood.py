"""How probable a text is to a language model: the yardstick of "in the training distribution"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from pellucid.engine.planning import in_batches
from pellucid.models.batch import Row
from pellucid.models.forward import forward

if TYPE_CHECKING:
    from pellucid.models.subject import Subject


def mean_log_likelihood(subject: Subject, sequences: Sequence[tuple[int, ...]]) -> np.ndarray:
    """Return the mean over tokens 2.. of log p(token | tokens before it), per sequence: [sequences], nats.

    A sequence of one token has nothing to predict and scores -log(vocabulary), as a guess would. Equal sequences are
    run once. `subject` is a causal decoder. Exact.
    """
    different = list(dict.fromkeys(sequences))

    def run(batch: list[tuple[int, ...]]) -> list[float]:
        log_probs = forward(subject, [Row(ids) for ids in batch]).logits.double().log_softmax(-1)
        found = []
        for i, ids in enumerate(batch):
            following = torch.tensor(ids[1:], device=log_probs.device, dtype=torch.long)
            taken = log_probs[i, : len(following)].gather(-1, following[:, None])
            found.append(float(taken.mean()) if len(following) else -float(np.log(subject.vocabulary)))
        return found

    with torch.no_grad():
        values = in_batches(different, [len(ids) for ids in different], run)
    by_ids = dict(zip(different, values, strict=True))
    return np.array([by_ids[ids] for ids in sequences])
