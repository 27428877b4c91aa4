"""The models of the truth tests, run as plainly as Hugging Face allows: no pellucid inside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from tests.tiny import TINY

IDS = [11, 42, 7, 23, 64, 5]
TARGET, CONTRAST = 17, 33


def tiny(name: str = "gpt2") -> Any:
    """Return a tiny random model in float64, so that identities hold to many digits."""
    return TINY[name]().double()


def logits(model: Any, ids: Sequence[int]) -> torch.Tensor:
    """Return the logits behind the last token."""
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=torch.tensor([list(ids)])).logits[0, -1]
    return found


def embeddings(model: Any, ids: Sequence[int]) -> torch.Tensor:
    """Return the token embeddings [positions, dimension]."""
    found: torch.Tensor = model.get_input_embeddings()(torch.tensor(list(ids))).detach()
    return found


def from_embeddings(model: Any, vectors: torch.Tensor) -> torch.Tensor:
    """Return the logits behind the last token for given token embeddings, with a graph."""
    found: torch.Tensor = model(inputs_embeds=vectors[None]).logits[0, -1]
    return found


def finite_differences(function: Callable[[torch.Tensor], float], at: torch.Tensor, step: float = 1e-5) -> torch.Tensor:
    """Return the gradient by central differences, entry by entry."""
    gradient = torch.zeros_like(at)
    for i in range(at.numel()):
        shift = torch.zeros_like(at).reshape(-1)
        shift[i] = step
        shift = shift.reshape(at.shape)
        gradient.reshape(-1)[i] = (function(at + shift) - function(at - shift)) / (2 * step)
    return gradient


def gradient(model: Any, ids: Sequence[int], target: int = TARGET) -> torch.Tensor:
    """Return the gradient of a logit by finite differences: [positions, dimension]."""

    def value(vectors: torch.Tensor) -> float:
        with torch.no_grad():
            return float(from_embeddings(model, vectors)[target])

    return finite_differences(value, embeddings(model, ids))
