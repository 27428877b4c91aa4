"""Input marginalisation: a word against everything that a language model could put in its place."""

from __future__ import annotations

import numpy as np

from pellucid.core.metadata import method
from pellucid.core.params import Positive, PromptLike, TargetLike, Unit
from pellucid.core.results import Evidence, Scores
from pellucid.engine.infilling import filler_for, proposals
from pellucid.engine.probability import probabilities
from pellucid.engine.question import Question, ask
from pellucid.engine.variants import Variant, whole
from pellucid.models.subject import Subject

SMALLEST = 1e-9


@method(
    rows=("FAP-5",),
    paper="arXiv:2010.13984",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("logits",),
    cost="(units*words_tried+tokens+3)*F",
)
def input_marginalisation(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", filler: Subject | None = None, words_tried: Positive = 32, seed: int = 0,
) -> Scores:  # fmt: skip
    """Score each unit by the weight of evidence: log-odds with the word minus those averaged over its replacements.

    a_i = log2 odds p(y | x) - log2 odds sum_w q(w | x without i) p(y | x with w at i), with odds p / (1 - p), or
    p(y) / p(c) against a contrast c; q is the `filler`'s. Positive raises the target; in bits. Nothing unnatural is
    put into the input. Exact for a one-token unit when `words_tried` covers the vocabulary; otherwise the sum runs over
    the likeliest words, renormalised, and units of several tokens are drawn from q, each token by itself
    (approximation). Probabilities are held 1e-9 away from 0 and 1. Tested with fillers whose distribution is known; no
    pretrained masked language model was at hand (Kim et al. 2020, arXiv:2010.13984).

    Args:
        subject: the model, from `pellucid.load`.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts. Its probability is taken, whatever its measure.
        contrast: the alternative to compare with, instead of everything else.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        filler: a masked or causal language model with the same tokenizer; None means the subject itself. A causal one
            sees only what stands to the left.
        words_tried: replacements per unit.
        seed: of the draws for units of several tokens.

    Returns:
        Scores [unit], or [unit, target] for a target with `each`, in bits; the evidence says which share of q was
        covered.

    Raises:
        CapabilityError: no language model to fill in.
        InputError: the filler's token ids differ.
        TargetError: a target without a probability.
    """
    question = ask(subject, prompt, target=target, contrast=contrast, unit=unit)
    model = filler_for(question.subject, filler)
    variants, weights, covered = _replacements(question, model, words_tried, np.random.default_rng(seed))
    found = probabilities(question, [whole(question.tokens), *(v for unit in variants for v in unit)])
    ends = np.cumsum([0, *(len(weight) for weight in weights)])
    means = np.stack(
        [
            np.einsum("w,pwt->pt", weight, found[:, 1 + start : 1 + end])
            for weight, start, end in zip(weights, ends, ends[1:], strict=False)
        ],
        axis=1,
    )
    result = question.answer(
        _log_odds(found[:, :1]) - _log_odds(means), "Input marginalisation", unit="bits of evidence"
    )
    return result.with_evidence(
        Evidence(
            "coverage",
            f"The replacements tried hold {100 * covered:.0f} % of the probability of {model.name} on average.",
            {"covered": covered},
            ok=covered > 0.5,
        )
    )


def _replacements(
    question: Question, filler: Subject, most: int, rng: np.random.Generator
) -> tuple[list[list[Variant]], list[np.ndarray], float]:
    """Return for each unit the inputs with its replacements, their weights, and the mean share of q that they hold."""
    tokens, spans = question.tokens, question.units.spans
    positions = [p for start, end in spans for p in range(start, end)]
    found = dict(zip(positions, proposals(filler, tokens, positions).numpy(), strict=True))
    variants, weights, covered = list[list[Variant]](), list[np.ndarray](), list[float]()
    for start, end in spans:
        if end - start == 1:
            likely = np.argsort(-found[start], kind="stable")[:most]
            words, mass = likely[:, None], found[start][likely]
            covered.append(float(mass.sum()))
        else:
            columns = [rng.choice(len(found[p]), size=most, p=found[p] / found[p].sum()) for p in range(start, end)]
            words, mass = np.stack(columns, 1), np.ones(most)
            covered.append(1.0)
        rows = [(*tokens.ids[:start], *(int(w) for w in row), *tokens.ids[end:]) for row in words]
        variants.append([Variant(ids, tuple(range(len(tokens)))) for ids in rows])
        weights.append(mass / mass.sum())
    return variants, weights, float(np.mean(covered))


def _log_odds(found: np.ndarray) -> np.ndarray:
    """Return the log-odds in bits of the target, [parts, units, targets] -> [units, targets]."""
    held = np.clip(found, SMALLEST, 1 - SMALLEST)
    odds: np.ndarray = np.log2(held[0]) - np.log2(held[1] if len(held) > 1 else 1 - held[0])
    return odds
