"""Inlier-weighted occlusion: removals count by how much the changed input still looks like natural text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pellucid.core.errors import CapabilityError, InputError, ModelError
from pellucid.core.metadata import method
from pellucid.core.params import Fraction, Positive, PromptLike, Replacement, TargetLike, Unit
from pellucid.core.results import Evidence, Scores
from pellucid.engine.likelihood import mean_log_likelihood
from pellucid.engine.question import Question, ask
from pellucid.engine.variants import default_replacement, remove
from pellucid.models.subject import Subject


@method(
    rows=("FAP-6",),
    paper="arXiv:2107.14000",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("scores",),
    cost="2*samples*(units+1)*F+F",
)
def inlier_weighted_occlusion(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", replacement: Replacement | None = None, inlier: Subject | Callable[..., Any] | None = None,
    samples: Positive = 16, keep: Fraction = 0.8, seed: int = 0,
) -> Scores:  # fmt: skip
    """Score each unit by the mean drop of the target when it is removed, weighted by how natural the rest still is.

    R_i = sum_k w(x_k) (s(x_k with i) - s(x_k)) / sum_k w(x_k), where x_k lacks i and each other unit with probability 1
    - `keep`, and w is the inlier score of x_k: exp of its mean log-likelihood per token under a language model, or what
    a function says. Positive raises the target. With keep=1 it is occlusion; with a constant w a sampled Banzhaf-like
    value. Sampled, with standard errors; the ratio is biased of order 1 / samples. Tested with judges whose verdict is
    known; no pretrained language model was at hand (Qiu et al. 2021, arXiv:2107.14000).

    Args:
        subject: the model, from `pellucid.load`, or a black box.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts.
        contrast: the alternative to compare with.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        replacement: "delete", "mask", "pad" or a token id; None takes "mask" where the model has a mask token, else
            "delete". "mean" and "zero" leave no text to judge.
        inlier: a causal language model with the same token ids, or a function from a list of token id tuples to
            numbers of at least 0; None means the subject itself.
        samples: sampled contexts.
        keep: probability that another unit stays.
        seed: of the contexts.

    Returns:
        Scores [unit], or [unit, target] for a target with `each`; the evidence gives the effective number of samples.

    Raises:
        CapabilityError: nothing to judge with.
        InputError: a replacement that is no text, or other token ids.
    """
    question = ask(subject, prompt, target=target, contrast=contrast, unit=unit)
    removal = default_replacement(question.subject) if replacement is None else replacement
    if removal in ("mean", "zero"):
        raise InputError(f"replacement={removal!r} leaves no text to judge; use 'delete', 'mask', 'pad' or a token id.")
    judge = _judge(question.subject, inlier)
    count = len(question.units)
    contexts = np.random.default_rng(seed).random((samples, 1, count)) < keep
    player = np.eye(count, dtype=bool)[None]
    masks = np.concatenate([contexts | player, contexts & ~player]).reshape(-1, count)
    scores = question.score(masks, removal).reshape(2, samples, count, -1)
    weights = _weights(question, judge, masks[samples * count :], removal).reshape(samples, count, 1)
    share = weights / weights.sum(0)
    gains = scores[0] - scores[1]
    values = (share * gains).sum(0)
    error = np.sqrt((share**2 * (gains - values) ** 2).sum(0) * samples / max(samples - 1, 1))
    effective = float((1 / (share**2).sum(0)).mean())
    result = question.answer(values, "Inlier-weighted occlusion", std_error=error if samples > 1 else None)
    return result.with_evidence(
        Evidence(
            "weights",
            f"The weights are worth {effective:.1f} of {samples} equal samples; few mean that most changed inputs look "
            "unnatural.",
            {"effective": effective, "samples": float(samples)},
            ok=effective > 0.3 * samples,
        )
    )


def _judge(subject: Subject, inlier: Subject | Callable[..., Any] | None) -> Subject | Callable[..., Any]:
    judge = subject if inlier is None else inlier
    if not isinstance(judge, Subject):
        return judge
    if (judge.kind, judge.head) != ("decoder", "causal-lm"):
        raise CapabilityError(
            f"{judge.name} ({judge.kind}, {judge.head}) cannot say how natural a text is; pass inlier= a "
            "causal language model with the same token ids, or a function."
        )
    if subject.kind == "black-box" or judge.vocabulary != subject.vocabulary:
        raise InputError(
            f"The token ids of {judge.name} are not those of {subject.name}; pass inlier= a language model with "
            "the same tokenizer, or a function."
        )
    return judge


def _weights(
    question: Question, judge: Subject | Callable[..., Any], masks: np.ndarray, removal: Replacement
) -> np.ndarray:
    """Return the inlier score of every changed input, up to a common factor: [inputs]."""
    variants = [remove(question.subject, question.tokens, question.units, mask, removal).ids for mask in masks]
    if isinstance(judge, Subject):
        likelihood = mean_log_likelihood(judge, variants)
        natural: np.ndarray = np.exp(likelihood - likelihood.max())
        return natural
    weights = np.asarray(judge(variants), dtype=np.float64).reshape(-1)
    if len(weights) != len(variants) or not np.isfinite(weights).all() or weights.min() < 0 or weights.max() == 0:
        raise ModelError(
            f"The inlier function gave {len(weights)} numbers for {len(variants)} inputs; return one finite "
            "number of at least 0 each, and not only zeros."
        )
    return np.maximum(weights, 1e-300)
