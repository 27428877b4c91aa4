"""Matrices of blocks multiplied through: from what each block mixes to what reaches the position that is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from pellucid.engine.question import per_unit, read_position

if TYPE_CHECKING:
    from pellucid.engine.question import Question


def rolled(matrices: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return the products M^1, M^2 M^1, ... of matrices [position, position] of blocks, bottom up.

    The rows of each matrix are scaled to sum 1 before; a row of zeros stays.
    """
    total: list[torch.Tensor] = []
    for matrix in matrices:
        size = matrix.sum(-1, keepdim=True)
        scaled = matrix / torch.where(size == 0, 1.0, size)
        total.append(scaled @ total[-1] if total else scaled)
    return total


def read_row(question: Question, matrix: torch.Tensor) -> np.ndarray:
    """Return the row of the position that is read, by unit: [units, 1].

    An encoder that feeds a decoder, or a model without a head, is read at all positions: the mean of the rows.
    """
    subject = question.subject
    everywhere = subject.kind == "encoder-decoder" or subject.head == "none"
    row = matrix.mean(0) if everywhere else matrix[read_position(question)]
    return per_unit(row.double().cpu().numpy()[:, None], question.units)
