"""TracLLM: the few texts of a long context that made an answer, found by scoring groups and halving the best."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Literal

import numpy as np

from pellucid.core.metadata import method
from pellucid.core.params import Fraction, Positive, PromptLike, Replacement, TargetLike, Unit
from pellucid.core.results import Evidence, Scores
from pellucid.engine.coalitions import permutations as orders
from pellucid.engine.coalitions import walk
from pellucid.engine.groups import Groups, grouped, halves, shared_out, unfolded
from pellucid.engine.question import ask
from pellucid.engine.variants import default_replacement
from pellucid.models.subject import Subject

Value = Callable[[np.ndarray], np.ndarray]


@method(
    rows=("N-AT4",),
    paper="arXiv:2506.04202",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("scores",),
    cost="(rounds*(permutations+2)*(2*keep+1)+1)*F",
)
def tracllm(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", replacement: Replacement | None = None, keep: Positive = 4,
    scorer: Literal["ensemble", "alone", "left_out", "shapley"] = "ensemble", permutations: Positive = 8,
    highest: Fraction = 0.2, rounds: Positive = 8, seed: int = 0,
) -> Scores:  # fmt: skip
    """Search for the units that contribute most: score groups, keep the best, halve them, until units stand alone.

    Each round has at most 2 * `keep` groups; the units outside them are removed. A group g is scored by v(g) - v(none)
    ("alone"), v(all) - v(all without g) ("left_out"), or the mean of the `highest` share of its gains over sampled
    orders ("shapley", denoised); "ensemble" is the largest of the three. The units of the last round have their
    scores, units dropped on the way 0. Positive raises the target. Approximation: a unit that helps only together
    with dropped ones is missed (Wang et al. 2025, arXiv:2506.04202).

    Args:
        subject: the model, from `pellucid.load`, or a black box.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts.
        contrast: the alternative to compare with.
        unit: "token", "word", "sentence", "line", "message" or token ranges; in the paper passages of 100 words.
        replacement: "delete", "mask", "pad", "mean", "zero" or a token id; None takes "mask" where the model has a
            mask token, else "delete".
        keep: groups kept in each round, and units in the answer.
        scorer: how groups are scored.
        permutations: sampled orders per round, for Shapley.
        highest: share of the largest gains that is averaged; 1 is the plain Shapley estimate.
        rounds: most rounds; groups that are not single by then share their score evenly.
        seed: of the orders.

    Returns:
        Scores [unit], or [unit, target] for a target with `each`, 0 for units that were dropped.
    """
    question = ask(subject, prompt, target=target, contrast=contrast, unit=unit)
    removal = default_replacement(question.subject) if replacement is None else replacement
    count, rng = len(question.units), np.random.default_rng(seed)
    groups: Groups = grouped(question.subject, question.tokens, question.units, 2 * keep)
    done = 0
    while True:
        here = groups

        def value(present: np.ndarray, here: Groups = here) -> np.ndarray:
            return question.score(unfolded(present, here, count), removal)

        scores = _scores(value, len(groups), scorer, permutations, highest, rng)
        done += 1
        best = sorted(int(g) for g in np.argsort(-scores.sum(1), kind="stable")[:keep])
        groups, scores = tuple(groups[g] for g in best), scores[best]
        if done == rounds or all(len(group) == 1 for group in groups):
            break
        groups = halves(groups)
    values = shared_out(scores, groups, count)
    found = sum(len(group) for group in groups)
    return question.answer(values, "TracLLM").with_evidence(
        Evidence(
            "search",
            f"{found} of {count} units are left after {done} rounds of at most {2 * keep} groups.",
            {"left": float(found), "rounds": float(done)},
        )
    )


def _scores(
    value: Value, players: int, scorer: str, permutations: int, highest: float, rng: np.random.Generator
) -> np.ndarray:
    """Return the contribution of each group: [groups, targets]."""
    one = np.eye(players, dtype=bool)
    ends = value(np.stack([np.zeros(players, dtype=bool), np.ones(players, dtype=bool)]))
    found = []
    if scorer in ("alone", "ensemble"):
        found.append(value(one) - ends[:1])
    if scorer in ("left_out", "ensemble"):
        found.append(ends[1:] - value(~one))
    if scorer in ("shapley", "ensemble"):
        drawn = [order.copy() for order in islice(orders(players, rng), permutations)]
        values = value(np.concatenate([walk(order) for order in drawn])).reshape(permutations, players + 1, -1)
        gains = np.empty((permutations, players, values.shape[2]))
        for row, order, steps in zip(gains, drawn, np.diff(values, axis=1), strict=True):
            row[order] = steps
        top = max(1, round(highest * permutations))
        found.append(np.sort(gains, axis=0)[-top:].mean(0))
    return np.max(found, axis=0)
