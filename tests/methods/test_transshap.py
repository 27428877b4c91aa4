"""TransSHAP: the values of a word's tokens, summed."""

import numpy as np
import pytest

import pellucid
from pellucid.engine.coalitions import exact_shapley
from pellucid.methods.attribution.transshap import transshap
from tests import games, plain

TEXT = "the capital of Frenland is"


def test_without_text_it_is_the_shapley_value_of_tokens() -> None:
    model = plain.tiny()
    truth = exact_shapley(games.of_model(model, plain.IDS, 3), 6)[:, 0]
    found = transshap(pellucid.load(model), plain.IDS, target=plain.TARGET, replacement=3)
    np.testing.assert_allclose(found.scores, truth, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("samples", [4096, 60])
def test_words_are_sums_of_their_tokens(samples: int) -> None:
    """By hand: every coalition of tokens in one plain batch, its Shapley values, added up word by word."""
    subject = pellucid.load("zoo:tiny-lm")
    tokens = subject.encode(TEXT)
    units, words = subject.units(tokens, "token"), subject.units(tokens, "word")
    assert len(words) < len(units) <= 11
    found = transshap(subject, TEXT, target=20, replacement=5, samples=samples)
    assert found.units is not None
    assert found.units.labels == words.labels
    spans = np.array([start for start, _ in units.spans])
    rows = []
    for bits in range(2 ** len(units)):
        gone = {int(spans[i]) for i in range(len(units)) if not bits >> i & 1}
        rows.append([5 if position in gone else token for position, token in enumerate(tokens.ids)])
    import torch

    with torch.no_grad():
        table = subject.model(input_ids=torch.tensor(rows)).logits[:, -1, [20]].double().numpy()
    by_token = exact_shapley(table, len(units))[:, 0]
    expected = np.array([by_token[(spans >= start) & (spans < end)].sum() for start, end in words.spans])
    if samples == 4096:
        np.testing.assert_allclose(found.scores, expected, atol=1e-3)
    else:
        assert found.std_error is not None
        assert (np.abs(found.scores - expected) < 5 * found.std_error + 1e-3).all()
