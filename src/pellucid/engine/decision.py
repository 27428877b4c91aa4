"""What a model decides, as one number whose sign tells whether it still decides so."""

from __future__ import annotations

from dataclasses import replace

import torch

from pellucid.core.errors import TargetError
from pellucid.engine.question import Question
from pellucid.engine.readout import Readout
from pellucid.engine.targets import one_token


def decided(question: Question) -> Question:
    """Return the question with the decision margin as its readout: above 0 exactly where the target wins.

    Without a contrast the margin is logit(target) - max over all other outputs; with one it is the logit difference;
    a target function is its own margin. Exact.

    Raises:
        TargetError: a target of several tokens, or a model that gives a similarity, which decides nothing.
    """
    readout = one_token(question.readout)
    if readout.kind == "vector" and readout.function is None:
        raise TargetError(
            f"{question.subject.name} has no output head, so it decides nothing; pass a function whose sign is the "
            "decision."
        )
    if readout.function is not None:
        return question
    if len(readout.parts) > 1:
        difference = Readout(
            readout.kind, readout.parts, _raw(readout), False, readout.labels, readout.description, readout.function
        )
        return replace(question, readout=difference)
    target = next(part.ids[0] for part in readout.parts)

    def decision_margin(logits: torch.Tensor) -> torch.Tensor:
        if not 0 <= target < logits.shape[-1] or logits.shape[-1] == 1:
            raise TargetError(
                f"The target {target} was asked for, but the model gives {logits.shape[-1]} outputs; a decision needs "
                "two or more, or a function whose sign is the decision."
            )
        others = logits.clone()
        others[:, target] = -torch.inf
        return logits[:, target] - others.max(-1).values

    description = f"{readout.description} rather than any other"
    margin = Readout(readout.kind, readout.parts, "logit", False, readout.labels, description, function=decision_margin)
    return replace(question, readout=margin)


def _raw(readout: Readout) -> str:
    return readout.measure if readout.measure != "entropy" else "logit"
