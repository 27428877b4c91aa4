"""Pages hold the numbers of their result, and hostile text stays text."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from pellucid.core.errors import InputError
from pellucid.core.results import Explanation, Result, Scores, Text
from pellucid.core.tokens import Tokens
from pellucid.render import colours
from pellucid.render.html import page, script, style
from pellucid.render.words import MISSING, visible
from tests.render.samples import (
    ARABIC,
    HEBREW,
    HOSTILE,
    english,
    every_kind,
    explanation,
    long,
    matrix,
    token_scores,
    tokens,
    words,
)

KINDS = every_kind()
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Reader(HTMLParser):
    """Read a page strictly: every element closed, attributes and texts collected."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.inside: list[int] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[tuple[str, dict[str, str | None], str]] = []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.cells.append((tag, dict(attrs), ""))
        if tag not in VOID:
            self.open.append(tag)
            self.inside.append(len(self.cells) - 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.inside.pop()

    def handle_data(self, data: str) -> None:
        if self.inside:
            tag, attributes, text = self.cells[self.inside[-1]]
            self.cells[self.inside[-1]] = (tag, attributes, text + data)


def scored(reader: Reader) -> list[tuple[str, str]]:
    """Return (shown text, value) of every coloured unit of the running text."""
    start = next(
        i for i, (tag, a, _) in enumerate(reader.cells) if tag == "div" and str(a.get("class")).startswith("tokens")
    )
    end = next(i for i, (tag, a, _) in enumerate(reader.cells) if i > start and a.get("class") == "legend")
    return [(text, str(a["title"])) for _, a, text in reader.cells[start + 1 : end] if "title" in a]


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_a_self_contained_page(name: str) -> None:
    source = page(KINDS[name])
    source.encode("utf-8")
    reader = Reader(source)
    tags = {tag for tag, _ in reader.elements}
    assert not tags & {"img", "link", "iframe", "object", "embed", "base", "form", "image", "use", "a"}
    for _, attributes in reader.elements:
        assert not [key for key in attributes if key.startswith("on") or key in ("src", "href", "srcset", "xlink:href")]
    assert not re.search(r"https?://|@import|url\(", source)
    assert [text for tag, _, text in reader.cells if tag == "script"] == [script()]
    assert {"html", "head", "title", "main", "h1"} <= tags
    assert dict(reader.elements)["html"] == {"lang": "en"}
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", source)


@pytest.mark.parametrize(
    "result",
    [
        explanation(HOSTILE),
        Text(title=HOSTILE[0], text=" ".join(HOSTILE)),
        Scores(
            values=np.ones((2, 2)),
            axes=("unit", "target"),
            unit=HOSTILE[1],
            sign=HOSTILE[0],
            labels={"unit": HOSTILE[:2], "target": HOSTILE[2:4]},
            target=HOSTILE[0],
        ),
    ],
    ids=["explanation", "text", "grid"],
)
def test_hostile_text_anywhere_stays_text(result: Result) -> None:
    source = page(result)
    source.encode("utf-8")
    reader = Reader(source)
    assert not {"img", "b2"} & {tag for tag, _ in reader.elements}
    assert sum(tag == "script" for tag, _ in reader.elements) == 1
    assert sum(tag == "style" for tag, _ in reader.elements) == 1
    assert "alert(1)" in "".join(text for _, _, text in reader.cells)


def test_hostile_pieces_are_shown_in_order_with_their_values() -> None:
    result = token_scores(HOSTILE)
    shown = scored(Reader(page(result)))
    assert [text for text, _ in shown] == [visible(piece, breaks=True) or MISSING for piece in HOSTILE]
    np.testing.assert_allclose([float(value) for _, value in shown], result.values, rtol=5e-6)


@pytest.mark.parametrize("pieces", [english(), ARABIC, HEBREW, long(300)], ids=["english", "arabic", "hebrew", "long"])
def test_running_text_and_table_hold_the_numbers_of_the_result(pieces: tuple[str, ...]) -> None:
    result = token_scores(pieces, error=True)
    assert result.std_error is not None
    reader = Reader(page(result))
    hints = [value.split(" ± ") for _, value in scored(reader)]
    np.testing.assert_allclose(
        [[float(v) for v in hint] for hint in hints], np.stack([result.values, result.std_error], 1), rtol=5e-6
    )
    rows = page(result).split('<table class="values">')[1].split("</table>")[0].split("<tr>")[2:]
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in rows]
    assert [int(c[0]) for c in cells] == list(range(len(pieces)))
    np.testing.assert_allclose([float(c[1]) for c in cells], result.values, atol=0.00051)
    np.testing.assert_allclose([float(c[2].removeprefix("± ")) for c in cells], result.std_error, atol=0.00051)


def test_a_grid_holds_every_number_at_its_place() -> None:
    result = matrix()
    hints = [float(str(a["title"])) for tag, a, _ in Reader(page(result)).cells if tag == "td" and "title" in a]
    np.testing.assert_allclose(np.reshape(hints, result.values.shape), result.values, rtol=5e-6)


def test_text_between_units_is_shown_and_not_coloured() -> None:
    shown = scored(Reader(page(words())))
    assert [text for text, _ in shown] == ["The", " capital", " of", " France"]
    assert "<bdi class=s>&lt;s&gt;</bdi>" in page(words())


def test_a_page_says_what_it_leaves_out() -> None:
    big = Scores(values=np.random.default_rng(0).normal(size=(150, 160)), axes=("query", "key"))
    source = page(big)
    assert "of 150 and 160" in source
    assert len(source) < 3_000_000
    row, column = np.unravel_index(np.abs(big.values).argmax(), big.values.shape)
    assert f'title="{big.values[row, column]:+.6g}"' in source
    assert "The 6000 strongest of 6100 values" in page(token_scores(long(6100)))


def test_five_thousand_tokens_stay_small() -> None:
    assert len(page(token_scores(long(5000), error=True)).encode()) < 1_000_000


@pytest.mark.slow
def test_five_thousand_tokens_by_three_methods_stay_small() -> None:
    assert len(page(explanation(long(5000))).encode()) < 3_000_000


def test_curves_begin_and_end_where_the_numbers_do() -> None:
    source = page(KINDS["curve"])
    assert "logit from 8 to -1" in source
    line = re.search(r'class="line c0" d="(M[^"]*L[^"]*)"/>\n</svg>', source)
    assert line is not None
    points = np.array([[float(v) for v in p.split()] for p in re.split("[ML]", line[1])[1:]])
    values = KINDS["curve"].values  # type: ignore[attr-defined]
    assert np.corrcoef(points[:, 1], -values)[0, 1] > 0.99999
    assert np.allclose(np.diff(points[:, 0]), np.diff(points[:, 0])[0], atol=0.11)


def test_a_missing_value_breaks_the_curve_and_infinity_does_not_hide_the_rest() -> None:
    result = Scores(values=np.array([1.0, np.nan, 2.0, np.inf, 3.0]), axes=("step",))
    source = page(result)
    assert "+inf" in source
    assert ">nan<" in source
    assert "NaN" not in source.split("<body>")[1]


def test_an_explanation_shows_everything_in_order() -> None:
    source = page(explanation())
    heads = [
        "The prompt",
        "What the model predicts",
        "61.32 %",
        "Integrated gradients",
        "Occlusion",
        "Shapley values",
        "Side by side",
        "Evidence",
        "0.8300",
        "✗ short",
        "How it was computed",
        "arXiv:1703.01365",
    ]
    places = [source.index(head) for head in heads]
    assert places == sorted(places)
    nested = Explanation(title="outer", results=(explanation(),))
    assert "Side by side" in page(nested)


def test_a_chat_is_shown_message_by_message_under_its_roles() -> None:
    pieces = ("<|user|>", "What", " is", " it?", "<|end|>", "A", " city.")
    chat = Tokens(
        tuple(range(7)),
        pieces,
        (True, False, False, False, True, False, False),
        "".join(pieces),
        None,
        ("", "user", "user", "user", "", "assistant", "assistant"),
        (-1, 0, 0, 0, -1, 1, 1),
    )
    texts = [text for tag, _, text in Reader(page(Explanation(tokens=chat))).cells if tag == "p"]
    start = texts.index("user")
    assert texts[start : start + 4] == ["user", "What is it?", "assistant", "A city."]


def test_text_has_contrast_on_every_shade_in_both_modes() -> None:
    for palette in (colours.LIGHT, colours.DARK):
        for step in range(-colours.LEVELS, colours.LEVELS + 1):
            assert colours.contrast(palette.ink, colours.colour(step / colours.LEVELS, palette)) >= 4.5
        for tone in (palette.quiet, palette.good, palette.short):
            assert colours.contrast(tone, palette.paper) >= 4.5
    assert "prefers-color-scheme:dark" in style()
    assert colours.contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)


def test_the_scale_is_symmetric_and_linear_and_zero_is_the_background() -> None:
    assert [colours.level(v, 2.0) for v in (-2, -1, 0, 1, 2, 9, float("nan"), float("inf"))] == [
        -20,
        -10,
        0,
        10,
        20,
        20,
        0,
        20,
    ]
    assert colours.colour(0.0, colours.LIGHT) == (255, 255, 255)
    assert colours.colour(1.0, colours.DARK) == colours.DARK.raises
    assert colours.largest(np.array([np.nan, -3, np.inf])) == 3


def test_units_between_which_nothing_is_known_are_kept_apart() -> None:
    assert re.search("one</span> <span", page(Scores(values=np.ones(2), labels={"unit": ("one", "two")})))
    assert re.search("one</span><span", page(Scores(values=np.ones(2), labels={"unit": ("one", " two")})))


def test_only_results_have_pages() -> None:
    with pytest.raises(InputError, match="no kind of result"):
        page(Result())


def test_a_title_may_be_anything() -> None:
    for title in ("</title><script>x</script>", "\ud800", "a" * 5000, "\n"):
        assert page(Scores(title=title, values=np.ones(1), tokens=tokens(("a",)))).count("<script") == 1
