"""Black boxes: a Python function `texts -> numbers` seen through the same handle as a model.

The pieces of a text are its words with the white space before them; a piece's id is its place in the subject's own
list,
so that perturbation methods work on ids here as everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pellucid.core.errors import InputError, ModelError
from pellucid.core.tokens import Tokens

MASK = "…"
_PIECE = re.compile(r"\s*\S+")


def encode(pieces: dict[str, int], prompt: Any) -> Tokens:
    """Split a text into words and give each an id in `pieces`, which grows."""
    if not isinstance(prompt, str):
        raise InputError(f"A black box explains text, but got {type(prompt).__name__}; pass a str.")
    found = list(_PIECE.finditer(prompt))
    if not found:
        raise InputError("The prompt is empty; pass a text with at least one word.")
    return Tokens(
        ids=tuple(pieces.setdefault(m.group(), len(pieces)) for m in found),
        pieces=tuple(m.group() for m in found),
        special=(False,) * len(found),
        text=prompt,
        offsets=tuple((m.end() - len(m.group().lstrip()), m.end()) for m in found),
        message=(0,) * len(found),
        roles=("",) * len(found),
    )


def mask_id(pieces: dict[str, int]) -> int:
    """Return the id of the piece that stands for removed text."""
    return pieces.setdefault(f" {MASK}", len(pieces))


def call(function: Callable[[list[str]], Any], pieces: dict[str, int], rows: Sequence[Sequence[int]]) -> np.ndarray:
    """Return what the function gives for each row: [rows, outputs]; a flat answer becomes one output per row."""
    texts = {index: piece for piece, index in pieces.items()}
    asked = ["".join(texts[i] for i in row) for row in rows]
    given = function(asked)
    try:
        values = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        raise ModelError(
            f"The black box returned something that is no array of numbers ({type(given).__name__}); return one "
            "number, or one row of numbers, per text."
        ) from None
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim != 2 or len(values) != len(asked):
        raise ModelError(
            f"The black box returned the shape {values.shape} for {len(asked)} texts; return one number, or one "
            "row of numbers, per text."
        )
    if not np.isfinite(values).all():
        raise ModelError("The black box returned a NaN or infinite value; return finite numbers.")
    return values
