"""Input marginalisation against the plain sum over every word of the vocabulary."""

import numpy as np
import pytest
import torch
import transformers

import pellucid
from pellucid import Target
from pellucid.core.errors import CapabilityError, InputError, TargetError
from pellucid.methods.attribution.input_marginalisation import input_marginalisation
from tests import plain, tokenizers_for_tests


def bits(p: float, q: float) -> float:
    return float(np.log2(p) - np.log2(q))


def test_a_causal_model_marginalises_over_its_own_next_words() -> None:
    model = plain.tiny("llama")

    def p(ids: list[int]) -> float:
        return float(plain.logits(model, ids).softmax(-1)[plain.TARGET])

    expected = []
    for i in range(6):
        before = plain.IDS[:i] or [1]  # the start token
        q = plain.logits(model, before).softmax(-1).numpy()
        mean = sum(q[w] * p([*plain.IDS[:i], w, *plain.IDS[i + 1 :]]) for w in range(100))
        whole = p(plain.IDS)
        expected.append(bits(whole, 1 - whole) - bits(mean, 1 - mean))
    found = input_marginalisation(pellucid.load(model), plain.IDS, target=plain.TARGET, words_tried=100)
    np.testing.assert_allclose(found.scores, expected, atol=1e-9)
    assert found.evidence[0].values["covered"] == pytest.approx(1)


def test_a_masked_model_fills_in_for_a_classifier() -> None:
    tokenizer = tokenizers_for_tests.wordpiece()
    size = {"vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.BertConfig(**size, intermediate_size=48, num_labels=3)
    classifier = transformers.BertForSequenceClassification(config).double().eval()
    masked = transformers.BertForMaskedLM(config).double().eval()
    for parameter in (*classifier.parameters(), *masked.parameters()):
        parameter.data += 0.1 * torch.randn_like(parameter)
    text = "the movie is good"
    ids = tokenizer(text)["input_ids"]

    def p(row: list[int]) -> float:
        with torch.no_grad():
            return float(classifier(input_ids=torch.tensor([row])).logits[0].softmax(-1)[1])

    expected = []
    for i in range(1, len(ids) - 1):
        hole = [*ids[:i], tokenizer.mask_token_id, *ids[i + 1 :]]
        with torch.no_grad():
            q = masked(input_ids=torch.tensor([hole])).logits[0, i].softmax(-1)
        mean = sum(float(q[w]) * p([*ids[:i], w, *ids[i + 1 :]]) for w in range(len(tokenizer)))
        expected.append(bits(p(ids), 1 - p(ids)) - bits(mean, 1 - mean))
    found = input_marginalisation(
        pellucid.load(classifier, tokenizer), text, target=1, filler=pellucid.load(masked, tokenizer), words_tried=500
    )
    np.testing.assert_allclose(found.scores, expected, atol=1e-9)
    with pytest.raises(CapabilityError, match="filler="):
        input_marginalisation(pellucid.load(classifier, tokenizer), text, target=1)
    other = pellucid.load(plain.tiny("bert-masked-lm"))
    with pytest.raises(InputError, match="token ids differ"):
        input_marginalisation(pellucid.load(classifier, tokenizer), text, target=1, filler=other)


def test_a_contrast_and_the_likeliest_words() -> None:
    model = plain.tiny("llama")

    def both(ids: list[int]) -> np.ndarray:
        return plain.logits(model, ids).softmax(-1)[[plain.TARGET, plain.CONTRAST]].numpy()

    q = plain.logits(model, plain.IDS[:3]).softmax(-1).numpy()
    likely = np.argsort(-q, kind="stable")[:5]
    mean = sum(q[w] * both([*plain.IDS[:3], int(w), *plain.IDS[4:]]) for w in likely) / q[likely].sum()
    whole = both(plain.IDS)
    found = input_marginalisation(
        pellucid.load(model), plain.IDS, target=plain.TARGET, contrast=plain.CONTRAST, words_tried=5
    )
    assert found.scores[3] == pytest.approx(bits(*whole) - bits(*mean), abs=1e-9)


def test_units_of_several_tokens_are_drawn_and_near_the_sum() -> None:
    """Drawn replacements of a one-token unit would give the sum; two tokens are held against the sum over all pairs."""
    model = plain.tiny("llama")
    first = plain.logits(model, plain.IDS[:4]).softmax(-1).numpy()
    second = plain.logits(model, plain.IDS[:5]).softmax(-1).numpy()
    rows = torch.tensor([[*plain.IDS[:4], a, b] for a in range(100) for b in range(100)])
    with torch.no_grad():
        p = torch.cat([model(input_ids=some).logits[:, -1].softmax(-1)[:, plain.TARGET] for some in rows.split(2000)])
    mean = float(np.outer(first, second).reshape(-1) @ p.numpy())
    whole = float(plain.logits(model, plain.IDS).softmax(-1)[plain.TARGET])
    found = input_marginalisation(pellucid.load(model), plain.IDS, target=plain.TARGET, unit=[(4, 6)], words_tried=1500)
    assert found.scores[0] == pytest.approx(bits(whole, 1 - whole) - bits(mean, 1 - mean), abs=0.05)


def test_each_token_of_a_continuation_has_its_column() -> None:
    subject = pellucid.load(plain.tiny("llama"))
    found = input_marginalisation(subject, plain.IDS, target=Target.continuation([17, 20], each=True), words_tried=4)
    alone = input_marginalisation(subject, plain.IDS, target=17, words_tried=4)
    np.testing.assert_allclose(found.scores[:, 0], alone.scores, atol=1e-9)


def test_a_function_has_no_probability() -> None:
    with pytest.raises(TargetError, match="no probability"):
        input_marginalisation(
            pellucid.load(plain.tiny()), plain.IDS, target=Target.function(lambda logits: logits[:, 0])
        )
