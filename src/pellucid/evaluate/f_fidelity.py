"""F-Fidelity: faithfulness read from removals that are too small to leave what a fine-tuned model has seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pellucid.core.metadata import metric
from pellucid.core.params import Count, Fraction, Positive, PromptLike, Replacement, TargetLike
from pellucid.core.results import Evidence, Scores
from pellucid.evaluate._removal import against_chance, counts_of, judged
from pellucid.models.subject import Subject

SIZES = (0.1, 0.2, 0.3, 0.4, 0.5)


@metric(
    rows=("N-BM7",),
    paper="arXiv:2410.02970",
    takes="prompt",
    produces="evidence",
    better="higher",
    needs=("scores",),
    cost="(orders+1)*10*samples*F+F",
)
def f_fidelity(
    subject: Subject, prompt: PromptLike, scores: Scores, *, target: TargetLike = None,
    contrast: int | str | None = None, replacement: Replacement | None = None,
    share: Fraction = 0.1, samples: Positive = 4, orders: Count = 10, seed: int = 0,
) -> Evidence:  # fmt: skip
    """Return the fall of the target without a few of the top units less its fall without a few of the others.

    For explanations of 10 ... 50 % of the units, at most `share` of all units is removed at once, drawn from inside
    (`plus`) or from outside of the explanation (`minus`); the value is the mean of plus - minus (Zheng et al. 2024,
    arXiv:2410.02970). Higher is better; the mean over random orders is the chance level. Meant for a model that was
    fine-tuned on inputs with as large a share removed at random: give that as the subject. An approximation from
    `samples` draws per size; exact where one unit is all that may be drawn.

    Args:
        subject: the model, from `pellucid.load`, or a black box.
        prompt: the prompt that was explained.
        scores: one score per unit; the units of the metric are theirs.
        target: what was explained; None means what the model predicts.
        contrast: the alternative to compare with.
        replacement: "delete", "mask", "pad", "mean", "zero" or a token id; None takes "mask" where the model has a
            mask token, else "delete".
        share: largest share of all units that is removed at once, at least one unit.
        samples: draws per size of the explanation, inside and outside.
        orders: random orders that it is compared with, which are the chance level.
        seed: of the random orders.

    Returns:
        Evidence with the value, plus, minus, the mean over random orders and the share of them that do worse.

    Raises:
        InputError: scores of another prompt, or not one finite number per unit.
    """
    game = judged(subject, prompt, scores, target, contrast, replacement)
    units, sizes = game.players, counts_of(SIZES, game.players)
    most = max(1, round(share * units))

    def sides(ranked: list[np.ndarray]) -> np.ndarray:
        rng = np.random.default_rng(seed)
        masks, weights = [np.ones((1, units), dtype=bool)], []
        for order in ranked:
            for size in sizes:
                for part in (order[:size], order[size:]):
                    removed = _draws(part, most, samples, rng)
                    kept = np.ones((len(removed), units), dtype=bool)
                    np.put_along_axis(kept, removed, False, axis=1)
                    masks.append(kept)
                    weights.append(len(removed))
        values = game.value(np.concatenate(masks))[:, 0]
        parts = np.split(values[0] - values[1:], np.cumsum(weights)[:-1])
        found = np.array([part.mean() if len(part) else 0.0 for part in parts])
        return np.asarray(found.reshape(len(ranked), len(sizes), 2).mean(1))  # plus and minus of every order

    def worth(ranked: list[np.ndarray]) -> np.ndarray:
        found = sides(ranked)
        result: np.ndarray = found[:, 0] - found[:, 1]
        return result

    found = against_chance("F-Fidelity", scores, worth, False, orders, seed)
    plus, minus = sides([np.argsort(-scores.values, kind="stable")])[0]
    return replace(found, values={**found.values, "plus": float(plus), "minus": float(minus)})


def _draws(part: np.ndarray, most: int, samples: int, rng: np.random.Generator) -> np.ndarray:
    """Return units to remove at once, [draws, units at once]: each unit once where single units are drawn."""
    count = min(most, len(part))
    if count <= 1 or count == len(part):
        return part.reshape(-1, max(count, 1)) if len(part) else np.zeros((0, 1), dtype=int)
    return np.stack([rng.permutation(part)[:count] for _ in range(samples)])
