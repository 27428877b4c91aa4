"""How far a changed run's output distribution lies from that of the unchanged one, as something to read."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch

from pellucid.core.errors import CapabilityError
from pellucid.engine.question import Question
from pellucid.engine.reading import read
from pellucid.engine.readout import Readout
from pellucid.engine.targets import one_token
from pellucid.engine.variants import whole

Distance = Literal["total_variation", "jensen_shannon"]


def total_variation(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Return sum |p - q| / 2 over the last axis: 0 for equal distributions, 1 where they share nothing."""
    return 0.5 * (p - q).abs().sum(-1)


def jensen_shannon(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Return the Jensen-Shannon divergence over the last axis, in nats: from 0 to log 2. Differentiable."""
    middle = 0.5 * (p + q)
    return (entropy(middle) - 0.5 * entropy(p) - 0.5 * entropy(q)).clamp(min=0, max=math.log(2))


def entropy(p: torch.Tensor) -> torch.Tensor:
    """Return -sum p log p over the last axis, in nats."""
    return -torch.xlogy(p, p.clamp(min=torch.finfo(p.dtype).tiny)).sum(-1)


def distance_readout(question: Question, distance: Distance) -> Readout:
    """Return the readout that gives a run's distance from the question's own output distribution, by one forward pass.

    The distribution is over the next token, the mask or the classes.

    Raises:
        CapabilityError: a model without an output distribution.
        TargetError: a target of several tokens.
    """
    readout = one_token(question.readout)
    own = _own(question)
    measure: dict[Distance, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
        "total_variation": total_variation, "jensen_shannon": jensen_shannon,
    }  # fmt: skip

    def from_own(logits: torch.Tensor) -> torch.Tensor:
        wide = logits if logits.dtype == torch.float64 else logits.float()
        return measure[distance](wide.softmax(-1), own.to(wide))

    return replace(readout, function=from_own, each=False)


def _own(question: Question) -> torch.Tensor:
    subject, logits = question.subject, list[torch.Tensor]()

    def keep(found: torch.Tensor) -> torch.Tensor:
        logits.append(found.detach())
        return found[:, 0]

    if question.readout.kind == "vector" or getattr(subject, "head", "") == "none":
        raise CapabilityError(
            f"{subject.name} has no output head, so its output is no distribution; use a model with a head."
        )
    with torch.no_grad():
        read(subject, question.tokens, replace(question.readout, function=keep, each=False), [whole(question.tokens)])
    if logits[0].shape[-1] < 2:
        raise CapabilityError(
            f"{subject.name} gives a single output, which is no distribution; use a model with two or more."
        )
    return logits[0][0].double().softmax(-1)
