"""MExGen: its two algorithms by definition, and its levels on texts whose parts are known."""

import numpy as np
import pytest

import pellucid
from pellucid.engine.coalitions import all_coalitions, exact_shapley
from pellucid.generators import ScriptedGenerator
from pellucid.methods.attribution.mexgen import mexgen
from pellucid.methods.attribution.occlusion import occlusion
from tests import plain
from tests.linear import linear
from tests.minilm import minilm_folder

FILL = 3
TEXT = "One two three. Four good five. Six seven bad nine."


def additive(texts: list[str]) -> list[float]:
    return [3.0 * ("good" in t) - 2.0 * ("bad" in t) + 0.5 * ("two" in t) for t in texts]


def test_constrained_lime_with_single_removals_is_occlusion() -> None:
    subject = pellucid.load(plain.tiny("llama"))
    found = mexgen(subject, plain.IDS, target=plain.TARGET, replacement=FILL, groups=6, removed=1)
    expected = occlusion(subject, plain.IDS, target=plain.TARGET, replacement=FILL)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-9)


def test_constrained_lime_is_the_least_squares_fit_of_its_inputs() -> None:
    """All single and all double removals of three units, each equally often in the limit, by hand."""
    model = plain.tiny("llama")

    def value(gone: tuple[int, ...]) -> float:
        return float(plain.logits(model, [FILL if i in gone else t for i, t in enumerate(plain.IDS[:2])])[plain.TARGET])

    rows = np.array([[1, 0], [0, 1], [1, 1], [1, 1]])  # one double removal per unit: samples=2
    drops = [value(()) - value(gone) for gone in ((0,), (1,), (0, 1), (0, 1))]
    expected = np.linalg.lstsq(rows.astype(float), np.array(drops), rcond=None)[0]
    found = mexgen(
        pellucid.load(model), plain.IDS[:2], target=plain.TARGET, replacement=FILL, groups=2, removed=2, samples=2
    )
    np.testing.assert_allclose(found.scores, expected, atol=1e-9)


def test_local_shapley_by_definition() -> None:
    model = plain.tiny("llama")
    expected = []
    for i in range(6):
        window = [j for j in (i - 1, i, i + 1) if 0 <= j < 6]
        table = []
        for mask in all_coalitions(len(window)):
            gone = {j for j, here in zip(window, mask, strict=True) if not here}
            ids = [FILL if k in gone else t for k, t in enumerate(plain.IDS)]
            table.append([float(plain.logits(model, ids)[plain.TARGET])])
        expected.append(float(exact_shapley(np.array(table), len(window))[window.index(i), 0]))
    found = mexgen(pellucid.load(model), plain.IDS, target=plain.TARGET, replacement=FILL, groups=6, algorithm="l_shap")
    np.testing.assert_allclose(found.scores, expected, atol=1e-9)


@pytest.mark.parametrize("algorithm", ["c_lime", "l_shap"])
def test_the_best_sentence_is_opened(algorithm: str) -> None:
    found = mexgen(pellucid.load(additive), TEXT, refine=1, algorithm=algorithm)
    assert found.units is not None
    by_word = dict(zip([label.strip() for label in found.units.labels], found.scores, strict=True))
    assert by_word["good"] == pytest.approx(3)
    assert by_word["Four"] == pytest.approx(0)
    assert by_word["two"] == pytest.approx(0.5 / 3)
    assert by_word["bad"] == pytest.approx(-0.5)
    opened = mexgen(pellucid.load(additive), TEXT, refine=9, algorithm=algorithm)
    np.testing.assert_allclose(opened.scores, [0, 0.5, 0, 0, 3, 0, 0, 0, -2, 0], atol=1e-9)


@pytest.mark.parametrize("algorithm", ["c_lime", "l_shap"])
def test_a_linear_model_gets_its_weights(algorithm: str) -> None:
    model = linear()
    found = mexgen(model.subject, model.ids, replacement=model.blank, refine=9, algorithm=algorithm, **model.asked)
    np.testing.assert_allclose(found.scores, model.weights, atol=1e-5)


@pytest.mark.skipif(minilm_folder() is None, reason="the sentence model is not installed")
def test_a_generator_that_looks_at_one_word() -> None:
    encoder = pellucid.load(str(minilm_folder()))
    writer = ScriptedGenerator(lambda text: "Paris is the capital." if "France" in text else "I do not know.")
    subject = pellucid.load(lambda texts: [0.0 for _ in texts])
    prompt = "I like to read. Tell me France and its capital. Be short."
    found = mexgen(subject, prompt, scalar="answer", generator=writer, encoder=encoder, refine=1, removed=1)
    assert found.units is not None
    best = int(np.argmax(found.scores))
    assert found.units.labels[best].strip() == "France"
    assert found.unit == "cosine similarity"
    np.testing.assert_allclose(np.delete(found.scores, best), 0, atol=1e-6)


def test_answers_of_the_model_itself() -> None:
    found = mexgen(pellucid.load(plain.tiny("llama")), plain.IDS, scalar="answer", length=3, replacement=FILL)
    assert np.isfinite(found.scores).all()
    assert np.abs(found.scores).max() > 0
