"""Results check themselves and become tables that hold their numbers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pellucid.core.errors import InputError
from pellucid.core.results import Evidence, Explanation, Provenance, Scores, Table, Text
from pellucid.core.tables import axis_labels
from pellucid.core.tokens import Tokens, Units

TOKENS = Tokens((5, 6, 7), ("the", " cat", "\ud800"), (False,) * 3, "the cat\ud800")


def test_scores_refuse_axes_and_labels_that_do_not_fit() -> None:
    with pytest.raises(InputError, match="does not define"):
        Scores(values=np.zeros(2), axes=("tokens",))
    with pytest.raises(InputError, match="2 dimensions"):
        Scores(values=np.zeros((2, 2)), axes=("unit",))
    with pytest.raises(InputError, match="1 labels"):
        Scores(values=np.zeros(2), axes=("unit",), labels={"unit": ("a",)})


def test_results_are_frozen_and_evidence_adds_to_a_copy() -> None:
    result = Text(text="x")
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.text = "y"  # type: ignore[misc]
    more = result.with_evidence(Evidence("a", "b"))
    assert (result.evidence, [e.name for e in more.evidence]) == ((), ["a"])


def test_a_long_table_has_one_row_per_entry_with_its_names() -> None:
    values = np.arange(6.0).reshape(3, 2)
    scores = Scores(values=values, axes=("unit", "layer"), std_error=values / 10, tokens=TOKENS)
    frame = scores.to_pandas()
    assert list(frame.columns) == ["unit", "layer", "value", "std_error"]
    assert list(frame.unit) == ["the", "the", " cat", " cat", "\ud800", "\ud800"]
    rows = zip(frame.layer, frame.value, frame.std_error, strict=True)
    for (i, j), row in zip(np.ndindex(3, 2), rows, strict=True):
        assert row == (j, values[i, j], values[i, j] / 10)


def test_without_sampling_the_standard_error_is_missing() -> None:
    assert Scores(values=np.ones(3)).to_pandas().std_error.isna().all()


def test_names_come_from_labels_then_units_then_tokens() -> None:
    values, units = np.zeros(2), Units("word", ((0, 1), (1, 3)), ("the", "cat"))
    assert axis_labels(Scores(values=values, labels={"unit": ("x", "y")}, units=units), "unit") == ("x", "y")
    assert axis_labels(Scores(values=values, units=units), "unit") == ("the", "cat")
    assert axis_labels(Scores(values=np.zeros(3), tokens=TOKENS), "unit") == TOKENS.pieces
    assert axis_labels(Scores(values=np.zeros(3), axes=("query",), tokens=TOKENS), "query") == TOKENS.pieces
    assert axis_labels(Scores(values=values, axes=("layer",), tokens=TOKENS), "layer") is None


def test_tables_keep_their_columns_even_when_names_repeat() -> None:
    frame = Table(columns=("a", "a", "n"), rows=(("x\ud800", 1, 0.5), (None, 2, 1.5))).to_pandas()
    assert list(frame.columns) == ["a", "a", "n"]
    assert frame.iloc[0].tolist() == ["x\ud800", 1, 0.5]
    assert Table(columns=("a",)).to_pandas().shape == (0, 1)
    with pytest.raises(InputError, match="row of 1 values"):
        Table(columns=("a", "b"), rows=((1,),)).to_pandas()


def test_an_explanation_is_one_table_of_all_methods() -> None:
    one = Scores(provenance=Provenance(method="one"), values=np.array([1.0, 2.0]))
    two = Scores(provenance=Provenance(method="two"), values=np.array([[3.0]]), axes=("layer", "head"))
    frame = Explanation(results=(one, Text(text="x"), two)).to_pandas()
    assert list(frame.columns) == ["method", "unit", "layer", "head", "value", "std_error"]
    assert list(frame.value) == [1.0, 2.0, 3.0]
    assert list(frame.method) == ["one", "one", "two"]
    assert frame.layer.isna().tolist() == [True, True, False]
    assert Explanation(results=(Text(text="x"),)).to_pandas().empty


def test_a_method_is_found_by_name() -> None:
    one = Text(provenance=Provenance(method="one"))
    assert Explanation(results=(one,))["one"] is one
    with pytest.raises(InputError, match=r"it holds \['one'\]"):
        Explanation(results=(one,))["two"]


def test_words_are_one_per_value() -> None:
    with pytest.raises(InputError, match="got 3 words for 4 values"):
        Scores(values=np.zeros((2, 2)), axes=("layer", "position"), words=("a", "b", "c"))
    found = Scores(values=np.zeros((2, 2)), axes=("layer", "position"), words=("a", "b", "c", "d"))
    assert list(found.to_pandas()["word"]) == ["a", "b", "c", "d"]
