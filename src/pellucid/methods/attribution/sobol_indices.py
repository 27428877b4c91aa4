"""Sobol indices: the share of the target's variance, over random removals, that a unit has a part in."""

from __future__ import annotations

import numpy as np

from pellucid.core.errors import InputError
from pellucid.core.metadata import method
from pellucid.core.params import Positive, PromptLike, Replacement, TargetLike, Unit
from pellucid.core.results import Evidence, Scores
from pellucid.engine.coalitions import all_coalitions
from pellucid.engine.game import Game, play, sampling_error
from pellucid.engine.games import fourier
from pellucid.models.subject import Subject


@method(
    rows=("STD-sobol-attribution",),
    paper="arXiv:2111.04138",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("scores",),
    cost="min(samples, 2**units)*F+F",
)
def sobol_indices(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", replacement: Replacement | None = None, samples: Positive = 512, seed: int = 0,
) -> Scores:  # fmt: skip
    """Score each unit by its total Sobol index when every unit is present or absent by the toss of a coin.

    T_i = E[Var(v | all but i)] / Var(v): the share of the variance that vanishes once i is known too, its interactions
    with all others included; from 0 to 1, without a sign. The indices sum to 1 for a sum over units and to more where
    units interact. Exact where all 2^n coalitions fit into `samples`, from the squared Fourier coefficients;
    otherwise Jansen's estimator on n + 1 neighbouring coalitions per draw, its ratio consistent, with standard errors
    (Fel et al. 2021, arXiv:2111.04138).

    Args:
        subject: the model, from `pellucid.load`, or a black box.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts.
        contrast: the alternative to compare with.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        replacement: "delete", "mask", "pad", "mean", "zero" or a token id; None takes "mask" where the model has a
            mask token, else "delete".
        samples: largest number of coalitions.
        seed: of the coalitions.

    Returns:
        Scores [unit], or [unit, target] for a target with `each`; with the sum of the indices, and the sampling error
        where sampled.

    Raises:
        InputError: samples for fewer than 2 draws of n + 1 coalitions.
    """
    game = play(subject, prompt, target, contrast, unit, replacement)
    draws = 0
    if 2.0**game.players <= samples:
        values, error = _exact(game), None
    else:
        draws = samples // (game.players + 1)
        if draws < 2:
            raise InputError(
                f"{samples} samples were asked for {game.players} units, but one draw takes {game.players + 1} "
                f"coalitions; raise samples to {2 * game.players + 2} or more."
            )
        values, error = _sampled(game, draws, np.random.default_rng(seed))
    title = "Total Sobol indices" + (", exact" if error is None else "")
    result = game.question.answer(
        values, title, std_error=error, unit="share of variance", sign="from 0, no part in the target, to 1; unsigned"
    )
    total = float(values.sum(0).max())
    note = Evidence(
        "interaction",
        f"The indices sum to {total:.2f}; what is above 1 is variance that units have only together.",
        {"sum": total},
    )
    return result.with_evidence(note, *sampling_error(values, error, draws, "draws"))


def _exact(game: Game) -> np.ndarray:
    masks = all_coalitions(game.players)
    power = fourier(game.value(masks)) ** 2
    return masks.T @ power / np.maximum(power[1:].sum(0), 1e-300)


def _sampled(game: Game, draws: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return indices and standard errors [units, targets]; the errors by the delta method for a ratio."""
    start = rng.random((draws, game.players)) < 0.5
    rows = np.concatenate([start[:, None], start[:, None] ^ np.eye(game.players, dtype=bool)], axis=1)
    worth = game.value(rows.reshape(-1, game.players)).reshape(draws, game.players + 1, -1)
    # Drawing a coin anew changes it half of the time, hence half of Jansen's 1/2.
    parts = (worth[:, 1:] - worth[:, :1]) ** 2 / 4
    around = (worth[:, 0] - worth[:, 0].mean(0)) ** 2 * draws / (draws - 1)
    variance = np.maximum(around.mean(0), 1e-300)
    values = parts.mean(0) / variance
    pull = (parts - values * around[:, None]) / variance
    return values, pull.std(0, ddof=1) / np.sqrt(draws)
