"""Shapley interactions: how much of the target two units give only together."""

from __future__ import annotations

from typing import Literal

import numpy as np

from pellucid.core.metadata import method
from pellucid.core.params import Positive, PositiveFloat, PromptLike, Replacement, TargetLike, Unit
from pellucid.core.results import Scores
from pellucid.engine.adjusted import estimate
from pellucid.engine.game import efficiency, play, sampling_error
from pellucid.engine.games import sets_up_to
from pellucid.engine.linear_indices import index_of_pairs
from pellucid.models.subject import Subject


@method(
    rows=("N-AT5",),
    paper="arXiv:2303.01179",
    takes="prompt",
    produces="scores",
    axes=("unit", "other_unit"),
    needs=("scores",),
    cost="min(samples, 2**units)*F+F",
)
def shapley_interactions(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", replacement: Replacement | None = None, index: Literal["k-SII", "STII", "FSII"] = "k-SII",
    samples: Positive = 1024, precision: PositiveFloat | None = None, seed: int = 0,
) -> Scores:  # fmt: skip
    """Share the change of the target among the units and the pairs of units.

    A pair's entry is a weighted mean, over coalitions S of the others, of v(S,i,j) - v(S,i) - v(S,j) + v(S): positive
    where the two are worth more together than apart. The diagonal holds what is left to each unit alone. Diagonal and
    one triangle sum to v(all) - v(none). The indices of order 2 differ in how larger interactions are shared: "k-SII"
    averages over orders and takes them out of the diagonal (Lundberg et al. 2020; Bordt & von Luxburg 2023), "STII"
    gives the diagonal v(i) - v(none) alone (Sundararajan et al. 2020), "FSII" is the best fit by units and pairs under
    the Shapley kernel (Tsai et al. 2023). Exact where all 2^n coalitions fit into `samples`; otherwise unbiased from
    weighted random coalitions (Fumagalli et al. 2023, arXiv:2303.01179), each corrected by a regression with all
    pairs that was fitted without it.

    Args:
        subject: the model, from `pellucid.load`, or a black box.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts.
        contrast: the alternative to compare with.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        replacement: "delete", "mask", "pad", "mean", "zero" or a token id; None takes "mask" where the model has a
            mask token, else "delete".
        index: "k-SII", "STII" or "FSII".
        samples: largest number of coalitions.
        precision: stop once every standard error is below this share of |v(all) - v(none)|.
        seed: of the coalitions.

    Returns:
        Scores [unit, other_unit], symmetric, or [unit, other_unit, target] for a target with `each`; with the
        efficiency residual, and the sampling error where sampled.

    Raises:
        InputError: fewer than 10 samples for more units than they can enumerate.
    """
    game = play(subject, prompt, target, contrast, unit, replacement)
    found = estimate(
        game.players, game.value, index_of_pairs(index, game.players), samples=samples, sizes="kernel",
        rng=np.random.default_rng(seed), order=2, precision=precision,
    )  # fmt: skip
    error = None if found.error is None else _matrix(found.error, game.players)
    title = f"Shapley interactions ({index})" + (", exact" if error is None else "")
    return game.pairs(_matrix(found.values, game.players), title, error).with_evidence(
        efficiency(found.values, found.difference),
        *sampling_error(found.values, found.error, found.draws, "random coalitions"),
    )


def _matrix(entries: np.ndarray, players: int) -> np.ndarray:
    """Return units and then pairs [entries, targets] as a symmetric matrix [units, units, targets]."""
    result = np.zeros((players, players, entries.shape[1]))
    for members, entry in zip(sets_up_to(players, 2), entries, strict=True):
        places = np.flatnonzero(members)
        result[places[0], places[-1]] = result[places[-1], places[0]] = entry
    return result
