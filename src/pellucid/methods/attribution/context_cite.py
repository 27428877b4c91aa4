"""ContextCite: which sources in the context a response rests on, by a sparse linear model over removals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.stats import rankdata
from sklearn.linear_model import Lasso

from pellucid.core.metadata import method
from pellucid.core.params import Count, Positive, PositiveFloat, PromptLike, Replacement, TargetLike, Unit
from pellucid.core.results import Evidence, Scores
from pellucid.core.targets import Target
from pellucid.engine.coalitions import all_coalitions
from pellucid.engine.game import Game, play
from pellucid.models.subject import Subject

LARGEST_LOG_PROB = -1e-7
TOP = (1, 3, 5)


@method(
    rows=("N-AT2",),
    paper="arXiv:2409.00729",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("scores",),
    cost="(samples+held_out+length+6)*F",
)
def context_cite(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit | None = None, replacement: Replacement = "delete", length: Positive = 32, samples: Positive = 64,
    held_out: Count = 32, penalty: PositiveFloat = 0.01, relative: bool = True, seed: int = 0,
) -> Scores:  # fmt: skip
    """Score each source by its weight in a sparse linear model of how likely the response is.

    w minimises the mean over random subsets z of the sources (each kept with chance 1/2) of (y(z) / T - b - w z)^2 / 2
    + penalty |w|, on standardised z, and is multiplied by T, the number of tokens of the response; y is the logit of
    the response's probability, log p - log(1 - p). Positive supports the response. An approximation; the evidence says
    how well its order of unseen subsets agrees with the model's (LDS), and how far the log-probability falls without
    the best sources (Cohen-Wang et al. 2024, arXiv:2409.00729). A target that is no single probability (a contrast, a
    function, an output of a black box) is modelled as it is.

    Args:
        subject: the model, from `pellucid.load`, or a black box.
        prompt: text, chat or token ids.
        target: the response; None means the model's own, `length` tokens long, or its prediction.
        contrast: the alternative to compare with.
        unit: the sources: "sentence", "line", "message", "word", "token" or token ranges; None means sentences, and
            tokens where there is no text.
        replacement: what stands for an absent source; the paper deletes it.
        length: tokens of the model's own response.
        samples: random subsets that the model is fitted to (all, where they are no more).
        held_out: further subsets that it is tested on.
        penalty: weight of |w|.
        relative: take the penalty as a share of the smallest one that leaves no weight at all, so that it means the
            same for every outcome; False takes it as it stands, as the paper does.
        seed: of the subsets.

    Returns:
        Scores [unit], or [unit, target] for a target with `each`; with LDS and top-k drop as evidence.
    """
    asked = _response(subject, target, length)
    if unit is None:
        unit = "sentence" if subject.encode(prompt).text else "token"
    game = play(subject, prompt, asked, contrast, unit, replacement)
    readout, rng = game.question.readout, np.random.default_rng(seed)
    single = readout.measure == "log_prob" and len(readout.parts) == 1 and readout.function is None
    tokens = len(readout.parts[0].ids) if single and not readout.each else 1
    exact = 2.0**game.players <= samples
    masks = all_coalitions(game.players) if exact else rng.random((samples, game.players)) < 0.5
    fresh = np.zeros((0, game.players), dtype=bool) if exact else rng.random((held_out, game.players)) < 0.5
    raw = game.value(np.concatenate([masks, fresh]))
    outcome = _logit(raw) if single else raw
    scores, level = _sparse(masks, outcome[: len(masks)] / tokens, penalty, relative)
    scores, level = scores * tokens, level * tokens
    tested = masks if len(fresh) < 2 else fresh
    seen = outcome[-len(tested) :]
    result = game.question.answer(
        scores, "ContextCite", unit="logit of probability" if single else readout.unit,
        sign="positive supports the response, negative speaks against it",
    )  # fmt: skip
    return result.with_evidence(_lds(seen, tested @ scores + level, len(fresh)), _drop(game, scores))


def _response(subject: Subject, target: TargetLike, length: int) -> Target:
    """Return the target as a probability where it is one: the model's own response, or what was given."""
    if target is None and subject.head == "causal-lm":
        return Target.generated(length, each=False, measure="log_prob")
    asked = target if isinstance(target, Target) else Target(target)
    if asked.measure != "auto" or subject.kind == "black-box" or subject.head == "none":
        return asked
    return replace(asked, measure="log_prob")


def _logit(log_probs: np.ndarray) -> np.ndarray:
    """Return log p - log(1 - p); a probability that rounds to 1 is taken as just below it."""
    below = np.minimum(log_probs, LARGEST_LOG_PROB)
    result: np.ndarray = below - np.log(-np.expm1(below))
    return result


def _sparse(masks: np.ndarray, outcome: np.ndarray, penalty: float, relative: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return weights [sources, targets] and levels [targets] of the lasso on standardised masks."""
    middle, spread = masks.mean(0), masks.std(0)
    spread = np.where(spread > 0, spread, 1.0)
    rows, weights = (masks - middle) / spread, np.zeros((masks.shape[1], outcome.shape[1]))
    for column, values in enumerate((outcome - outcome.mean(0)).T):
        largest = float(np.abs(rows.T @ values).max()) / len(rows) if relative else 1.0
        model = Lasso(alpha=max(penalty * largest, 1e-15), max_iter=100_000).fit(rows, values)
        weights[:, column] = model.coef_ / spread
    return weights, outcome.mean(0) - middle @ weights


def _lds(seen: np.ndarray, predicted: np.ndarray, unseen: int) -> Evidence:
    """Return the linear datamodeling score: the rank correlation of predicted and real outcomes, least over targets."""
    ranks = [(rankdata(a), rankdata(b)) for a, b in zip(seen.T, predicted.T, strict=True)]
    scores = [float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else 0.0 for a, b in ranks]
    worst = min(scores)
    which = f"{unseen} subsets that it was not fitted to" if unseen > 1 else f"all {len(seen)} subsets"
    return Evidence(
        "LDS",
        f"The rank correlation of the model's outcomes and the surrogate's over {which} is {worst:.2f}.",
        {"lds": worst, "subsets": float(len(seen))},
        ok=bool(worst > 0.5),
    )


def _drop(game: Game, scores: np.ndarray) -> Evidence:
    """Return by how much the target falls when the k highest sources are removed together."""
    order = np.argsort(-scores.sum(1), kind="stable")
    sizes = [k for k in TOP if k <= game.players]
    masks = np.ones((1 + len(sizes), game.players), dtype=bool)
    for row, size in enumerate(sizes):
        masks[row + 1, order[:size]] = False
    worth = game.value(masks).sum(1)
    drops = {f"top {k}": float(worth[0] - worth[row + 1]) for row, k in enumerate(sizes)}
    listed = ", ".join(f"{drop:.3g} ({name})" for name, drop in drops.items())
    return Evidence("top-k drop", f"Without its highest sources the target falls by {listed}.", drops)
