"""ProxySPEX: the few interactions, of any size, that a game over many units rests on."""

from __future__ import annotations

from typing import Literal

import numpy as np
from sklearn.linear_model import RidgeCV

from pellucid.core.metadata import method
from pellucid.core.params import Positive, PromptLike, Replacement, TargetLike, Unit
from pellucid.core.results import Evidence, Scores
from pellucid.engine.game import play
from pellucid.engine.games import interactions, sets_up_to
from pellucid.engine.regression import surrogate_fit
from pellucid.engine.tree_surrogates import boosted, characters, dividends_of, largest
from pellucid.models.subject import Subject

SHOWN = 10


@method(
    rows=("N-AT5",),
    paper="arXiv:2505.17495",
    takes="prompt",
    produces="scores",
    axes=("unit", "other_unit"),
    needs=("scores",),
    cost="(samples+samples/4+1)*F",
)
def proxy_spex(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", replacement: Replacement | None = None, index: Literal["k-SII", "STII", "FSII"] = "FSII",
    order: Positive = 4, samples: Positive = 512, terms: Positive | None = None, trees: Positive = 150, seed: int = 0,
) -> Scores:  # fmt: skip
    """Score the units and pairs of long prompts through the sparse interactions of any size that explain the target.

    Random coalitions, every unit kept with chance 1/2, are fitted by boosted trees of depth `order`, whose Fourier
    coefficients are read off exactly; the largest are kept and fitted anew by ridge regression (Butler et al. 2025,
    arXiv:2505.17495). They stand in for the codes of SPEX (Kang et al. 2025), which by that paper need ten times the
    forwards. The sparse game then gives its interaction index in closed form:
    pairs off the diagonal, units on it; diagonal and one triangle sum to the surrogate's v(all) - v(none). The evidence
    lists the strongest interactions of any size. Positive raises the target, for a pair beyond what its units do alone.
    An approximation; its fit on coalitions of its own is in the evidence. Takes units by the hundred. Trees look for
    one unit at a time, so an interaction of which no part has any effect of its own is missed.

    Args:
        subject: the model, from `pellucid.load`, or a black box.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts.
        contrast: the alternative to compare with.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        replacement: "delete", "mask", "pad", "mean", "zero" or a token id; None takes "mask" where the model has a
            mask token, else "delete".
        index: "k-SII", "STII" or "FSII", all of order 2.
        order: units in the largest interaction looked for.
        samples: coalitions that the surrogate is fitted to; a quarter as many more test it.
        terms: Fourier coefficients that are kept; None takes at most a quarter of the samples.
        trees: number of boosted trees.
        seed: of the coalitions and the trees.

    Returns:
        Scores [unit, other_unit], symmetric, or [unit, other_unit, target] for a target with `each`; with the fit of
        the surrogate and the strongest interactions.
    """
    game, rng = play(subject, prompt, target, contrast, unit, replacement), np.random.default_rng(seed)
    tests = samples // 4
    masks = rng.random((samples + tests, game.players)) < 0.5
    values = game.value(masks)
    kept = min(terms or max(samples // 4, 1), max(samples // 2, 1))
    wanted = sets_up_to(game.players, 2)
    entries, predicted, strongest = np.zeros((len(wanted), values.shape[1])), np.zeros((tests, values.shape[1])), {}
    for column in range(values.shape[1]):
        fitted, tested = masks[:samples], masks[samples:]
        sets = largest(boosted(fitted, values[:samples, column], order, trees, seed), kept)
        model = RidgeCV(alphas=np.logspace(-8, 3, 12)).fit(characters(fitted, sets), values[:samples, column])
        predicted[:, column] = model.predict(characters(tested, sets))
        parts, amounts = dividends_of(sets, np.asarray(model.coef_)[:, None], game.players)
        entries[:, [column]] = interactions(parts, amounts, wanted, index, 2)
        for members, amount in zip(sets, np.asarray(model.coef_), strict=True):
            strongest[members] = max(strongest.get(members, 0.0), float(amount), key=abs)
    matrix = np.zeros((game.players, game.players, values.shape[1]))
    for members, entry in zip(wanted, entries, strict=True):
        places = np.flatnonzero(members)
        matrix[places[0], places[-1]] = matrix[places[-1], places[0]] = entry
    result = game.pairs(matrix, f"Sparse interactions ({index}, ProxySPEX)")
    fit = surrogate_fit(values[samples:], predicted, np.ones(tests)) if tests > 1 else None
    listed = _strongest(strongest, game.question.units.labels)
    return result.with_evidence(*([fit] if fit else []), listed)


def _strongest(coefficients: dict[frozenset[int], float], labels: tuple[str, ...]) -> Evidence:
    """Return the largest Fourier coefficients: half the mean change when an odd number of the set is removed."""
    ranked = sorted(coefficients, key=lambda members: (-abs(coefficients[members]), sorted(members)))[:SHOWN]
    named = {
        " × ".join(f"{labels[i].strip()} ({i})" for i in sorted(members)): coefficients[members] for members in ranked
    }
    many = sum(len(members) > 1 for members in ranked)
    return Evidence(
        "interactions",
        f"The {len(ranked)} largest Fourier coefficients, {many} of them interactions: "
        + ("; ".join(f"{name} {amount:.3g}" for name, amount in named.items()) or "none")
        + ".",
        named,
    )
