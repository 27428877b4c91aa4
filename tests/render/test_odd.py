"""Empty, infinite, tiny, enormous and inconsistent results are shown as well as they can be, and never fail."""

from __future__ import annotations

import io

import numpy as np
import pytest

from pellucid.core.encoding import as_json, from_json
from pellucid.core.results import (
    Evidence,
    Examples,
    Explanation,
    Graph,
    Learned,
    Result,
    Scores,
    Table,
    Text,
    WeightEdit,
)
from pellucid.core.tokens import Units
from pellucid.render.figure import figure
from pellucid.render.html import page
from pellucid.render.terminal import text
from tests.render.samples import tokens

T = tokens(("a", " b", "c"))
ODD: list[Result] = [
    Scores(values=np.array([1, 2, 3])),
    Scores(values=np.array([True, False])),
    Scores(values=np.full(3, np.nan)),
    Scores(values=np.array([1, 2], np.float16)),
    Scores(values=np.zeros((0, 5)), axes=("unit", "target")),
    Scores(values=np.zeros((5, 0)), axes=("unit", "target")),
    Scores(values=np.ones((2, 2, 2, 2, 2)), axes=("layer", "head", "query", "key", "dimension")),
    Scores(values=np.array([1e300, -1e300, 1e-300])),
    Scores(values=np.array([1e-300, 0])),
    Scores(values=np.array([np.inf, -np.inf])),
    Scores(values=np.array([np.inf, -np.inf, 1]), axes=("step",)),
    Scores(values=np.full((2, 2), np.nan), axes=("layer", "head")),
    Scores(values=np.array([[np.inf, 1]]), axes=("layer", "head")),
    Scores(values=np.ones(1), axes=("fraction",)),
    Scores(values=np.ones(2), axes=("fraction",), labels={"fraction": ("0.5", "0.5")}),
    Scores(values=np.ones(3), tokens=T, units=Units("w", ((0, 9),))),
    Scores(values=np.ones(3), tokens=T, std_error=np.full(3, np.nan)),
    Scores(values=np.ones(2), tokens=T, units=Units("w", ((0, 1), (1, 3)), ("x", "y")), axes=("other_unit",)),
    Scores(values=np.ones((2, 3)), axes=("layer", "position"), tokens=T, std_error=np.ones((2, 3))),
    Scores(values=np.ones((2, 2, 3)), axes=("layer", "head", "position"), tokens=T, std_error=np.ones((2, 2, 3))),
    Scores(values=np.array(np.nan), axes=()),
    Scores(values=np.array(5), axes=(), unit="x"),
    Scores(values=np.ones(2, dtype=np.int64) * 2**60),
    Scores(values=np.zeros((3, 4, 0)), axes=("layer", "head", "key")),
    Table(),
    Table(columns=("a", "b"), rows=((1,),)),
    Table(columns=("a",), rows=((np.float32(1),), (np.ones(3),), ({"a": 1},), (True,), (None,), ("",), (10**400,))),
    Text(),
    Examples(),
    Examples(items=({},), values=np.array([1.0])),
    Examples(items=({"a": "x"}, {"b": "y"}), values=np.zeros(0)),
    Learned(),
    Learned(tensors={"a": np.array(1), "b": np.zeros((0, 2)), "c": np.ones(3, bool), "": np.ones(2)}),
    WeightEdit(),
    Graph(),
    Graph(nodes=({"id": "a"},), sources=np.array([0]), targets=np.array([0]), weights=np.array([1.0])),
    Graph(
        nodes=({"id": "a"}, {"id": "b"}),
        sources=np.array([0, 1]),
        targets=np.array([1, 0]),
        weights=np.array([np.nan, 0.0]),
    ),
    Graph(
        nodes=({"id": 1, "layer": "x"}, {"id": 2, "layer": 2}),
        sources=np.array([0]),
        targets=np.array([1]),
        weights=np.array([np.inf]),
    ),
    Explanation(),
    Explanation(results=(Text(text="x"), Table(), Explanation(results=(Text(),)))),
    Explanation(predictions=(("", float("nan")), ("x", 2.0), ("y", -1.0))),
    Explanation(results=(Scores(values=np.ones(2)), Scores(values=np.ones(3)), Scores(values=np.array([np.nan, 1])))),
    Text(
        evidence=(
            Evidence("e", "s", {"a": float("nan"), "b": float("inf")}, {"x": (), "y": ()}),
            Evidence("e", "s", {}, {"y": (1.0, float("nan"), 2.0)}),
            Evidence("", "", {"a ~ b": 1.0}, {"x": (1.0,), "y": (1.0,), "y_low": (0.0,), "y_high": (2.0,)}),
            Evidence("e", "s", {"a ~ b": 1.0, "c ~ d": 2.0}),
            Evidence("e", "s", {}, {"x": (0.0, 1.0)}),
        )
    ),
]


@pytest.mark.parametrize("result", ODD, ids=lambda result: type(result).__name__)
def test_odd_results_are_shown_and_kept(result: Result) -> None:
    page(result).encode("utf-8")
    assert "\x1b" not in text(result, width=70, colour=False)
    assert as_json(from_json(as_json(result))) == as_json(result)


@pytest.mark.parametrize("result", ODD[::3], ids=lambda result: type(result).__name__)
def test_odd_results_are_drawn(result: Result) -> None:
    pytest.importorskip("matplotlib")
    figure(result).savefig(io.BytesIO(), dpi=20)
