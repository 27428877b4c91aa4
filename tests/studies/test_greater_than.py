"""The study of greater-than: its years and pairs, what the target counts, and tiny-lm."""

from __future__ import annotations

import pytest
import torch

import pellucid
from pellucid.core.errors import InputError
from pellucid.core.results import Explanation
from pellucid.studies._trials import Trial, difference_of_probabilities
from pellucid.studies.greater_than import SPANS, _trials, _years, greater_than
from pellucid.zoo import lexicon


@pytest.fixture(scope="module")
def subject() -> pellucid.Subject:
    return pellucid.load("zoo:tiny-lm")


@pytest.fixture(scope="module")
def found(subject: pellucid.Subject) -> Explanation:
    return greater_than(subject, pairs=2, templates=SPANS[1:])


def test_years_are_two_tokens_and_pairs_differ_at_the_year(subject: pellucid.Subject) -> None:
    years, centuries = _years(subject)
    assert len(years) == 100
    trials = _trials(subject, years, centuries, SPANS, lexicon.EVENTS, 8, 0)
    half = {token: year for year, token in years.items()}
    for trial in trials:
        clean, corrupt = subject.encode(trial.clean).ids, subject.encode(trial.corrupt).ids
        assert [i for i, (a, b) in enumerate(zip(clean, corrupt, strict=True)) if a != b] == [trial.places["year"]]
        assert half[corrupt[trial.places["year"]]] == "01"
        start = half[clean[trial.places["year"]]]
        assert {half[token] for token in trial.right} == {year for year in years if int(year) > int(start)}
        assert {half[token] for token in trial.wrong} == {year for year in years if int(year) <= int(start)}


def test_the_target_is_the_difference_of_probabilities() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0], [3.0, 2.0, 1.0, 0.0]])
    target = difference_of_probabilities(Trial("", "", (2, 3), (1,)))
    assert callable(target.what)
    shares = logits.softmax(-1)
    torch.testing.assert_close(target.what(logits), shares[:, 2] + shares[:, 3] - shares[:, 1])


def test_the_study_ends_in_pictures_and_checks(found: Explanation) -> None:
    titles = [result.title for result in found.results]
    assert titles[0] == "What the model says, by the year that the event began"
    assert found.evidence[0].values["accuracy"] > 0.9
    assert found.evidence[1].values["rank_correlation"] > 0.5


def test_a_model_that_cannot_is_told_so(subject: pellucid.Subject) -> None:
    found = greater_than(subject.with_(pellucid.Edit("blocks.0.attn.z", "zero")))
    assert found.results == ()
    assert "cannot do this task" in found.notes[0]


def test_bad_templates_and_tokenizers_are_refused(subject: pellucid.Subject) -> None:
    with pytest.raises(InputError, match=r"differ at \d+ tokens, not at the year alone"):
        greater_than(subject, templates=["The {event} of {year} and {year} in {century}"])
    with pytest.raises(InputError, match=r"splits at most 0 of 100 years .* use a model whose tokenizer does"):
        greater_than(pellucid.load("zoo:truth/induction"))
