"""Figures hold the numbers of their result and leave pyplot alone."""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
import pytest

from pellucid.core.errors import InputError, MissingExtra
from pellucid.core.results import Result, Scores, Text
from pellucid.render.figure import figure
from tests.render.samples import HOSTILE, deletion, every_kind, matrix, token_scores

pytest.importorskip("matplotlib")
KINDS = every_kind()


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.filterwarnings("ignore:.*Glyph.*:UserWarning")  # the default font lacks some scripts
def test_every_kind_is_drawn(name: str) -> None:
    file = io.BytesIO()
    figure(KINDS[name]).savefig(file, dpi=30)
    assert file.getvalue().startswith(b"\x89PNG")


def test_bars_and_pictures_hold_the_numbers() -> None:
    result = token_scores(HOSTILE[:4], error=True)
    bars: Any = figure(result).axes[0].containers[-1]
    np.testing.assert_allclose([bar.get_width() for bar in bars], result.values)
    picture: Any = figure(matrix()).axes[0].images[0]
    np.testing.assert_allclose(picture.get_array(), matrix().values)
    assert picture.norm.vmin == -picture.norm.vmax == -np.abs(matrix().values).max()


def test_a_curve_and_its_band_hold_the_numbers() -> None:
    evidence = deletion()
    axes: Any = figure(Text(text="x", evidence=(evidence,))).axes[-1]
    np.testing.assert_allclose(axes.lines[0].get_ydata(), evidence.curves["deletion"])
    assert len(axes.lines) == 2
    assert len(axes.collections) == 1


@pytest.mark.filterwarnings("ignore:.*Glyph.*:UserWarning")
def test_dollars_are_no_formulas() -> None:
    figure(Scores("$\\frac{$", values=np.ones(1), labels={"unit": ("$x$",)}, unit="$_$")).savefig(io.BytesIO(), dpi=20)


def test_pyplot_is_not_touched() -> None:
    before = "matplotlib.pyplot" in sys.modules
    figure(Text(text="x"))
    assert ("matplotlib.pyplot" in sys.modules) == before


def test_without_matplotlib_the_install_line_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtra, match=r"pellucid\[plot\]"):
        figure(Text(text="x"))


def test_only_results_are_drawn() -> None:
    with pytest.raises(InputError, match="no kind of result"):
        figure(Result())
