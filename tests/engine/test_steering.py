"""Steering: coefficient zero, caches, padding, batches and Hugging Face's own generation; wrong vectors refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import CapabilityError, EditError, InputError
from pellucid.core.results import Learned
from pellucid.engine.generation import greedy
from pellucid.engine.live_edits import live
from pellucid.engine.steering import Steering
from pellucid.methods.steering.mean_difference import mean_difference
from pellucid.models.batch import Row
from pellucid.models.forward import forward
from tests import plain
from tests.tiny import TINY

POSITIVE, NEGATIVE = [[11, 42, 7, 5], [23, 64, 5], [3, 9]], [[8, 1, 2, 77], [50, 51, 52], [33, 17]]
WAYS = ["add", "ablate", "clamp", "cap"]


@pytest.fixture(scope="module")
def subject() -> pellucid.Subject:
    """Load a tiny random decoder once."""
    return pellucid.load(plain.tiny("llama"))


@pytest.fixture(scope="module")
def learned(subject: pellucid.Subject) -> Learned:
    """Read a direction of it."""
    return mean_difference(subject, POSITIVE, NEGATIVE)


def logits(subject: pellucid.Subject, ids: list[int], prompt: int | None = None) -> torch.Tensor:
    """Return the logits of one text at every position."""
    return forward(subject, [Row(tuple(ids), prompt_length=prompt)]).logits[0]


def states(model: Any, ids: list[int]) -> torch.Tensor:
    """Return the native model's last logits."""
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=torch.tensor([ids])).logits[0]
    return found


@pytest.mark.parametrize("way", WAYS)
def test_coefficient_zero_is_the_identity(subject: pellucid.Subject, learned: Learned, way: Any) -> None:
    none = Steering(learned, 0.0, operation=way, threshold=3.0)
    steered = subject.with_(*none.edits(subject))
    assert torch.equal(logits(steered, plain.IDS), logits(subject, plain.IDS))


@pytest.mark.parametrize("way", WAYS)
def test_each_operation_by_hand(subject: pellucid.Subject, learned: Learned, way: Any) -> None:
    steering = Steering(learned, 0.7, operation=way, layers=[0], threshold=1.7, positions=[1, -1])
    steered = subject.with_(*steering.edits(subject))
    direction = torch.as_tensor(learned.tensors["directions"][0])
    scale = float(learned.tensors["scales"][0])

    def hook(module: Any, args: Any, output: Any) -> Any:
        value = (output[0] if isinstance(output, tuple) else output).clone()
        for p in (1, len(plain.IDS) - 1):
            h = value[0, p].clone()
            shadow = h @ direction
            value[0, p] = {
                "add": h + 0.7 * scale * direction,
                "ablate": h - 0.7 * shadow * direction,
                "clamp": h + 0.7 * (1.7 - shadow) * direction,
                "cap": h - 0.7 * torch.minimum(shadow - 1.7, torch.zeros(())) * direction,
            }[way]
        return (value, *output[1:]) if isinstance(output, tuple) else value

    model = plain.tiny("llama")
    handle = model.model.layers[0].register_forward_hook(hook)
    wanted = states(model, plain.IDS)
    handle.remove()
    np.testing.assert_allclose(logits(steered, plain.IDS), wanted, atol=1e-9)
    assert (wanted - states(model, plain.IDS)).abs().max() > 1e-5


@pytest.mark.parametrize("name", ["gpt2", "llama", "neox"])
@pytest.mark.parametrize("phase", ["all", "prompt", "generation"])
def test_generate_of_hugging_face_equals_ours_with_and_without_cache(name: str, phase: Any) -> None:
    subject = pellucid.load(plain.tiny(name if name in TINY else "gpt2"))
    learned = mean_difference(subject, POSITIVE, NEGATIVE)
    first = 1 if phase == "generation" else 0
    steering = Steering(learned, 4.0, layers=[0, 1], phase=phase, first_step=first)
    steered = subject.with_(*steering.edits(subject))
    wanted = [greedy(steered, subject.encode(prompt), 6) for prompt in (POSITIVE[0], POSITIVE[1])]
    padded = torch.tensor([POSITIVE[0], [0, *POSITIVE[1]]])
    mask = torch.tensor([[1, 1, 1, 1], [0, 1, 1, 1]])
    options: Any = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    for cached in (True, False):
        with live(steered, prompt_tokens=4) as model:
            found = model.generate(input_ids=padded, attention_mask=mask, use_cache=cached, **options)
        assert [tuple(row[4:].tolist()) for row in found] == wanted
    plainly = [greedy(subject, subject.encode(prompt), 6) for prompt in (POSITIVE[0], POSITIVE[1])]
    assert wanted != plainly


def test_cached_steps_have_the_logits_of_the_whole_run(subject: pellucid.Subject, learned: Learned) -> None:
    ids = [11, 42, 7, 23, 64, 5]
    steering = Steering(learned, 2.0, layers=[0], positions=[-1, 1, 4], operation="add")
    capped = Steering(learned, 1.0, layers=[1], operation="cap", threshold=1.0, phase="generation")
    steered = subject.with_(*steering.edits(subject), *capped.edits(subject))
    wanted = logits(steered, ids, prompt=3)
    with live(steered) as model, torch.no_grad():
        output = model(input_ids=torch.tensor([ids[:3]]), use_cache=True)
        found = [output.logits[0]]
        for token in ids[3:]:
            output = model(input_ids=torch.tensor([[token]]), past_key_values=output.past_key_values, use_cache=True)
            found.append(output.logits[0])
    np.testing.assert_allclose(torch.cat(found), wanted, atol=1e-9)
    assert (wanted - logits(subject, ids)).abs().max() > 1e-3


def test_batched_and_left_padded_equal_single(subject: pellucid.Subject, learned: Learned) -> None:
    steered = subject.with_(*Steering(learned, 2.0, positions=[-1, 0]).edits(subject))
    rows = [Row(tuple(ids)) for ids in (*POSITIVE, *NEGATIVE)]
    alone = [forward(steered, [row]).logits[0] for row in rows]
    for padding in ("right", "left"):
        together = forward(steered, rows, padding=padding).logits  # type: ignore[arg-type]
        for i, row in enumerate(rows):
            np.testing.assert_allclose(together[i, : len(row.ids)], alone[i], atol=1e-9)
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
    with live(steered) as model, torch.no_grad():
        found = model(input_ids=torch.tensor([POSITIVE[0], [0, 0, *POSITIVE[2]]]), attention_mask=mask).logits
    np.testing.assert_allclose(found[0], alone[0], atol=1e-9)
    np.testing.assert_allclose(found[1, 2:], alone[2], atol=1e-9)


def test_the_live_model_is_as_before_after_an_error(subject: pellucid.Subject, learned: Learned) -> None:
    before = states(subject.model, plain.IDS)
    with pytest.raises(RuntimeError, match="stop"), live(subject.with_(*Steering(learned).edits(subject))):
        raise RuntimeError("stop")
    assert torch.equal(states(subject.model, plain.IDS), before)
    with pytest.raises(CapabilityError, match="need a decoder"), live(pellucid.load(TINY["bert"]())):
        pass


def test_saved_with_its_evidence_and_opened_again(subject: pellucid.Subject, learned: Learned, tmp_path: Path) -> None:
    condition = dataclasses.replace(learned, settings={**learned.settings, "layer": 0, "threshold": 0.1})
    steering = Steering(learned, 1.5, layers=[1], positions=[-1], phase="prompt", condition=condition)
    steering.save(tmp_path / "s")
    found = Steering.open(tmp_path / "s")
    assert found.learned.evidence == learned.evidence
    assert found.learned.provenance.weights_hash == subject.weights_hash()
    assert (found.coefficient, list(found.layers or ()), found.phase) == (1.5, [1], "prompt")
    for one in (steering, found):
        assert [edit.describe() for edit in one.edits(subject)] == [edit.describe() for edit in steering.edits(subject)]
    both = [logits(subject.with_(*one.edits(subject)), plain.IDS) for one in (steering, found)]
    np.testing.assert_allclose(both[0], both[1], atol=1e-12)


def test_a_condition_steers_the_prompts_that_speak_in_it(subject: pellucid.Subject, learned: Learned) -> None:
    rows = [Row(tuple(ids), prompt_length=len(ids)) for ids in (*POSITIVE, *NEGATIVE)]
    direction = torch.as_tensor(learned.tensors["directions"][0])
    found = forward(subject, rows, capture=["blocks.0.resid_post"])
    means = [found.row("blocks.0.resid_post", i).mean(0) for i in range(len(rows))]
    cosines = torch.stack([torch.nn.functional.cosine_similarity(m, direction, dim=0) for m in means])
    threshold = float(cosines.median() + 1e-6)
    condition = dataclasses.replace(learned, settings={**learned.settings, "layer": 0, "threshold": threshold})
    steering = Steering(learned, 3.0, layers=[0, 1])
    steered = subject.with_(*steering.edits(subject))
    some = subject.with_(*dataclasses.replace(steering, condition=condition).edits(subject))
    both, always, never = (forward(one, rows).logits for one in (some, steered, subject))
    for i, cosine in enumerate(cosines):
        wanted = always if cosine > threshold else never
        np.testing.assert_allclose(both[i, : len(rows[i].ids)], wanted[i, : len(rows[i].ids)], atol=1e-12)
    assert 0 < int((cosines > threshold).sum()) < len(rows)
    ids = [list(row.ids) for row in rows[:2]]
    for one in ids:
        with live(some) as model, torch.no_grad():
            out = model.generate(input_ids=torch.tensor([one]), max_new_tokens=4, do_sample=False, pad_token_id=0,
                                 attention_mask=torch.ones(1, len(one)), eos_token_id=None)  # fmt: skip
        assert tuple(out[0, len(one) :].tolist()) == greedy(some, subject.encode(one), 4)


def test_wrong_vectors_are_refused(subject: pellucid.Subject, learned: Learned) -> None:
    other = pellucid.load(TINY["gpt2"]())
    with pytest.raises(EditError, match="A vector from another model"):
        Steering(learned).edits(other)
    wide = dataclasses.replace(learned, tensors={**learned.tensors, "directions": np.ones((2, 7))})
    with pytest.raises(EditError, match="it has 7 components"):
        Steering(wide).edits(subject)
    broken = dataclasses.replace(learned, tensors={**learned.tensors, "directions": np.full((2, 32), np.nan)})
    with pytest.raises(EditError, match="NaN or infinite"):
        Steering(broken)
    with pytest.raises(EditError, match="in the layers"):
        Steering(learned, layers=[5]).edits(subject)
    with pytest.raises(EditError, match="at a threshold"):
        Steering(learned, operation="cap").edits(subject)
    with pytest.raises(InputError, match="asked to erase"):
        Steering(learned, operation="erase")
    if other.model.config.hidden_size == subject.model.config.hidden_size:
        assert Steering(learned, transfer=True).edits(other)
