"""Formulas of ferret 0.4.2 and Quantus 0.6.0 written again from their definition, beside ours: equal, or why not.

Nothing of theirs is imported. `docs/evaluation.md` says in words what is shown here in numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

import pellucid
from pellucid.core.results import Scores

WEIGHTS = {"a": 4.0, "b": 2.0, "c": 1.0, "d": -1.0, "e": 0.5, "f": 0.25, "g": -2.0, "h": 3.0, "i": 0.1, "j": 1.5}
TEXT = " ".join(WEIGHTS)


def added(words: list[str]) -> float:
    return sum(WEIGHTS.get(word, 0.0) for word in words)


SUBJECT = pellucid.load(lambda texts: [added(text.split()) for text in texts])
TRUE = pellucid.run("occlusion", SUBJECT, TEXT, unit="word")
LETTERS = list(WEIGHTS)


def ranked(values: Any) -> Scores:
    return Scores(values=np.array(values, float), axes=("unit",), tokens=TRUE.tokens, units=TRUE.units)


def value(name: str, *given: Any, **more: Any) -> float:
    return float(pellucid.run(name, *given, **more).values["value"])


def test_comprehensiveness_and_sufficiency_are_means_over_other_shares_in_ferret() -> None:
    """ferret: 10, 20, ... 100 % of the units, rounded down; positive ones only, a repeated set counted once."""
    order = np.argsort([WEIGHTS[word] for word in LETTERS])
    falls, kept = [], []
    last: set[int] = set()
    for share in np.arange(0.1, 1.1, 0.1):
        top = [int(i) for i in order[-int(share * 10) :][::-1] if WEIGHTS[LETTERS[i]] > 0]
        if set(top) == last:
            continue
        last = set(top)
        falls.append(added(LETTERS) - added([word for i, word in enumerate(LETTERS) if i not in last]))
        kept.append(added(LETTERS) - added([word for i, word in enumerate(LETTERS) if i in last]))
    assert len(falls) == 8
    ours = value("comprehensiveness", SUBJECT, TEXT, scores=TRUE)
    assert np.mean(falls) != pytest.approx(ours)
    # The same mean over our shares (1, 5, 10, 20, 50 %, rounded up) is ours.
    descending = [LETTERS[i] for i in order[::-1]]
    assert np.mean([added(descending[:k]) for k in (1, 1, 1, 2, 5)]) == pytest.approx(ours)
    assert value("sufficiency", SUBJECT, TEXT, scores=TRUE) == pytest.approx(
        np.mean([added(LETTERS) - added(descending[:k]) for k in (1, 1, 1, 2, 5)])
    )
    assert np.mean(kept) < np.mean(falls)


def test_leave_one_out_is_a_rank_correlation_in_ferret() -> None:
    values = [3.0, 1.0, 2.0, 0.0, 1.0, 0.5, -3.0, 2.5, 0.2, 0.9]
    effects = [WEIGHTS[word] for word in LETTERS]
    ours = value("leave_one_out_correlation", SUBJECT, TEXT, scores=ranked(values))
    assert ours == pytest.approx(stats.pearsonr(values, effects)[0])
    assert stats.kendalltau(effects, values)[0] != pytest.approx(ours)
    exact = value("leave_one_out_correlation", SUBJECT, TEXT, scores=TRUE)
    assert exact == pytest.approx(stats.kendalltau(effects, TRUE.values)[0]) == pytest.approx(1.0)


def test_the_area_under_precision_and_recall_is_too_high_in_ferret() -> None:
    """Straight lines between the points of a precision-recall curve promise what no threshold reaches."""
    marked = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    constant = ranked([1.0] * 10)
    points = [(0.0, 1.0), (1.0, 0.1)]  # (recall, precision): nothing chosen, and everything
    trapezoid = (points[1][0] - points[0][0]) * (points[0][1] + points[1][1]) / 2
    assert trapezoid == pytest.approx(0.55)  # for an explanation that says nothing
    assert value("auprc", constant, marked) == pytest.approx(0.1)


def test_token_f1_is_that_of_ferret() -> None:
    marked = np.array([1, 0, 1, 0, 0, 0, 0, 1, 0, 0])
    chosen = np.zeros(10, int)
    chosen[np.argsort(TRUE.values)[-3:]] = 1
    hits = (marked & chosen).sum()
    precision, recall = hits / chosen.sum(), hits / marked.sum()
    assert value("token_f1", TRUE, marked, top=3) == pytest.approx(2 * precision * recall / (precision + recall))


def test_iou_is_of_tokens_in_ferret_and_of_spans_in_eraser() -> None:
    """One span of two found whole, the other missed: tokens give 2/4, spans give precision 1, recall 1/2, F1 2/3."""
    marked = np.array([1, 1, 0, 0, 0, 1, 1, 0, 0, 0])
    chosen = np.array([1, 1, 0, 0, 0, 0, 0, 0, 0, 0])
    assert (marked & chosen).sum() / (marked | chosen).sum() == pytest.approx(0.5)
    assert value("iou_f1", ranked(chosen.astype(float)), marked, top=2) == pytest.approx(2 / 3)


def test_monotonicity_is_always_true_in_quantus() -> None:
    """It starts from an input at its baseline and puts baseline values in: the input, and the output, never change."""
    weights = np.array([3.0, -5.0, 1.0])
    baseline = np.zeros(3)
    for scores in (weights, -weights):
        outputs = []
        for index in np.argsort(scores):
            baseline[index] = 0.0  # the value that stands for "removed", where the feature's own was meant
            outputs.append(float(weights @ baseline))
        assert np.all(np.diff(outputs) >= 0)
    assert value("monotonicity", SUBJECT, TEXT, scores=TRUE, orders=0) < 1  # two words lower the output


def test_monotonicity_correlation_takes_signed_sums_in_quantus() -> None:
    """Nguyen & Martinez 2020 correlate |a| with the squared effect, so exact scores of any sign have 1."""
    effects = np.array([WEIGHTS[word] for word in LETTERS])
    order = np.argsort(effects)
    signed = stats.spearmanr(effects[order], effects[order] ** 2)[0]
    assert signed < 0.9
    assert value("monotonicity_correlation", SUBJECT, TEXT, scores=TRUE) == pytest.approx(1.0)


def test_sensitivity_n_compares_one_step_with_all_steps_in_quantus() -> None:
    """Scores of the units removed last stand beside the fall by all that were removed before them, too."""
    rng = np.random.default_rng(0)
    exact = rng.normal(size=(200, 4))  # contributions in 200 linear examples, so that exact scores deserve 1
    order = np.argsort(-exact, axis=1)
    steps = np.take_along_axis(exact, order, axis=1)
    falls = steps.cumsum(1)
    theirs = [stats.pearsonr(steps[:, k], falls[:, k])[0] for k in range(4)]
    assert theirs[0] == pytest.approx(1.0)
    assert min(theirs) < 0.95
    own = [stats.pearsonr(steps[:, : k + 1].sum(1), falls[:, k])[0] for k in range(4)]
    assert own == pytest.approx([1.0] * 4)
    assert value("sensitivity_n", SUBJECT, TEXT, scores=TRUE) == pytest.approx(1.0)


def test_infidelity_draws_nested_blocks_in_quantus() -> None:
    """Blocks pile up on one input, so that with fixed baselines every repetition is the same; ours are drawn anew."""
    scores = ranked(np.roll(TRUE.values, 3))
    blocks = [range(5), range(5, 10)]
    gone: list[int] = []
    errors = []
    for block in blocks:
        gone += block
        fall = added(LETTERS) - added([word for i, word in enumerate(LETTERS) if i not in gone])
        errors.append((fall - scores.values[gone].sum()) ** 2)
    assert len({float(np.mean(errors)) for _ in range(3)}) == 1
    draws = [value("infidelity", SUBJECT, TEXT, scores=scores, samples=8, seed=seed) for seed in range(3)]
    assert len(set(draws)) == 3
    assert value("infidelity", SUBJECT, TEXT, scores=TRUE) == pytest.approx(0.0, abs=1e-12)
