"""Greedy generation as Hugging Face does it; edits keep to their phase in generation and teacher forcing alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid import Edit, Subject, Target
from pellucid.core.errors import InputError
from pellucid.engine.generation import greedy, next_token_distribution
from pellucid.engine.question import ask
from pellucid.engine.scoring import score
from pellucid.engine.variants import whole
from tests import plain
from tests.tiny import TINY

PROMPT = [11, 42, 7, 23]


def load(name: str, ends: int | list[int] | None = None) -> Subject:
    model = TINY[name]().double()
    model.generation_config.eos_token_id = ends
    model.generation_config.pad_token_id = 0
    return pellucid.load(model)


def native(model: Any, prompt: list[int], length: int) -> list[int]:
    """Return what Hugging Face generates greedily, the prompt left out."""
    ids = torch.tensor([prompt])
    out = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=length, do_sample=False, num_beams=1
    )[0]
    start = 1 if model.config.is_encoder_decoder else len(prompt)
    return [int(token) for token in out[start:]]


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3", "t5", "bart"])
def test_greedy_is_what_hugging_face_generates(name: str) -> None:
    subject = load(name)
    found = greedy(subject, subject.encode(PROMPT), 8)
    assert list(found) == native(subject.model, PROMPT, 8)
    assert len(found) == 8


def test_generation_ends_before_any_of_several_end_tokens() -> None:
    free = load("llama")
    text = greedy(free, free.encode(PROMPT), 8)
    last = next(i for i, token in enumerate(text) if token not in text[:i] and i > 1)
    subject = load("llama", [99, text[last]])
    assert greedy(subject, subject.encode(PROMPT), 8) == text[:last]
    assert native(subject.model, PROMPT, 8)[:last] == list(text[:last])
    first = load("llama", text[0])
    assert greedy(first, first.encode(PROMPT), 8) == (text[0],)  # an end at once is what there is to explain


def test_a_generated_target_is_the_continuation_given_by_its_ids() -> None:
    subject = load("llama")
    ids = greedy(subject, subject.encode(PROMPT), 3)
    made = pellucid.run("occlusion", subject, PROMPT, target=Target.generated(3))
    given = pellucid.run("occlusion", subject, PROMPT, target=Target.continuation(ids, each=True))
    np.testing.assert_array_equal(made.scores, given.scores)
    assert made.scores.shape == (4, 3)


def test_the_distribution_is_the_models() -> None:
    subject = load("llama")
    expected = plain.logits(subject.model, PROMPT).softmax(-1).topk(4)
    found = next_token_distribution(subject, subject.encode(PROMPT), top=4)
    assert [token for token, _ in found] == expected.indices.tolist()
    np.testing.assert_allclose([p for _, p in found], expected.values, atol=1e-12)


def test_generation_over_the_limit_is_refused() -> None:
    for name, prompt in (("gpt2", [5] * 60), ("bart", [5] * 4)):
        subject = load(name)
        with pytest.raises(InputError, match="limit of 6"):
            greedy(subject, subject.encode(prompt), 70)


SHIFT = torch.randn(32, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def shifted(ids: list[int], edit: Edit, prompt: int) -> list[int]:
    """The positions an edit of one phase acts on, from what its documentation says."""
    after = range(prompt + edit.first_step, len(ids))
    return {"all": list(range(len(ids))), "prompt": list(range(prompt)), "generation": list(after)}[edit.phase]


def edited_logits(model: Any, ids: list[int], edit: Edit, prompt: int) -> torch.Tensor:
    """Return the logits [positions, vocabulary] of a plain forward in which a block's output is shifted by hand."""
    places = shifted(ids, edit, prompt)

    def by_hand(module: Any, args: Any, output: Any) -> Any:
        value = output[0] if isinstance(output, tuple) else output
        value = value.clone()
        value[0, places] += SHIFT
        return (value, *output[1:]) if isinstance(output, tuple) else value

    handle = model.model.layers[0].register_forward_hook(by_hand)
    try:
        with torch.no_grad():
            found: torch.Tensor = model(input_ids=torch.tensor([ids])).logits[0]
    finally:
        handle.remove()
    return found


@pytest.mark.parametrize(("phase", "first_step"), [("all", 0), ("prompt", 0), ("generation", 0), ("generation", 2)])
def test_edits_keep_to_their_phase_in_generation_and_in_teacher_forcing(phase: str, first_step: int) -> None:
    edit = Edit("blocks.0.resid_post", "add", SHIFT, phase=phase, first_step=first_step)
    subject = load("llama").with_(edit)
    expected: list[int] = []
    for _ in range(6):  # generation by hand: one whole forward per token
        expected.append(int(edited_logits(subject.model, PROMPT + expected, edit, 4)[-1].argmax()))
    found = greedy(subject, subject.encode(PROMPT), 6)
    assert list(found) == expected

    forced = edited_logits(subject.model, PROMPT + expected[:-1], edit, 4)[3:].log_softmax(-1)
    by_hand = [float(row[token]) for row, token in zip(forced, expected, strict=True)]
    question = ask(subject, PROMPT, target=Target.continuation(expected, each=True))
    scored = score(subject, question.tokens, question.readout, [whole(question.tokens)])[0]
    np.testing.assert_allclose(scored, by_hand, atol=1e-9)
    for row, token in zip(forced, expected, strict=True):
        assert (
            int(row.argmax()) == token
        )  # what was generated step by step is most likely at every step of the forced run, too


def test_the_phases_differ() -> None:
    """Were phases ignored, the test above could still pass for a shift without effect."""
    base = load("llama")
    target = Target.continuation([17, 20, 33], each=True)
    rows = []
    for phase, first_step in (("all", 0), ("prompt", 0), ("generation", 0), ("generation", 2)):
        subject = base.with_(Edit("blocks.0.resid_post", "add", SHIFT, phase=phase, first_step=first_step))
        question = ask(subject, PROMPT, target=target)
        rows.append(score(subject, question.tokens, question.readout, [whole(question.tokens)])[0])
    question = ask(base, PROMPT, target=target)
    plainly = score(base, question.tokens, question.readout, [whole(question.tokens)])[0]
    everywhere, prompt, generation, late = rows
    assert everywhere[0] == pytest.approx(
        prompt[0], abs=1e-12
    )  # before the first generated token only the prompt is there
    assert generation[0] == pytest.approx(plainly[0], abs=1e-12)
    np.testing.assert_allclose(late, plainly, atol=1e-12)  # two tokens are fed, so the third step is never edited
    assert abs(generation[1] - plainly[1]) > 1e-3
    assert abs(everywhere[1] - prompt[1]) > 1e-3


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_an_edit_of_the_decoder_shapes_generation(name: str) -> None:
    base = load(name)
    edit = Edit("decoder.blocks.0.resid_post", "add", 3 * SHIFT)
    subject = base.with_(edit)
    found = greedy(subject, subject.encode(PROMPT), 5)
    question = ask(subject, PROMPT, target=Target.continuation(found, each=True))
    values = score(subject, question.tokens, question.readout, [whole(question.tokens)])[0]
    for k, token in enumerate(found):
        rivals = [t for t in (token, (token + 1) % 100, 7) if t != token]
        for rival in rivals:
            other = ask(subject, PROMPT, target=Target.continuation([*found[:k], rival], each=True))
            assert score(subject, other.tokens, other.readout, [whole(other.tokens)])[0][k] <= values[k]
    assert found != greedy(base, base.encode(PROMPT), 5)
