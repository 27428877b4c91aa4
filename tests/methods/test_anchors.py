"""Anchors: the smallest sufficient set by brute force, exact and sampled."""

from itertools import combinations

import numpy as np
import pytest

import pellucid
from pellucid import Target
from pellucid.core.errors import InputError
from pellucid.engine.coalitions import all_coalitions
from pellucid.methods.attribution.anchors import anchors
from tests import games, plain


def smallest(table: np.ndarray, threshold: float, precision: float) -> tuple[int, float]:
    """Return the size of the smallest precise set and the best precision of that size, trying all sets."""
    players = int(np.log2(len(table)))
    masks, side = all_coalitions(players), table[-1, 0] > threshold
    for size in range(players + 1):
        best = max(
            float(((table[masks[:, list(team)].all(1), 0] > threshold) == side).mean())
            for team in combinations(range(players), size)
        )
        if best >= precision:
            return size, best
    raise AssertionError


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_the_smallest_set_of_a_model(name: str) -> None:
    model = plain.tiny(name)
    table = games.of_model(model, plain.IDS, 3)
    middle = float(table[[0, -1], 0].mean())
    found = anchors(pellucid.load(model), plain.IDS, target=plain.TARGET, replacement=3, beam=10)
    check = found.evidence[0].values
    assert (check["size"], check["precision"]) == pytest.approx(smallest(table, middle, 0.95))
    members = np.flatnonzero(found.scores)
    held = all_coalitions(6)[:, members].all(1)
    side = table[-1, 0] > middle
    exact = float(((table[held, 0] > middle) == side).mean())
    assert exact == pytest.approx(check["precision"])
    empty = float(((table[:, 0] > middle) == side).mean())
    assert found.scores.sum() == pytest.approx(exact - empty)
    assert found.provenance.forwards <= 66


def test_a_planted_rule_among_many_words_is_found_by_sampling() -> None:
    """Fourteen words are too many to enumerate in 1000 cases: "not" and "bad" together make the film good."""

    def film(texts: list[str]) -> list[float]:
        return [float("not" in text and "bad" in text) for text in texts]

    found = anchors(pellucid.load(film), "well this film is not at all as bad as they say it is here")
    assert found.units is not None
    names = {found.units.labels[i].strip() for i in np.flatnonzero(found.scores)}
    assert names == {"not", "bad"}
    check = found.evidence[0]
    assert check.ok
    assert check.values["precision"] == 1.0
    assert check.values["coverage"] == 0.25
    assert found.provenance.forwards <= 1003


def test_a_decision_that_never_changes_needs_nothing() -> None:
    found = anchors(pellucid.load(lambda texts: [1.0] * len(texts)), "any text", threshold=0.0)
    assert (found.scores == 0).all()
    assert "nothing" in found.title


def test_each_target_is_refused() -> None:
    with pytest.raises(InputError, match="one decision"):
        anchors(pellucid.load(plain.tiny()), plain.IDS, target=Target.continuation([17, 20], each=True))
