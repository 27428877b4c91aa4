"""Metrics that remove units, worked by hand on four words whose weights are 4, 2, 1 and -1, and at chance for noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pellucid
from pellucid import Target
from pellucid.core.catalogue import find_entry
from pellucid.core.errors import TargetError
from pellucid.core.results import Scores
from tests import plain
from tests.evaluate.additive import PROMPT, SUBJECT, TRUE, scored, value, values

AGAINST_ORDERS = ("aopc", "log_odds", "decision_flip_fraction", "infidelity", "monotonicity")
AT_ONCE = ("decision_flip_top", "sensitivity_n", "monotonicity_correlation", "polarity_violation", "order_violation")
OPPOSITE = scored(-4.0, -2.0, -1.0, 1.0)
OTHER = scored(1.0, 5.0, 2.0, 0.0)


def test_area_over_the_curve() -> None:
    """s = 6, and 2, 0, -1, 0 as a, b, c, d go; the other way round 7, 6, 4, 0."""
    found = values("aopc", TRUE)
    assert found["value"] == pytest.approx((0 + 4 + 6 + 7 + 6) / 5)
    assert found["lowest_first"] == pytest.approx((0 - 1 + 0 + 2 + 6) / 5)
    assert found["between"] == pytest.approx(16 / 5)
    assert value("aopc", TRUE, steps=1) == pytest.approx((0 + 4) / 2)


def test_log_odds() -> None:
    """A black box counts as a log-probability: one of four words goes at 20 %, two at 50 %."""
    assert value("log_odds", TRUE) == pytest.approx(-4)
    assert value("log_odds", TRUE, share=0.5) == pytest.approx(-6)
    assert value("log_odds", OPPOSITE) == pytest.approx(1)


def test_log_odds_are_differences_of_log_probabilities() -> None:
    model = plain.tiny()
    subject = pellucid.load(model)
    scores = pellucid.run("occlusion", subject, plain.IDS, target=17, replacement=3)
    found = pellucid.run("log_odds", subject, plain.IDS, scores=scores, target=17, replacement=3, share=0.3)
    changed = np.array(plain.IDS)
    changed[np.argsort(-scores.values)[:2]] = 3
    log_probs = [plain.logits(model, ids).log_softmax(-1)[17] for ids in (plain.IDS, changed.tolist())]
    assert found.values["value"] == pytest.approx(float(log_probs[1] - log_probs[0]))


def test_decision_flips() -> None:
    """The decision is s > 0. Without a and b it is 0, so two of four words flip it; no word alone does."""
    assert values("decision_flip_top", TRUE) == {"value": 0, "chance": 0}
    assert value("decision_flip_fraction", TRUE) == pytest.approx(2 / 4)
    assert value("decision_flip_fraction", OPPOSITE) == 1, "7, 6, 4 and 0 are left"
    weak = pellucid.load(lambda texts: [3.0 * ("a" in text) - 1 for text in texts])
    assert pellucid.run("decision_flip_top", weak, PROMPT, scores=TRUE).values == {"value": 1, "chance": 0.25}
    assert pellucid.run("decision_flip_top", weak, PROMPT, scores=OPPOSITE).values["value"] == 0


def test_decision_flips_of_classes_and_tokens() -> None:
    """The decision is the largest output, whether the measure of the target is a logit or a probability."""
    for name, ids in (("bert-classifier", [3, 8, 21, 14, 4]), ("gpt2", plain.IDS)):
        model = plain.tiny(name)
        subject = pellucid.load(model)
        scores = pellucid.run("occlusion", subject, ids, unit="token+special", replacement=9)
        found = pellucid.run("decision_flip_top", subject, ids, scores=scores, replacement=9, target=None)

        def best(some: list[int], model: Any = model, pooled: bool = name != "gpt2") -> int:
            output = model(input_ids=plain.torch.tensor([some])).logits[0]
            return int((output if pooled else output[-1]).argmax())

        flips = [best([*ids[:i], 9, *ids[i + 1 :]]) != best(ids) for i in range(len(ids))]
        assert found.values["value"] == flips[int(np.argmax(scores.values))]
        assert found.values["chance"] == pytest.approx(np.mean(flips))


def test_infidelity() -> None:
    """With gaps d between scores and weights, the mean over all sets of (sum of d)^2 is (sum d)^2/4 + sum d^2/4."""
    assert value("infidelity", TRUE) == pytest.approx(0, abs=1e-12)
    gaps = OTHER.values - TRUE.values
    assert value("infidelity", OTHER) == pytest.approx(gaps.sum() ** 2 / 4 + (gaps**2).sum() / 4)
    zero = values("infidelity", scored(0, 0, 0, 0))
    assert zero["relative"] == pytest.approx(1)
    assert zero["value"] == pytest.approx(36 / 4 + 22 / 4)
    assert value("infidelity", scored(8, 4, 2, -2), scaled=True) == pytest.approx(0, abs=1e-12)
    sampled = values("infidelity", OTHER, samples=15)
    assert (sampled["exact"], values("infidelity", OTHER)["exact"]) == (0, 1)


def test_sensitivity_n() -> None:
    assert value("sensitivity_n", TRUE) == pytest.approx(1)
    assert value("sensitivity_n", OPPOSITE) == pytest.approx(-1)
    pairs = [(i, j) for i in range(4) for j in range(i)]
    sums = [[float(one.values[i] + one.values[j]) for i, j in pairs] for one in (OTHER, TRUE)]
    assert values("sensitivity_n", OTHER) == pytest.approx({"value": np.corrcoef(sums)[0, 1], "n": 2, "sets": 6})
    assert np.isnan(value("sensitivity_n", TRUE, share=1.0)), "there is one set of all units"


def test_monotonicity() -> None:
    """Adding d, c, b, a gives 0, -1, 0, 2, 6: the ranks are 2.5, 1, 2.5, 4, 5."""
    found = values("monotonicity", TRUE)
    assert found["value"] == pytest.approx(np.corrcoef([1, 2, 3, 4, 5], [2.5, 1, 2.5, 4, 5])[0, 1])
    assert (found["never_falls"], found["gains"]) == (0, pytest.approx(1))
    assert values("monotonicity", OPPOSITE)["gains"] == pytest.approx(-1)
    positive = "a b c"
    rising = pellucid.run("occlusion", SUBJECT, positive, unit="word")
    found = pellucid.run("monotonicity", SUBJECT, positive, scores=rising).values
    assert (found["value"], found["random_mean"], found["never_falls"]) == (pytest.approx(1), pytest.approx(1), 1)


def test_monotonicity_correlation() -> None:
    """Squared changes 16, 4, 1, 1 have the ranks 4, 3, 1.5, 1.5."""
    assert value("monotonicity_correlation", TRUE) == pytest.approx(1)
    assert value("monotonicity_correlation", OPPOSITE) == pytest.approx(1), "signs do not count"
    expected = np.corrcoef([4, 3, 1.5, 1.5], [2, 4, 3, 1])[0, 1]
    assert value("monotonicity_correlation", OTHER) == pytest.approx(expected)


def test_violations() -> None:
    """Only d lowers the target; a pair is ordered wrongly where the heavier word has the lower score."""
    assert values("polarity_violation", TRUE) == {"value": 0, "top": 0, "counted": 4}
    assert values("polarity_violation", OPPOSITE) == {"value": 1, "top": 1, "counted": 4}
    assert values("polarity_violation", scored(3, 2, 0, 1)) == {"value": 1 / 3, "top": 0, "counted": 3}
    assert values("order_violation", TRUE) == {"value": 0, "pairs": 6}
    assert values("order_violation", OPPOSITE) == {"value": 1, "pairs": 6}
    assert value("order_violation", OTHER) == pytest.approx(2 / 6), "a stands behind b and behind c"
    assert value("order_violation", scored(1, 1, 1, 1)) == pytest.approx(0.5)


@pytest.mark.parametrize("name", [*AGAINST_ORDERS, *AT_ONCE])
def test_random_scores_are_at_chance(name: str) -> None:
    """Against random orders the mean gap is 0, else the mean is the stated chance, on six words with interactions."""
    rng = np.random.default_rng(1)
    weights = {f"w{i}": float(rng.normal(0.3)) for i in range(6)}

    def worth(texts: list[str]) -> list[float]:
        sums = [sum(weights[word] for word in text.split() if word in weights) for text in texts]
        return [s + 0.1 * s * s - 0.5 for s in sums]

    subject, prompt = pellucid.load(worth), " ".join(weights)
    shown = pellucid.run("occlusion", subject, prompt, unit="word")
    entry, gaps = find_entry(name), list[float]()
    assert entry is not None
    for seed in range(40):
        scores = Scores(values=rng.normal(size=6), axes=("unit",), tokens=shown.tokens, units=shown.units)
        more = {"orders": 3, "seed": seed} if name in AGAINST_ORDERS else {}
        found = pellucid.run(name, subject, prompt, scores=scores, **more).values
        gaps.append(found["value"] - found.get("random_mean", found.get("chance", entry.chance)))
    assert abs(np.mean(gaps)) < 3.5 * np.std(gaps, ddof=1) / 40**0.5 + 1e-12


@pytest.mark.parametrize("name", AGAINST_ORDERS[:4])
def test_the_exact_order_beats_random_ones(name: str) -> None:
    rng = np.random.default_rng(0)
    weights = {f"w{i}": float(rng.normal(0.4)) for i in range(12)}
    subject = pellucid.load(lambda texts: [sum(weights.get(word, 0.0) for word in text.split()) for text in texts])
    prompt = " ".join(weights)
    true = pellucid.run("occlusion", subject, prompt, unit="word")
    found = pellucid.run(name, subject, prompt, scores=true, orders=200)
    assert found.values["beaten"] > 0.9


def test_monotonicity_misjudges_words_that_lower_the_target() -> None:
    """As its manual says: with signs, the true order is no better than chance, and only `gains` finds it right."""
    found = values("monotonicity", TRUE, orders=200)
    assert found["value"] < found["random_mean"]
    assert found["gains"] == pytest.approx(1)


def test_leave_one_out_is_the_best_first_step() -> None:
    """No ranking removes a unit that costs the target more than the one leave-one-out puts first."""
    subject = pellucid.load(plain.tiny())
    asked: dict[str, Any] = {"target": plain.TARGET, "replacement": 3}
    exact = pellucid.run("occlusion", subject, plain.IDS, **asked)
    best = pellucid.run("aopc", subject, plain.IDS, scores=exact, steps=1, **asked).values["value"]
    for unit in range(len(plain.IDS)):
        other = Scores(values=np.eye(len(plain.IDS))[unit], axes=("unit",), tokens=exact.tokens, units=exact.units)
        assert pellucid.run("aopc", subject, plain.IDS, scores=other, steps=1, **asked).values["value"] <= best + 1e-12


@pytest.mark.usefixtures("kept_scores")
def test_what_was_scored_is_not_run_again() -> None:
    """All 2^8 removals are known; log-odds alone reads another measure, and decisions are read against all tokens."""
    subject, ids = pellucid.load(plain.tiny()), [11, 42, 7, 23, 64, 5, 9, 31]
    asked: dict[str, Any] = {"target": plain.TARGET, "replacement": 3}
    exact = pellucid.run("shapley_values", subject, ids, exact=True, **asked)
    free = ["aopc", "infidelity", "sensitivity_n", "monotonicity", "monotonicity_correlation", "polarity_violation"]
    with subject.recorded() as record:
        for name in [*free, "order_violation"]:
            assert np.isfinite(pellucid.run(name, subject, ids, scores=exact, **asked).values["value"])
    assert record.forwards == 0


def test_continuations_are_judged_and_do_not_decide() -> None:
    subject = pellucid.load(plain.tiny())
    asked: dict[str, Any] = {"target": Target.continuation([17, 20]), "replacement": 3}
    scores = pellucid.run("occlusion", subject, plain.IDS, **asked)
    for name in ("aopc", "log_odds", "infidelity", "sensitivity_n", "order_violation"):
        assert np.isfinite(pellucid.run(name, subject, plain.IDS, scores=scores, **asked).values["value"])
    with pytest.raises(TargetError):
        pellucid.run("decision_flip_top", subject, plain.IDS, scores=scores, **asked)
