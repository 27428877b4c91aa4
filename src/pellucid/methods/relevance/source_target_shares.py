"""Source and target shares: how much of each generated token comes from the source, and how much from its prefix."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pellucid.core.errors import CapabilityError
from pellucid.core.metadata import method
from pellucid.core.params import PromptLike, TargetLike
from pellucid.core.results import Scores
from pellucid.engine.question import ask
from pellucid.engine.relevance import conservation, relevance
from pellucid.engine.rules import Rules
from pellucid.models.subject import Subject


@method(
    rows=("FAD-4",),
    paper="arXiv:2010.10907",
    takes="prompt",
    produces="scores",
    axes=("target", "part"),
    needs=("gradients",),
    cost="3*F+targets*B",
)
def source_target_shares(subject: Subject, prompt: PromptLike, *, target: TargetLike = None) -> Scores:
    """Split the relevance for each generated token between the source and the tokens generated before it.

    share = R(part) / (R(source) + R(prefix)), from the token's logit, by the rule that gives relevance only to
    contributions of an output's sign, so that no share is negative (mixtures of experts aside); the paper's rule, alpha
    1 and beta 0, with its mirror image for negative outputs. The shares of a token sum to 1; what constants absorb is
    in the evidence. Exact for what it states (Voita et al. 2021, arXiv:2010.10907).

    Args:
        subject: an encoder-decoder, from `pellucid.load`.
        prompt: the source: text or token ids.
        target: the translation: text, token ids, or `Target.generated(length)`; None means the first token that the
            model predicts, whose prefix is the start token alone.

    Returns:
        Scores [target, part], the parts being "source" and "prefix".

    Raises:
        CapabilityError: a model without an encoder and a decoder.
    """
    question = ask(subject, prompt, target=target)
    subject = question.subject
    if subject.kind != "encoder-decoder" or question.readout.kind != "next":
        raise CapabilityError(
            f"source_target_shares compares an encoder's tokens with a decoder's, but {subject.name} is a "
            f"{subject.kind} with head {subject.head}; use lrp."
        )
    ids = question.readout.parts[0].ids
    names = tuple(subject.tokenizer.decode([i]) if subject.tokenizer is not None else f"⟨{i}⟩" for i in ids)
    logits = replace(
        question.readout, parts=question.readout.parts[:1], measure="logit", each=True, labels=names, function=None
    )
    found = relevance(replace(question, readout=logits), Rules("supporters"))
    parts = np.stack([found.tokens.double().sum(1).cpu().numpy(), found.forced.double().sum(1).cpu().numpy()], 1)
    total = parts.sum(1, keepdims=True)
    return Scores(
        title="Source and target shares",
        values=np.divide(parts, total, out=np.zeros_like(parts), where=total != 0),
        axes=("target", "part"),
        labels={"target": names, "part": ("source", "prefix")},
        unit="share of relevance",
        sign="larger means that more of the token comes from this part",
        tokens=question.tokens,
        target=question.readout.description,
        evidence=(conservation(found, subject, conserving=True),),
    )
