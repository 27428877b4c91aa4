"""The model functions that a careful user gives to a library that perturbs: batched, and only what is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from bench.models import Sizes

CLASS = 1


def present(masks: np.ndarray, sizes: Sizes) -> torch.Tensor:
    """Return which tokens [rows, tokens] are there, from which units [rows, units] are; a question always is."""
    there = np.repeat(np.asarray(masks) > 0.5, [end - start for start, end in sizes.spans], axis=1)
    return torch.from_numpy(np.pad(there, ((0, 0), (0, sizes.question)), constant_values=True))


@torch.no_grad()
def log_probs(model: Any, rows: torch.Tensor, continuation: Sequence[int]) -> torch.Tensor:
    """Return log-probabilities [rows, continuation] of the tokens that follow each row."""
    wanted = torch.tensor(continuation, device=rows.device)
    ids = torch.cat([rows, wanted[:-1].expand(len(rows), -1)], dim=1)
    logits = model(input_ids=ids, logits_to_keep=len(wanted)).logits
    return logits.log_softmax(-1).gather(-1, wanted.expand(len(rows), -1)[..., None])[..., 0]


@torch.no_grad()
def class_logits(model: Any, ids: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Return the logit [rows] of a class for ids [rows, tokens] without those that are not kept; rows are padded."""
    lengths = kept.sum(1)
    rows = torch.zeros(len(kept), int(lengths.max()), dtype=torch.long, device=ids.device)
    seen = torch.arange(rows.shape[1], device=ids.device) < lengths[:, None]
    rows[seen] = ids.expand_as(kept)[kept]
    return model(input_ids=rows, attention_mask=seen.long()).logits[:, CLASS]
