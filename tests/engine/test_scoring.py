"""Scores against Hugging Face alone: batches, padding, targets of every kind, measures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid import Subject, Target
from pellucid.core.results import Explanation
from pellucid.core.tokens import Tokens
from pellucid.engine.gradients import value_and_gradient
from pellucid.engine.question import ask
from pellucid.engine.scoring import score
from pellucid.engine.targets import resolve
from pellucid.engine.variants import Variant, whole
from pellucid.models.forward import Row, forward
from tests import plain
from tests.bad_input.small import encoder, encoder_tokenizer
from tests.tiny import TINY

DECODERS = ("llama", "neox-parallel", "gemma3", "mixtral")
PROMPTS = ([11, 42, 7, 23, 64, 5], [9, 8], [3], [31, 30, 29, 28, 27, 26, 25, 24, 23])


@cache
def subject_of(name: str) -> Subject:
    return pellucid.load(TINY[name]().double())


@cache
def with_words(kind: str) -> Subject:
    return pellucid.load(encoder(kind).double(), encoder_tokenizer())


def variants(prompts: Sequence[Sequence[int]]) -> list[Variant]:
    return [Variant(tuple(ids), tuple(range(len(ids)))) for ids in prompts]


def scores(subject: Subject, prompt: Any, **asked: Any) -> np.ndarray:
    """Return the scores of a prompt as it is: [targets]."""
    question = ask(subject, prompt, **asked)
    return score(subject, question.tokens, question.readout, [whole(question.tokens)])[0]


@pytest.mark.parametrize("name", DECODERS)
def test_a_batch_of_unequal_lengths_equals_plain_forwards_one_by_one(name: str) -> None:
    subject = subject_of(name)
    tokens = subject.encode(PROMPTS[0])
    found = score(subject, tokens, resolve(subject, tokens, plain.TARGET), variants(PROMPTS))
    expected = [[float(plain.logits(subject.model, ids)[plain.TARGET])] for ids in PROMPTS]
    np.testing.assert_allclose(found, expected, atol=1e-10)


@pytest.mark.parametrize("name", DECODERS)
def test_gradients_in_a_batch_equal_those_alone(name: str) -> None:
    subject = subject_of(name)
    tokens = subject.encode(PROMPTS[0])
    readout = resolve(subject, tokens, Target.continuation([5, 17, 40], each=True))
    points = torch.stack([plain.embeddings(subject.model, PROMPTS[0]) * scale for scale in (1.0, 0.5, -0.3)])
    values, gradients = value_and_gradient(subject, tokens, readout, points)
    for i, point in enumerate(points):
        one_value, one_gradient = value_and_gradient(subject, tokens, readout, point[None])
        torch.testing.assert_close(values[i : i + 1], one_value, atol=1e-10, rtol=0)
        torch.testing.assert_close(gradients[i : i + 1], one_gradient, atol=1e-10, rtol=0)


@pytest.mark.parametrize(
    "name",
    [*DECODERS, "gpt2", "opt", "bloom", "falcon-alibi", "mistral-sliding", "bert-masked-lm", "deberta-v2-masked-lm"],
)
def test_padding_on_the_left_equals_padding_on_the_right(name: str) -> None:
    """Classifiers are left out: their native heads read position 0, which is why rows are padded on the right."""
    alibi = name in (
        "bloom",
        "falcon-alibi",
    )  # their masks and slopes are for 32 bits: in 64, BLOOM's padded rows are NaN
    subject, close = (pellucid.load(TINY[name]()), 1e-5) if alibi else (subject_of(name), 1e-10)
    rows = [Row(tuple(ids)) for ids in PROMPTS]
    right, left = forward(subject, rows, padding="right"), forward(subject, rows, padding="left")
    for i, ids in enumerate(PROMPTS):
        alone = forward(subject, [rows[i]]).logits[0]
        size = len(ids) if alone.ndim == 2 else len(alone)
        torch.testing.assert_close(right.logits[i][:size], alone, atol=close, rtol=0)
        torch.testing.assert_close(left.logits[i][:size], alone, atol=close, rtol=0)


def test_equal_variants_are_run_once_and_answered_each() -> None:
    subject = subject_of("llama")
    tokens = subject.encode(PROMPTS[0])
    readout = resolve(subject, tokens, plain.TARGET)
    given = variants([PROMPTS[0], PROMPTS[1], PROMPTS[0], PROMPTS[1], PROMPTS[0]])
    with subject.recorded() as record:
        found = score(subject, tokens, readout, given)
    assert record.forwards == 2
    np.testing.assert_array_equal(found, found[[0, 1, 0, 1, 0]])
    assert found[0, 0] != found[1, 0]
    again = pellucid.run("occlusion", subject, [7, 7, 9], target=plain.TARGET, replacement=7)
    assert again.provenance.forwards == 2  # replacing a 7 by 7 is the prompt itself


def test_nothing_to_score() -> None:
    subject = subject_of("llama")
    tokens = subject.encode(PROMPTS[0])
    assert score(subject, tokens, resolve(subject, tokens, plain.TARGET), []).shape == (0, 1)


def teacher_forced(model: Any, prompt: Sequence[int], continuation: Sequence[int]) -> list[torch.Tensor]:
    """Return the logits before each token of the continuation, one plain forward each."""
    return [plain.logits(model, [*prompt, *continuation[:k]]) for k in range(len(continuation))]


def test_each_gives_one_column_per_target_token() -> None:
    subject, continuation = subject_of("llama"), [17, 20, 33]
    logits = teacher_forced(subject.model, PROMPTS[0], continuation)
    expected = [float(row.log_softmax(-1)[token]) for row, token in zip(logits, continuation, strict=True)]
    each = scores(subject, PROMPTS[0], target=Target.continuation(continuation, each=True))
    np.testing.assert_allclose(each, expected, atol=1e-10)
    total = scores(subject, PROMPTS[0], target=Target.continuation(continuation))
    np.testing.assert_allclose(total, [sum(expected)], atol=1e-10)
    matrix = pellucid.run("occlusion", subject, PROMPTS[0], target=Target.continuation(continuation, each=True))
    assert matrix.axes == ("unit", "target")
    for k, token in enumerate(continuation):
        prompt = [*PROMPTS[0], *continuation[:k]]
        spans = [(i, i + 1) for i in range(len(PROMPTS[0]))]
        single = pellucid.run("occlusion", subject, prompt, target=Target(token, measure="log_prob"), unit=spans)
        np.testing.assert_allclose(matrix.scores[:, k], single.scores, atol=1e-10)


def test_a_contrast_is_a_difference() -> None:
    subject, prompt = subject_of("gpt2"), PROMPTS[0]
    logits = plain.logits(subject.model, prompt)
    found = scores(subject, prompt, target=17, contrast=33)
    np.testing.assert_allclose(found, [float(logits[17] - logits[33])], atol=1e-10)
    for method in ("gradient_x_input", "occlusion", "integrated_gradients"):
        both = pellucid.run(method, subject, prompt, target=17, contrast=33).scores
        apart = [pellucid.run(method, subject, prompt, target=token).scores for token in (17, 33)]
        np.testing.assert_allclose(both, apart[0] - apart[1], atol=1e-9)


def test_measures_are_what_they_are_called() -> None:
    subject, prompt = subject_of("gemma3"), PROMPTS[0]
    logits = plain.logits(subject.model, prompt)
    probabilities = (logits.exp() / logits.exp().sum()).numpy()
    expected = {
        "logit": float(logits[17]),
        "prob": probabilities[17],
        "log_prob": np.log(probabilities[17]),
        "entropy": -(probabilities * np.log(probabilities)).sum(),
    }
    for measure, value in expected.items():
        found = scores(subject, prompt, target=Target(17, measure=measure))  # type: ignore[arg-type]
        np.testing.assert_allclose(found, [value], atol=1e-10, err_msg=measure)
    np.testing.assert_allclose(scores(subject, prompt, target=17), [expected["logit"]], atol=1e-10)


def test_without_a_target_the_prediction_is_explained() -> None:
    subject = subject_of("llama")
    logits = plain.logits(subject.model, PROMPTS[0])
    np.testing.assert_allclose(scores(subject, PROMPTS[0]), [float(logits.max())], atol=1e-10)


def test_a_function_sees_the_logits_of_every_row() -> None:
    subject = subject_of("llama")
    seen: list[tuple[int, ...]] = []

    def spread(logits: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(logits.shape))
        return logits.var(-1)

    found = scores(subject, PROMPTS[0], target=spread)
    np.testing.assert_allclose(found, [float(plain.logits(subject.model, PROMPTS[0]).var())], atol=1e-10)
    assert set(seen) == {(1, 100)}
    gradient = pellucid.run("gradient_x_input", subject, PROMPTS[0], target=spread).scores
    vectors = plain.embeddings(subject.model, PROMPTS[0]).requires_grad_()
    plain.from_embeddings(subject.model, vectors).var().backward()
    assert vectors.grad is not None
    np.testing.assert_allclose(gradient, (vectors.grad * vectors).sum(-1).detach().numpy(), atol=1e-10)
    subject.model.zero_grad()


def masked_logits(subject: Subject, text: str, place: int) -> torch.Tensor:
    given = subject.tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        found: torch.Tensor = subject.model(**given).logits[0, place]
    return found


def test_a_masked_model_is_read_at_its_mask() -> None:
    subject, text = with_words("MaskedLM"), "the [MASK] is good"
    good, movie = (subject.tokenizer.convert_tokens_to_ids(word) for word in ("good", "movie"))
    logits = masked_logits(subject, text, 2)
    np.testing.assert_allclose(scores(subject, text, target="movie"), [float(logits[movie])], atol=1e-10)
    found = scores(subject, text, target="movie", contrast="good")
    np.testing.assert_allclose(found, [float(logits[movie] - logits[good])], atol=1e-10)
    np.testing.assert_allclose(scores(subject, text), [float(logits.max())], atol=1e-10)
    explanation = pellucid.explain(subject, text, methods="occlusion")
    assert isinstance(explanation, Explanation)
    best = int(logits.argmax())
    assert explanation.predictions[0][0].strip() == subject.tokenizer.decode([best]).strip()
    assert explanation.predictions[0][1] == pytest.approx(float(logits.softmax(-1)[best]))


def test_deletion_before_the_mask_moves_the_place_that_is_read() -> None:
    subject = with_words("MaskedLM")
    movie = subject.tokenizer.convert_tokens_to_ids("movie")
    found = pellucid.run("occlusion", subject, "the [MASK] is good", target="movie", replacement="delete")
    full = masked_logits(subject, "the [MASK] is good", 2)[movie]
    expected = [
        float(full - masked_logits(subject, "[MASK] is good", 1)[movie]),
        0.0,  # the mask itself stays, because the answer is read there
        float(full - masked_logits(subject, "the [MASK] good", 2)[movie]),
        float(full - masked_logits(subject, "the [MASK] is", 2)[movie]),
    ]
    np.testing.assert_allclose(found.scores, expected, atol=1e-10)


def test_a_class_by_name_by_index_and_by_prediction() -> None:
    subject, text = with_words("SequenceClassification"), "the movie is good"
    with torch.no_grad():
        logits = subject.model(**subject.tokenizer(text, return_tensors="pt")).logits[0]
    for target in ("good", "GOOD", 1):
        np.testing.assert_allclose(scores(subject, text, target=target), [float(logits[1])], atol=1e-10)
    np.testing.assert_allclose(scores(subject, text), [float(logits.max())], atol=1e-10)
    found = scores(subject, text, target=Target("good", contrast="bad", measure="log_prob"))
    np.testing.assert_allclose(found, [float(logits[1] - logits[0])], atol=1e-10)


@pytest.mark.parametrize("name", ["t5", "bart", "marian"])
def test_an_encoder_decoder_continues_as_hugging_face_forces_it(name: str) -> None:
    subject, prompt, continuation = subject_of(name), [11, 42, 7, 23, 64, 2], [17, 20, 33]
    with torch.no_grad():
        labels = torch.tensor([continuation])
        logits = subject.model(input_ids=torch.tensor([prompt]), labels=labels).logits[0]  # shifts the labels itself
    expected = [float(logits[k].log_softmax(-1)[token]) for k, token in enumerate(continuation)]
    found = scores(subject, prompt, target=Target.continuation(continuation, each=True))
    np.testing.assert_allclose(found, expected, atol=1e-10)
    np.testing.assert_allclose(scores(subject, prompt, target=17), [float(logits[0, 17])], atol=1e-10)


def embedded(subject: Subject, text: str) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = subject.model(**subject.tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
    return found


def test_similarity_is_the_cosine_of_mean_hidden_states() -> None:
    subject = with_words("")
    one, other = embedded(subject, "the movie is good"), embedded(subject, "unknown world")
    expected = float(one @ other / one.norm() / other.norm())
    np.testing.assert_allclose(
        scores(subject, "the movie is good", target=Target.similarity("unknown world")), [expected], atol=1e-10
    )
    np.testing.assert_allclose(scores(subject, "the movie is good", target="the movie is good"), [1.0], atol=1e-10)

    def cosine(mean: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cosine_similarity(mean, other[None], dim=-1)

    for method in ("occlusion", "integrated_gradients"):
        named = pellucid.run(method, subject, "the movie is good", target=Target.similarity("unknown world"))
        written = pellucid.run(method, subject, "the movie is good", target=cosine)
        np.testing.assert_allclose(named.scores, written.scores, atol=1e-10)


def test_similarity_in_a_batch_ignores_padding() -> None:
    subject = with_words("")
    question = ask(subject, "the movie is good and playing", target=Target.similarity("unknown world"))
    texts = ["the movie is good and playing", "a movie", "good"]
    tokens: list[Tokens] = [subject.encode(text) for text in texts]
    found = score(subject, question.tokens, question.readout, [whole(one) for one in tokens])[:, 0]
    other = embedded(subject, "unknown world")
    expected = [float(torch.cosine_similarity(embedded(subject, text), other, dim=0)) for text in texts]
    np.testing.assert_allclose(found, expected, atol=1e-10)
