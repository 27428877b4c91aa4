"""Groups of units: by text, by number, halved, and back to units."""

import numpy as np
import pytest

import pellucid
from pellucid.core.errors import InputError
from pellucid.engine.groups import grouped, halves, shared_out, unfolded
from tests import plain

TEXT = "One two three. Four five. Six seven eight nine."


def test_sentences_hold_their_words() -> None:
    subject = pellucid.load(lambda texts: [1.0 for _ in texts])
    tokens = subject.encode(TEXT)
    units = subject.units(tokens, "token")
    expected = ((0, 1, 2), (3, 4), (5, 6, 7, 8))
    assert grouped(subject, tokens, units, "sentence") == expected
    assert grouped(subject, tokens, units, "auto") == expected
    assert grouped(subject, tokens, subject.units(tokens, "sentence"), "message") == ((0, 1, 2),)


def test_ids_without_text_fall_into_equal_stretches() -> None:
    subject = pellucid.load(plain.tiny())
    tokens = subject.encode(list(range(5, 14)))
    units = subject.units(tokens, "token")
    assert grouped(subject, tokens, units) == ((0, 1, 2), (3, 4, 5), (6, 7, 8))
    assert [len(g) for g in grouped(subject, tokens, units, 4)] == [3, 2, 2, 2]
    assert len(grouped(subject, tokens, units, 50)) == 9
    with pytest.raises(InputError, match="0 groups"):
        grouped(subject, tokens, units, 0)


def test_halves_and_back() -> None:
    groups = ((0, 1, 2), (4,))
    assert halves(groups) == ((0, 1), (2,), (4,))
    masks = unfolded(np.array([[True, False], [False, True]]), groups, 6)
    np.testing.assert_array_equal(masks, [[1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 1, 0]])
    shares = shared_out(np.array([[6.0], [5.0]]), groups, 6)
    np.testing.assert_array_equal(shares[:, 0], [2, 2, 2, 0, 5, 0])
