"""ReAGent: random parts of the prompt are rewritten by a language model, and who was rewritten bears the change."""

from __future__ import annotations

import numpy as np

from pellucid.core.metadata import method
from pellucid.core.params import Fraction, Positive, PromptLike, TargetLike, Unit
from pellucid.core.results import Evidence, Scores
from pellucid.engine.coalitions import standard_error
from pellucid.engine.infilling import filler_for, proposals
from pellucid.engine.probability import probabilities
from pellucid.engine.question import Question, ask
from pellucid.engine.variants import Variant, whole
from pellucid.models.subject import Subject

LARGEST = 1 - 1e-6


@method(
    rows=("N-AT4",),
    paper="arXiv:2402.00794",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("logits",),
    cost="(steps+tokens+3)*F",
)
def reagent(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", filler: Subject | None = None, steps: Positive = 64, rewritten: Fraction = 0.3,
    kept: Fraction = 0.3, seed: int = 0,
) -> Scores:  # fmt: skip
    """Score each unit by the mean update of a recursion: rewritten units gain what the target loses, others lose it.

    In each step a random share `rewritten` of the units is replaced by words drawn from q(w | all other words) of the
    `filler`; with D = p(y | x) - p(y | rewritten), rewritten units get + logit((D + 1) / 2) and the others - that. R_i
    = the mean over steps, less what a unit without effect gets, the same for all; the softmax of `steps` times R is the
    paper's score. Positive raises the target. Approximation: it ranks units, and its size depends on the share. Every
    target token of a continuation is scored from the same passes. The evidence holds the paper's stopping test: what p
    is left when all but the `kept` share is rewritten. Tested with fillers whose distribution is known; no pretrained
    RoBERTa was at hand (Zhao and Shan 2024, arXiv:2402.00794).

    Args:
        subject: the model, from `pellucid.load`.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts. Its probability is taken, whatever its measure.
        contrast: the alternative, whose probability is subtracted.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        filler: a masked or causal language model with the same tokenizer; None means the subject itself. The paper's
            RoBERTa needs a subject with RoBERTa's tokenizer.
        steps: rewritings.
        rewritten: share of the units that a step rewrites, one unit at least.
        kept: share of the units that the stopping test keeps, one unit at least.
        seed: of the rewritings.

    Returns:
        Scores [unit], or [unit, target] for a target with `each`, with standard errors.

    Raises:
        CapabilityError: no language model to fill in.
        InputError: the filler's token ids differ.
        TargetError: a target without a probability.
    """
    question = ask(subject, prompt, target=target, contrast=contrast, unit=unit)
    count = len(question.units)
    rng = np.random.default_rng(seed)
    positions = question.units.positions()
    model = filler_for(question.subject, filler)
    words = dict(zip(positions, proposals(model, question.tokens, positions).numpy(), strict=True))
    size = min(max(1, round(rewritten * count)), max(1, count - 1))
    chosen = np.zeros((steps, count), dtype=bool)
    for row in chosen:
        row[rng.choice(count, size, replace=False)] = True
    found = probabilities(
        question, [whole(question.tokens), *(_rewritten(question, row, words, rng) for row in chosen)]
    )
    difference = found[0] - found[1] if len(found) > 1 else found[0]
    lost = np.clip(difference[:1] - difference[1:], -LARGEST, LARGEST)
    update = np.log1p(lost) - np.log1p(-lost)
    updates = (np.where(chosen[:, :, None], 1.0, -1.0) - (2 * size / count - 1)) * update[:, None]
    values = updates.mean(0)
    result = question.answer(values, "ReAGent", std_error=standard_error(updates), unit="mean log-odds of the change")
    return result.with_evidence(_stopping(question, values, words, kept, float(found[0, 0].mean()), rng))


def _rewritten(
    question: Question, which: np.ndarray, words: dict[int, np.ndarray], rng: np.random.Generator
) -> Variant:
    """Return the prompt with every token of the chosen units drawn anew."""
    ids = list(question.tokens.ids)
    for place in np.flatnonzero(which):
        for position in range(*question.units.spans[place]):
            share = words[position] / words[position].sum()
            ids[position] = int(rng.choice(len(share), p=share))
    return Variant(tuple(ids), tuple(range(len(ids))))


def _stopping(
    question: Question, values: np.ndarray, words: dict[int, np.ndarray], kept: float, whole_p: float,
    rng: np.random.Generator,
) -> Evidence:  # fmt: skip
    """Return what is left of the target's probability when only the highest units are kept."""
    count = len(values)
    staying = max(1, round(kept * count))
    which = np.ones(count, dtype=bool)
    which[np.argsort(-values.sum(1), kind="stable")[:staying]] = False
    left = float(probabilities(question, [_rewritten(question, which, words, rng)])[0].mean())
    return Evidence(
        "kept units",
        f"With the {staying} highest of {count} units kept and the rest rewritten, the target's probability goes from "
        f"{whole_p:.3g} to {left:.3g}.",
        {"before": whole_p, "after": left, "kept": float(staying)},
    )
