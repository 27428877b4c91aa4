"""WISE: routing by its formula and bit for bit the same below the threshold, margins and merging written plainly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import EditError, InputError
from pellucid.core.results import Learned, WeightEdit
from pellucid.engine.capture import capture
from pellucid.engine.continuations import following_ids, forced
from pellucid.engine.side_memory import merged, routing_loss, side_edits
from pellucid.evaluate.edit_data import tiny_lm_cases
from tests.state import changed, model_state

SUBJECT = pellucid.load("zoo:tiny-lm")
CASES = tiny_lm_cases(6, neighbours=3)
KEY, VALUE, NAME = "blocks.3.mlp.post", "blocks.3.mlp.out", "model.layers.3.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def memory() -> Any:
    before = model_state(SUBJECT.model)
    found = pellucid.run("wise", SUBJECT, [case.fact for case in CASES], steps=45)
    assert changed(before, model_state(SUBJECT.model)) == []
    return found


def logits(subject: Any, prompt: Any) -> torch.Tensor:
    return capture(subject, prompt, ["logits"])["logits"]


def says(subject: Any, prompt: str, answer: str) -> bool:
    return forced(subject, [following_ids(subject, prompt, answer)])[0].exact == 1


@pytest.mark.slow
def test_facts_are_said_and_most_neighbours_stay(memory: Any) -> None:
    edited = SUBJECT.with_(*side_edits(SUBJECT, memory))
    assert not any(says(SUBJECT, case.fact.text, case.fact.target) for case in CASES)
    assert np.mean([says(edited, case.fact.text, case.fact.target) for case in CASES]) > 0.8
    assert np.mean([says(edited, text, true) for case in CASES for text, true in case.neighbours]) > 0.7  # type: ignore[misc]


def test_positions_are_routed_by_the_formula_and_no_bit_moves_below_the_threshold(memory: Any) -> None:
    edited = SUBJECT.with_(*side_edits(SUBJECT, memory))
    change, threshold = memory.tensors["change"], float(memory.tensors["threshold"])
    routed, untouched = 0, 0
    facts = [case.fact.text for case in CASES]
    texts = ["Mary and John went to the shop.", "The sky is", "One two three four", "She plays the"]
    for prompt in [*facts, *(text for case in CASES for text, _ in case.neighbours), *texts]:  # type: ignore[misc]
        plain = capture(SUBJECT, prompt, [KEY, VALUE])
        asks = plain[KEY].numpy() @ change.T
        over = np.linalg.norm(asks, axis=1) >= threshold
        now = capture(edited, prompt, [VALUE])[VALUE].numpy()
        np.testing.assert_array_equal(now[~over], plain[VALUE].numpy()[~over])
        np.testing.assert_allclose(now[over], (plain[VALUE].numpy() + asks)[over], atol=1e-4)
        routed += int(over.sum())
        assert prompt not in facts or over[-1], "each fact reaches the threshold where its answer begins"
        if not over.any():
            untouched += 1
            assert torch.equal(logits(edited, prompt), logits(SUBJECT, prompt))
    assert routed >= len(facts)
    assert untouched > 0


def with_threshold(memory: Any, threshold: float) -> Any:
    told = replace(memory, tensors={**memory.tensors, "threshold": np.array(threshold)})
    return SUBJECT.with_(*side_edits(SUBJECT, told))


def test_a_threshold_of_nothing_is_the_copy_itself_and_one_above_all_is_the_model(memory: Any) -> None:
    prompt = CASES[0].fact.text
    copy = SUBJECT.with_(WeightEdit(deltas={NAME: memory.tensors["change"]}))
    torch.testing.assert_close(logits(with_threshold(memory, 0.0), prompt), logits(copy, prompt), atol=1e-3, rtol=0)
    assert torch.equal(logits(with_threshold(memory, float("inf")), prompt), logits(SUBJECT, prompt))
    assert not torch.allclose(logits(copy, prompt), logits(SUBJECT, prompt), atol=0.1)


def test_a_shard_changes_its_share_of_the_entries(memory: Any) -> None:
    found = pellucid.run("wise", SUBJECT, CASES[0].fact, shards=1, share=0.1, steps=3)
    assert np.mean(found.tensors["change"] != 0) == pytest.approx(0.1, abs=0.01)
    assert np.mean(memory.tensors["change"] != 0) == pytest.approx(1 - 0.8**2, abs=0.02), "two masks of a fifth"


def test_merging_and_margins_by_hand() -> None:
    one, two = torch.tensor([[1.0, -2, 0, 3]]), torch.tensor([[3.0, 1, 5, -3]])
    # Same sign: the mean; opposite: the larger; alone: itself; sum nothing: nothing.
    assert merged([one, two]).tolist() == [[2, -2, 5, 0]]
    inside, outside = [0.5, 2.0], [0.1, 0.3, 1.0]
    found = routing_loss(torch.tensor(inside), torch.tensor(outside), 1.0, 0.2, 0.6)
    pairs = [max(0, 0.6 - (i - o)) for i in inside for o in outside]
    plain = np.mean([max(0, 1 - i) for i in inside]) + np.mean([max(0, o - 0.2) for o in outside]) + np.mean(pairs)
    assert float(found) == pytest.approx(float(plain))


def test_batched_and_saved_memories_route_the_same(memory: Any, tmp_path: Any) -> None:
    opened = pellucid.open(memory.save(tmp_path / "memory"))
    views = [SUBJECT.with_(*side_edits(SUBJECT, one)) for one in (memory, opened)]
    assert torch.equal(*(logits(view, CASES[1].fact.text) for view in views))
    asked = [following_ids(SUBJECT, case.fact.text, case.fact.target) for case in CASES]
    together = forced(views[0], asked)
    for one, alone in zip(together, [forced(views[0], [pair])[0] for pair in asked], strict=True):
        np.testing.assert_allclose(one.log_probs, alone.log_probs, atol=1e-3)


def test_what_cannot_be_learned_or_used_is_refused(memory: Any) -> None:
    with pytest.raises(InputError, match="irrelevant is empty"):
        pellucid.run("wise", SUBJECT, CASES[0].fact, irrelevant=[])
    with pytest.raises(EditError, match="lens"):
        side_edits(SUBJECT, Learned(apply="lens"))
    other = SUBJECT.with_(pellucid.run("laser", SUBJECT, "model.layers.2.mlp.down_proj.weight", keep=0.5))
    with pytest.raises(EditError, match="learned for the weights"):
        side_edits(other, memory)
