"""Last-token log-odds of a set of tokens under edits, and how far an edited output lies from the unedited one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pellucid.core.errors import TargetError
from pellucid.engine.planning import in_batches
from pellucid.engine.variants import row, whole
from pellucid.models.edits import Edit
from pellucid.models.forward import forward

if TYPE_CHECKING:
    from pellucid.models.subject import Subject


def token_ids(subject: Subject, tokens: Sequence[int | str]) -> list[int]:
    """Return the ids of single tokens given as texts or ids; raise `TargetError` for a text of several tokens."""
    found = []
    for token in tokens:
        ids = [token] if isinstance(token, int) else subject.tokenizer(token, add_special_tokens=False)["input_ids"]
        if len(ids) != 1:
            raise TargetError(f"{token!r} is {len(ids)} tokens of {subject.name}; give texts of one token, or ids.")
        found.append(int(ids[0]))
    return found


@torch.no_grad()
def last_log_probs(subject: Subject, prompts: Sequence[Any], edits: tuple[Edit, ...] = ()) -> torch.Tensor:
    """Return the next token's log-probabilities behind each prompt under edits: [prompt, vocabulary], float64."""
    tokens = [subject.encode(prompt) for prompt in prompts]

    def run(batch: list[int]) -> list[torch.Tensor]:
        rows = [row(subject, tokens[i], whole(tokens[i]), (), edits) for i in batch]
        last = torch.tensor([[len(tokens[i]) - 1] for i in batch])
        return list(forward(subject, rows, wanted=last).logits[:, 0].double().log_softmax(-1).cpu())

    return torch.stack(in_batches(range(len(tokens)), [len(one) for one in tokens], run))


def log_odds(log_probs: torch.Tensor, ids: Sequence[int]) -> np.ndarray:
    """Return log p - log(1 - p) of a set of tokens, p their summed probability: [prompt]."""
    inside = log_probs[:, list(ids)].logsumexp(-1)
    rest = torch.ones(log_probs.shape[-1], dtype=torch.bool)
    rest[list(ids)] = False
    found: np.ndarray = (inside - log_probs[:, rest].logsumexp(-1)).numpy()
    return found


def divergence(own: torch.Tensor, other: torch.Tensor) -> float:
    """Return the mean KL(own || other) over prompts, in nats."""
    return float((own.exp() * (own - other)).sum(-1).mean().clamp(min=0))
