"""AttriBoT: equal to occlusion where it looks, and it looks where the effect is."""

import numpy as np
import pytest

import pellucid
from pellucid import Target
from pellucid.core.errors import InputError
from pellucid.methods.attribution.attribot import attribot
from pellucid.methods.attribution.occlusion import occlusion
from tests import plain
from tests.linear import linear

WORDS = " ".join(f"w{i:02d}" for i in range(36))


def planted(texts: list[str]) -> list[float]:
    return [3.0 * ("w07" in t) + 2.0 * ("w30" in t) + 0.5 * ("w31" in t) - 1.0 * ("w12" in t) for t in texts]


def test_with_every_group_open_it_is_occlusion() -> None:
    subject = pellucid.load(plain.tiny("llama"))
    found = attribot(subject, plain.IDS, target=plain.TARGET, replacement=3, open_groups=9)
    expected = occlusion(subject, plain.IDS, target=plain.TARGET, replacement=3)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-12)


def test_planted_words_are_found_for_a_third_of_the_price() -> None:
    subject = pellucid.load(planted)
    full = occlusion(subject, WORDS)
    found = attribot(subject, WORDS, groups=6, open_groups=2)
    np.testing.assert_allclose(found.scores[[7, 30, 31]], [3, 2, 0.5], atol=1e-12)
    assert found.provenance.forwards <= full.provenance.forwards - 15
    assert found.evidence[0].values["exact"] == 12
    np.testing.assert_allclose(found.scores[12:18], -1 / 6, atol=1e-12)  # never opened: an even share of the group


def test_a_proxy_prunes_and_the_model_rescores() -> None:
    model, small = plain.tiny("llama"), plain.tiny("llama")
    for parameter in small.parameters():
        parameter.data *= 1.02
    subject, proxy = pellucid.load(model), pellucid.load(small)
    exact = occlusion(subject, plain.IDS, target=plain.CONTRAST, replacement=3).scores
    cheap = occlusion(proxy, plain.IDS, target=plain.CONTRAST, replacement=3).scores
    found = attribot(subject, plain.IDS, target=plain.CONTRAST, replacement=3, open_groups=9, proxy=proxy, keep=2)
    best = np.argsort(-cheap)[:2]
    assert set(best) != {0, 1}
    np.testing.assert_allclose(found.scores[best], exact[best], atol=1e-12)
    rest = np.setdiff1d(np.arange(6), best)
    np.testing.assert_allclose(found.scores[rest], cheap[rest], atol=1e-12)
    assert found.provenance.forwards == 3


def test_the_proxy_is_asked_for_the_answer_of_the_model() -> None:
    subject, proxy = pellucid.load(plain.tiny("llama")), pellucid.load(plain.tiny("mistral-sliding"))
    generated = Target.generated(2)
    found = attribot(subject, plain.IDS, target=generated, proxy=proxy, keep=2, open_groups=9)
    assert found.scores.shape == (6, 2)
    same = occlusion(subject, plain.IDS, target=generated)
    kept = np.isclose(found.scores, same.scores, atol=1e-12).all(1)
    assert kept.sum() >= 2


def test_a_linear_model_gets_its_weights() -> None:
    model = linear()
    found = attribot(model.subject, model.ids, replacement=model.blank, open_groups=9, **model.asked)
    np.testing.assert_allclose(found.scores, model.weights, atol=1e-5)


def test_a_proxy_of_another_kind_is_refused() -> None:
    subject = pellucid.load(plain.tiny("llama"))
    with pytest.raises(InputError, match="cannot stand in"):
        attribot(subject, plain.IDS, proxy=pellucid.load(plain.tiny("t5")))
    with pytest.raises(InputError, match="cannot stand in"):
        attribot(pellucid.load(planted), WORDS, proxy=subject)
