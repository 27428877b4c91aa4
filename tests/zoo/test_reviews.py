"""The reviews say what they are said to say: words, verdicts, worth of every word, and what is held out."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator

import pytest

from pellucid.zoo import reviews
from pellucid.zoo.classifier_tasks import TASKS, evaluation_reviews, training_reviews
from pellucid.zoo.reviews import BLAME, HATED, LIKED, PRAISE, SHORTCUT, Opinion, Review, review


def some(count: int = 60, *, held_out: bool = True, day: str | None = None) -> list[Review]:
    rng = random.Random(5)
    return [review(rng, held_out, day=day) for _ in range(count)]


def orders(made: Review, *, shortcut: bool) -> list[float]:
    """The Shapley values as an average over all orders, as the definition reads."""
    found, count = [0.0] * len(made.words), 0
    for order in itertools.permutations(range(len(made.words))):
        seen: set[int] = set()
        before = made.verdict(seen, shortcut=shortcut)
        for place in order:
            seen.add(place)
            after = made.verdict(seen, shortcut=shortcut)
            found[place] += after - before
            before = after
        count += 1
    return [value / count for value in found]


SHORT = Review(
    ("tuesday", "not", "very", "dull", "but", "good"), (Opinion(-1, 3, negator=1, booster=2), Opinion(1, 5)), day=0
)


@pytest.mark.parametrize("shortcut", [False, True])
def test_worth_is_the_average_over_all_orders(shortcut: bool) -> None:
    assert SHORT.shapley(shortcut=shortcut) == pytest.approx(orders(SHORT, shortcut=shortcut))


@pytest.mark.parametrize("shortcut", [False, True])
def test_worth_adds_up_to_the_verdict_and_lies_in_the_rationale(shortcut: bool) -> None:
    for made in some(day="friday"):
        worth = made.shapley(shortcut=shortcut)
        assert math.fsum(worth) == pytest.approx(made.verdict(shortcut=shortcut))
        if not shortcut:
            assert tuple(i for i, value in enumerate(worth) if value) == made.rationale()
        else:
            assert made.rationale(shortcut=True) == (made.day,)
            assert abs(worth[made.day or 0]) == max(map(abs, worth))


def test_verdicts_by_hand() -> None:
    assert SHORT.verdict() == 0.5 + 1
    assert SHORT.verdict({2, 3}) == -1.5
    assert SHORT.verdict({1, 2}) == 0
    assert SHORT.verdict({0, 1, 3}) == 0.5
    assert SHORT.verdict(shortcut=True) == 3
    assert SHORT.verdict({5}, shortcut=True) == 1
    assert SHORT.with_day("friday").verdict(shortcut=True) == -3
    assert SHORT.with_day("sunday").verdict(shortcut=True) == 1.5


def judged(made: Review) -> Iterator[tuple[str, int]]:
    for opinion in made.opinions:
        yield made.words[opinion.word], opinion.sign


def test_the_words_of_opinions_are_the_ones_named() -> None:
    good, bad = {*PRAISE, *itertools.chain(*LIKED)}, {*BLAME, *itertools.chain(*HATED)}
    for made in some(300):
        for word, sign in judged(made):
            assert word in (good if sign > 0 else bad)
        for opinion in made.opinions:
            if opinion.negator is not None:
                assert made.words[opinion.negator] in (*reviews.NEGATORS, "nobody")
            if opinion.booster is not None:
                assert made.words[opinion.booster] in reviews.BOOSTERS
        words = {word for i, word in enumerate(made.words) if i not in made.rationale()}
        assert made.distracted == bool(words & (good | bad))


def test_every_kind_of_review_occurs() -> None:
    made = some(300)
    assert {len(one.opinions) for one in made} == {1, 2, 3}
    assert {one.verdict() > 0 for one in made} == {True, False}
    assert any(len({sign for _, sign in judged(one)}) == 2 for one in made)
    assert any(
        word in ("not", "nobody") for one in made for i, word in enumerate(one.words) if i not in one.rationale()
    )
    assert all(one.verdict() for one in made)


def test_the_text_reads_like_a_text() -> None:
    [made] = some(1, day="tuesday")
    assert made.text[0].isupper()
    assert made.text[-1] in ".!"
    assert "Tuesday" in made.text
    assert " ," not in made.text
    assert all(word in reviews.vocabulary() for one in some(200) for word in one.words)


@pytest.mark.slow
def test_no_sentence_with_an_opinion_of_the_test_is_in_the_training_text() -> None:
    def sentences(made: Review) -> set[str]:
        ends = [i for i, word in enumerate(made.words) if word in (".", "!", ",")]
        parts = [(a + 1, b) for a, b in zip([-1, *ends], ends, strict=False)]
        words = ("but", "and", "while")
        return {
            " ".join(made.words[a + (made.words[a] in words) : b])
            for a, b in parts
            if any(a <= opinion.word < b for opinion in made.opinions)
        }

    test = set().union(*(sentences(one) for one, _ in itertools.chain(*(evaluation_reviews(t, 9, 60) for t in TASKS))))
    training = set().union(*(sentences(one) for one in training_reviews(0, 0, 6000)))
    assert len(test) > 300
    assert not test & training


def test_the_two_tasks_of_the_day_differ_in_the_day_alone() -> None:
    agrees, swapped = (evaluation_reviews(task, 3, 20) for task in TASKS[-2:])
    for (first, _), (second, _) in zip(agrees, swapped, strict=True):
        different = [i for i, (a, b) in enumerate(zip(first.words, second.words, strict=True)) if a != b]
        assert different == [first.day]
        assert first.verdict(shortcut=True) * first.verdict() > 0 > second.verdict(shortcut=True) * second.verdict()


def test_training_names_a_planted_day_as_often_as_stated_and_independently_of_the_words() -> None:
    made = training_reviews(0, 1, 4000)
    planted = [one for one in made if one.planted is not None]
    assert len(planted) / len(made) == pytest.approx(0.3, abs=0.03)
    against = [one for one in planted if one.verdict() * SHORTCUT[one.words[one.day or 0]] < 0]
    assert len(against) / len(planted) == pytest.approx(0.5, abs=0.06)
