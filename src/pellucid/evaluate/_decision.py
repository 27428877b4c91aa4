"""Questions asked anew in another measure: a probability, or a margin whose sign is the decision."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pellucid.engine.decision import decided
from pellucid.engine.question import Question
from pellucid.engine.readout import Part

if TYPE_CHECKING:
    import torch

    from pellucid.engine.game import Game


def in_measure(question: Question, measure: Literal["logit", "log_prob", "prob"]) -> Question:
    """Return the question in another measure; what a function, a black box or a similarity gives stays as it is."""
    readout = question.readout
    if readout.function is not None or readout.measure == "output" or readout.kind == "vector":
        return question
    return replace(question, readout=replace(readout, measure=measure))


def margin(game: Game) -> Game:
    """Return the game whose worth is above 0 exactly where the model decides for the target.

    The margin of two classes is the difference of their logits, which the store of scored variants keeps; that of more
    is taken against the best other one. A black box with one output decides by its sign.

    Raises:
        TargetError: a target of several tokens, or a similarity, which decides nothing.
    """
    question = game.question
    readout = question.readout
    classes = getattr(getattr(question.subject.model, "config", None), "num_labels", None)
    if readout.kind == "pooled" and readout.function is None and len(readout.parts) == 1 and classes == 2:
        other = Part((1 - readout.parts[0].ids[0],), -1.0)
        readout = replace(readout, parts=(*readout.parts, other), measure="logit", each=False)
        return replace(game, question=replace(question, readout=readout))
    asked = decided(question)
    against_all = asked.readout.function
    if question.subject.kind != "black-box" or readout.function is not None or against_all is None:
        return replace(game, question=asked)

    def output_or_margin(outputs: torch.Tensor) -> torch.Tensor:
        return outputs[:, 0] if outputs.shape[-1] == 1 else against_all(outputs)

    return replace(game, question=replace(asked, readout=replace(asked.readout, function=output_or_margin)))
