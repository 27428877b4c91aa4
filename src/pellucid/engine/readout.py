"""What is read from the model's output: a target resolved against one prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from pellucid.core.errors import PellucidError, TargetError

NUMBERS_AT_ONCE = 1 << 19


@dataclass(frozen=True)
class Part:
    """One scored continuation: its token ids (or one class index), its sign in the sum."""

    ids: tuple[int, ...]
    sign: float = 1.0


@dataclass(frozen=True, eq=False)
class Readout:
    """How scores come from logits.

    `kind` says where logits are read: "next" (after the prompt, teacher-forced along `parts`), "mask" (at the mask
    token), "pooled" (the class logits) or "vector" (hidden states of a model without a head). `labels` names the
    targets, one per score.
    """

    kind: Literal["next", "mask", "pooled", "vector"]
    parts: tuple[Part, ...]
    measure: str
    each: bool
    labels: tuple[str, ...]
    description: str
    function: Callable[[torch.Tensor], torch.Tensor] | None = None
    reference: torch.Tensor | None = field(default=None, repr=False)

    @property
    def size(self) -> int:
        """Return the number of scores per input: one per target token with `each`, else 1."""
        return len(self.parts[0].ids) if self.each else 1

    @property
    def forced(self) -> list[tuple[int, ...]]:
        """Return the different continuations to be fed, without their last token, each once."""
        return list(dict.fromkeys(part.ids[:-1] for part in self.parts))

    @property
    def unit(self) -> str:
        """Return the unit of the scores."""
        if self.function is not None:
            return getattr(self.function, "__name__", "function")
        if self.reference is not None:
            return "cosine similarity"
        return f"{self.measure} difference" if len(self.parts) > 1 else self.measure


def measured(logits: torch.Tensor, ids: Sequence[int], measure: str) -> torch.Tensor:
    """Return the measure of each target: logits [rows, targets, vocabulary] -> [rows, targets].

    `logit`, `log_prob` and `prob` are of the token ids; `entropy` (nats) is of the whole distribution. Exact.
    """
    if not 0 <= min(ids) <= max(ids) < logits.shape[-1]:
        raise TargetError(
            f"The target {max(ids)} is out of range; the model gives outputs 0 to {logits.shape[-1] - 1}."
        )
    index = torch.tensor(list(ids), device=logits.device)
    if measure == "entropy":
        log_probs = logits.log_softmax(-1)
        return -(log_probs.exp() * log_probs).sum(-1)
    places = index.expand(len(logits), -1)
    if measure == "logit" or measure == "output":
        return logits.gather(-1, places[..., None]).squeeze(-1)
    if measure == "log_prob":
        return log_probabilities(logits, places)
    if measure == "prob":
        return log_probabilities(logits, places).exp()
    raise TargetError(f"The measure {measure!r} is unknown; use 'logit', 'log_prob', 'prob' or 'entropy'.")


def log_probabilities(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Return the log-probability of one token in each row: logits [..., vocabulary], ids [...] -> [...]. Exact.

    Without a graph, some rows at a time: what is made of them stays in a processor's cache.
    """
    if logits.requires_grad:
        return logits.gather(-1, ids[..., None]).squeeze(-1) - logits.logsumexp(-1)
    rows, chosen = logits.reshape(-1, logits.shape[-1]), ids.reshape(-1, 1)
    most = max(1, NUMBERS_AT_ONCE // max(1, rows.shape[-1]))
    parts = zip(rows.split(most), chosen.split(most), strict=True)
    return torch.cat([some.log_softmax(-1).gather(-1, own) for some, own in parts]).view(ids.shape)


def combined(readout: Readout, pieces: dict[tuple[int, ...], torch.Tensor]) -> torch.Tensor:
    """Return the scores [rows, size] from the logits [rows, targets, vocabulary] of each forced continuation."""
    if readout.function is not None:
        logits = next(iter(pieces.values()))
        return _called(readout, logits[:, 0] if readout.kind != "vector" else logits)
    total: torch.Tensor | None = None
    for part in readout.parts:
        value = measured(pieces[part.ids[:-1]], part.ids, readout.measure) * part.sign
        value = value if readout.each else value.sum(-1, keepdim=True)
        total = value if total is None else total + value
    assert total is not None
    return total


def _called(readout: Readout, logits: torch.Tensor) -> torch.Tensor:
    """Return what a target function gives for [rows, outputs], as [rows, 1]."""
    assert readout.function is not None
    try:
        value: Any = readout.function(logits)
    except (PellucidError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise TargetError(
            f"The target {readout.description} raised {type(error).__name__} ({error}) on logits of shape "
            f"{tuple(logits.shape)}; correct the function."
        ) from error
    found = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
    if found not in ((len(logits),), (len(logits), 1)):
        raise TargetError(
            f"The target {readout.description} returned {found} for {len(logits)} rows; return one number per row, "
            "as a tensor."
        )
    return value.reshape(-1, 1)
