"""The study of a change: what its table holds against the metrics themselves, what comes back, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import CapabilityError, InputError
from pellucid.core.results import Explanation, Scores, Table, WeightEdit
from pellucid.engine.continuations import following_ids, forced
from pellucid.evaluate.edit_data import tiny_lm_cases
from pellucid.evaluate.side_effects import side_effects
from pellucid.methods.editing.rome import rome
from pellucid.studies._editing_story import Edited, fingerprint, judged, reverted
from pellucid.studies._steering_story import BLAME, PRAISE, reviews
from pellucid.studies.locate_change_prove import OTHERS, locate_change_prove
from tests.tiny import TINY

CASES = tiny_lm_cases(2 + OTHERS, seed=20)[:2]
TEXTS = ["We met two friends at the market.", "The keys to the old house are on the table."]
SETTINGS: dict[str, Any] = {
    "rome": {"steps": 6, "layer": 1, "token": "last", "texts": TEXTS, "prefixes": [], "neutral": TEXTS},
    "grace": {"steps": 8},
}


@pytest.fixture(scope="module")
def subject() -> pellucid.Subject:
    return pellucid.load("zoo:tiny-lm")


@pytest.fixture(scope="module")
def found(subject: pellucid.Subject) -> Explanation:
    return locate_change_prove(
        subject, pairs=2, editors=["rome", "grace"], settings=SETTINGS, alone=1, neutral=TEXTS, reviews=3, tokens=2
    )


def table(found: Explanation, start: str) -> Table:
    return next(one for one in found.results if isinstance(one, Table) and one.title.startswith(start))


@pytest.mark.slow
def test_the_table_holds_what_was_measured(subject: pellucid.Subject, found: Explanation) -> None:
    rows = table(found, "The same facts")
    assert [row[0] for row in rows.rows] == ["none", "rome", "grace"]
    before, written, beside = ({name: row[i] for i, name in enumerate(rows.columns)} for row in rows.rows)
    facts = [case.fact for case in CASES]
    edited = subject.with_(rome(subject, facts, seed=20, **SETTINGS["rome"]))
    preferred = []
    for fact in facts:
        new, old = forced(edited, [following_ids(edited, fact.text, text) for text in (fact.target, fact.true)])
        preferred.append(new.log_probs.mean() > old.log_probs.mean())
    assert written["efficacy"] == np.mean(preferred)
    moved = side_effects(subject, edited, TEXTS).values
    assert written["KL on neutral text (nats)"] == pytest.approx(moved["value"], rel=0.01)
    assert written["perplexity before"] == before["perplexity after"] == pytest.approx(moved["perplexity_before"], 0.01)
    assert (before["efficacy"], before["KL on neutral text (nats)"]) == (0, 0)
    assert (written["layers"], written["rank"], beside["layers"]) == ("1", 2, "beside the weights")
    assert {written["reverted bit for bit"], beside["reverted bit for bit"]} == {"yes"}
    single = subject.with_(rome(subject, facts[0], seed=20, **SETTINGS["rome"]))
    one = table(found, "One fact at a time")
    row = dict(zip(one.columns, one.rows[0], strict=True))
    assert row["KL on neutral text (nats)"] == pytest.approx(side_effects(subject, single, TEXTS).values["value"], 0.01)


@pytest.mark.slow
def test_what_is_steered_and_explained_again(found: Explanation) -> None:
    pictures = {one.title: one for one in found.results}
    doses = pictures["Steered: Behaviour"]
    assert isinstance(doses, Scores)
    steered, chance = doses.values
    assert steered[-1] - steered[0] > abs(chance[-1] - chance[0])
    np.testing.assert_allclose(steered[len(steered) // 2], chance[len(chance) // 2])  # coefficient 0 is the identity
    left = {row[0]: row for row in table(found, "Taken out").rows}
    assert left["nothing"][1] == 1
    assert left["nothing"][-1] == 0
    assert left["the directions of all layers"][4] < left["random directions, in all layers"][4]
    both = [one for one in found.results if one.provenance.method == "integrated_gradients"]
    assert [one.title.split(":")[0] for one in both] == ["Before the edit", "After the edit"]
    assert isinstance(both[0], Scores)
    assert both[0].values.sum() < 0
    assert [one.name for one in found.evidence][:4] == ["what the model knew", "reverted bit for bit", "rome", "grace"]


def test_an_edit_that_leaves_bits_behind_is_seen(subject: pellucid.Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    name = next(name for name, one in subject.model.named_parameters() if name.endswith("down_proj.weight"))
    shape = tuple(dict(subject.model.named_parameters())[name].shape)
    checks = judged(subject, subject, CASES[:1], TEXTS, 0, 0)
    before = fingerprint(subject.model)

    def edit(size: float) -> Edited:
        delta = np.zeros(shape, np.float32)
        delta[0, 0] = size
        return Edited("by hand", subject, WeightEdit(deltas={name: delta}), 0.0, checks)

    assert reverted(subject, edit(1.0), before)
    assert not reverted(subject, edit(0.0), before), "an edit that changes nothing proves nothing"
    parameter = dict(subject.model.named_parameters())[name]
    monkeypatch.setattr("pellucid.models.weight_edits.revert_weights", lambda subject, originals: None)
    kept = parameter.detach().clone()
    try:
        assert not reverted(subject, edit(1.0), before)
    finally:
        with torch.no_grad():
            parameter.copy_(kept)
    assert fingerprint(subject.model) == before


def test_reviews_are_new_and_said_to_be_right() -> None:
    read, judged_on = reviews(6, False, 0), reviews(6, True, 0)
    assert all(len(set(one)) == 6 for one in (*read, *judged_on))
    assert not {*read[0], *read[1]} & {*judged_on[0], *judged_on[1]}
    assert reviews(6, True, 0) == judged_on != reviews(6, True, 1)
    subject = pellucid.load("zoo:tiny-lm")
    for prompts, answer in zip(judged_on, (PRAISE, BLAME), strict=True):
        assert all(one.exact for one in forced(subject, [following_ids(subject, text, answer) for text in prompts]))


def test_what_cannot_be_told(subject: pellucid.Subject) -> None:
    facts = [CASES[0].fact]
    with pytest.raises(InputError, match="did you mean 'rome'"):
        locate_change_prove(subject, editors=["romes"])
    with pytest.raises(InputError, match="Settings were given for memit"):
        locate_change_prove(subject, editors=["rome"], settings={"memit": {"steps": 1}})
    with pytest.raises(InputError, match=r"None of the editors .* trains on facts other than those"):
        locate_change_prove(subject, facts=facts, editors=["mend"], neutral=TEXTS)
    with pytest.raises(InputError, match="neither an edit of weights nor a memory"):
        locate_change_prove(subject, facts=facts, editors=["in_context_editing"], neutral=TEXTS)
    with pytest.raises(CapabilityError, match="needs generate"):
        locate_change_prove(pellucid.load(TINY["bert-classifier"]()))
