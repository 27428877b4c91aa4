"""DeepLIFT: the difference from a baseline's output, handed back step by step against the baseline's run."""

from __future__ import annotations

import numpy as np

from pellucid.core.errors import CapabilityError
from pellucid.core.metadata import method
from pellucid.core.params import Baseline, Normalise, PromptLike, Reduce, TargetLike, Unit
from pellucid.core.results import Scores
from pellucid.engine.differences import Differences
from pellucid.engine.question import ask, completeness, normalised, per_unit, reduced
from pellucid.engine.relevance import propagated, run_with_leaves
from pellucid.engine.variants import token_site
from pellucid.models.subject import Subject


@method(
    rows=("STD-deeplift",),
    paper="arXiv:1704.02685",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("gradients",),
    cost="6*F+targets*B",
)
def deeplift(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", baseline: Baseline = "zero", reduce: Reduce = "sum", normalise: Normalise = "none",
) -> Scores:  # fmt: skip
    """Share the change of the target between a baseline and the input by multipliers of differences.

    R_i = sum_d (e - e')_id * m_id, where m goes back by the rescale rule: an activation hands on the slope of its chord
    between baseline and input, each factor of a product its own difference times the mean of the other; softmax and
    norms are taken apart into such steps, and a norm's divisor counts its difference at the baseline. Positive raises
    the target. Exact: with reduce="sum" the scores sum to f(e) - f(e') without any quadrature, for every measure
    (Shrikumar et al. 2017, arXiv:1704.02685).

    Args:
        subject: the model, from `pellucid.load`; no mixture of experts, whose choice of experts is no step to share.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts.
        contrast: the alternative to compare with.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        baseline: "zero", "mean", "mask", "pad", a token id, or embeddings ([dimension] or [positions, dimension]).
        reduce: how the hidden dimension becomes one number.
        normalise: scale of the scores.

    Returns:
        Scores [unit], or [unit, target] for a target with `each`, with the completeness residual as evidence.

    Raises:
        CapabilityError: a mixture of experts.
    """
    question = ask(subject, prompt, target=target, contrast=contrast, unit=unit)
    subject = question.subject
    if any("router" in stack.taps for stack in subject.need_layout().stacks.values()):
        raise CapabilityError(
            f"deeplift compares every step of two runs, but {subject.name} chooses other experts for each input; "
            "use integrated_gradients or lrp."
        )
    end = question.embeddings()
    start = question.baseline(baseline, end)
    differences = Differences()
    reference = run_with_leaves(question, differences.recording(subject), start=start).values.detach()
    found = propagated(question, differences.comparing(subject))
    multipliers = sum(gradient[:, : len(end)] for _, gradient in found.sites[token_site(subject)])
    by_position = np.ascontiguousarray(reduced(multipliers * (end - start), reduce).T.double().cpu().numpy())
    scores = per_unit(by_position, question.units)
    result = question.answer(normalised(scores, normalise), "DeepLIFT")
    if reduce != "sum" or normalise != "none":
        return result
    change = (found.values - reference).double().cpu().numpy()
    return result.with_evidence(completeness(scores, change, "the input and the baseline"))
