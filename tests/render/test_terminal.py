"""Terminal text holds the numbers, obeys nothing in tokens, and fits the width."""

from __future__ import annotations

import io
import re
import sys

import numpy as np
import pytest
from rich.cells import cell_len

from pellucid.core.errors import InputError
from pellucid.core.results import Result, Scores, Table, Text
from pellucid.render.terminal import show, text
from pellucid.render.words import label, visible
from tests.render.samples import ARABIC, HOSTILE, english, every_kind, explanation, layers, long, token_scores

KINDS = every_kind()
OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066\u2067\ud800-\udfff]")
COLOUR = re.compile("\x1b\\[[0-9;]*m")


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("width", [40, 80, 160])
def test_every_kind_fits_its_width_and_holds_no_control_character(name: str, width: int) -> None:
    plain = text(KINDS[name], width=width, colour=False)
    assert not OBEYED.search(plain)
    assert max(cell_len(line) for line in plain.split("\n")) <= width
    coloured = text(KINDS[name], width=width, colour=True)
    assert "\x1b[" in coloured
    assert not OBEYED.search(COLOUR.sub("", coloured))


@pytest.mark.parametrize(
    "result",
    [
        explanation(HOSTILE),
        Text(title="".join(HOSTILE), text="".join(HOSTILE)),
        Table(columns=HOSTILE[:3], rows=(HOSTILE[3:6],)),
    ],
    ids=["explanation", "text", "table"],
)
def test_hostile_text_stays_text(result: Result) -> None:
    plain = text(result, width=400, colour=False)
    assert not OBEYED.search(plain)
    assert "[red]bold[/red]" in plain


def test_the_list_holds_the_numbers_in_order() -> None:
    result = token_scores(english(), error=True)
    assert result.std_error is not None
    found = re.findall(r"^ *(\d+) +\S+ +([+-]?[\d.]+) ± ([\d.]+)", text(result, width=100, colour=False), re.MULTILINE)
    assert [int(i) for i, _, _ in found] == list(range(len(english())))
    np.testing.assert_allclose([float(v) for _, v, _ in found], result.values, atol=0.00051)
    np.testing.assert_allclose([float(e) for _, _, e in found], result.std_error, atol=0.00051)


def test_a_long_text_lists_its_strongest_and_says_so() -> None:
    result = token_scores(long(1200))
    plain = text(result, width=100, colour=False)
    assert "The 20 strongest of 1200" in plain
    places = [int(i) for i in re.findall(r"^ *(\d+) .*│", plain, re.MULTILINE)]
    assert set(places) == set(np.argsort(-np.abs(result.values))[:20])


def test_a_narrow_grid_leaves_columns_out_and_says_so_but_cuts_no_number() -> None:
    plain = text(layers(), width=60, colour=False)
    assert "12 of 12 rows and" in plain
    numbers = {float(n) for line in plain.split("\n") for n in re.findall(r"[+-]\d\.\d\d\b", line)}
    assert "…" not in plain.split("of 12 rows")[0].split("\n", 3)[3]
    assert max(numbers) == pytest.approx(layers().values.max(), abs=0.006)


def test_runs_of_right_to_left_text_are_isolated_once() -> None:
    flow = next(
        line
        for line in text(token_scores(ARABIC), width=200, colour=False).split("\n")
        if "Paris" in line and "(" in line and "rather" not in line
    )
    assert flow == "\u2068" + "".join(ARABIC[:8]) + "\u2069" + "".join(ARABIC[8:])


def test_colour_is_the_sign() -> None:
    result = Scores(values=np.array([1.0, -1.0, 0.0]), labels={"unit": ("up", " down", " none")})
    coloured = text(result, width=80, colour=True)
    assert re.search("48;2;156;80;8mup", coloured)
    assert re.search("48;2;37;99;170m down", coloured)
    assert re.search("\x1b\\[0m none", coloured)


def test_the_light_palette_is_used_on_a_light_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLORFGBG", "0;15")
    assert "48;2;242;146;54m" in text(token_scores(("a",)), width=80, colour=True)


def test_no_colours_without_a_terminal_and_any_encoding(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    show(token_scores(HOSTILE))
    assert "\x1b" not in capsys.readouterr().out
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    show(token_scores(ARABIC))


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[" in text(token_scores(english()))
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in text(token_scores(english()))


def test_an_explanation_shows_predictions_methods_and_evidence() -> None:
    plain = text(explanation(), width=100, colour=False)
    parts = [
        "Why",
        "61.32 %",
        "Integrated gradients",
        "█▆▄▃▂▂▁▁▁▁▁",
        "Occlusion",
        "Shapley values",
        "Evidence",
        "✓ ok  Agreement",
        "✗ short  Completeness",
        "zoo:tiny-lm · float32 on cpu · 4.2 s · 812 forwards, 64 backwards",
    ]
    places = [plain.index(part) for part in parts]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("a\nb", "a↵b"),
        ("\r\n", "↵"),
        ("\t", "⇥"),
        ("\x1b[0m", "␛[0m"),
        ("\ud800", "\ufffd"),
        ("\u202e", "⟨U+202E⟩"),
        ("\U000e0041", "⟨U+E0041⟩"),
        ("👩‍👧", "👩‍👧"),
        ("é", "é"),
        ("\x7f\x00", "␡␀"),
        ("\x9b", "⟨U+009B⟩"),
    ],
)
def test_what_is_obeyed_becomes_visible(raw: str, shown: str) -> None:
    assert visible(raw) == shown


def test_labels_are_never_empty() -> None:
    assert [label(t) for t in ("", "  ", "\u0301", "x" * 99)] == ["▫", "␠␠", "◌\u0301", "x" * 59 + "…"]


def test_only_results_are_shown() -> None:
    with pytest.raises(InputError, match="no kind of result"):
        text(Result())
