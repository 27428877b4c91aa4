"""Text that breaks pages and terminals: scripts, surrogates, directions, control characters."""

from __future__ import annotations

import io
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import pellucid
from pellucid.core.errors import InputError
from pellucid.core.results import Scores
from pellucid.core.tokens import Tokens, Units
from tests.bad_input.small import language_model, refused

HOSTILE = "<script>alert(1)</script><b onclick=x>\"'& [red]hello[/red] &lt;"
HEBREW, ARABIC = "שלום", "مرحبا"


class Text(HTMLParser):
    """Collects the visible text and the tags of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.said, self.tags, self.attributes = "", set[str](), set[str]()
        self.skipped, self.scripts = 0, list[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.skipped += tag in ("style", "script")
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.skipped -= tag in ("style", "script")

    def handle_data(self, data: str) -> None:
        self.said += "" if self.skipped else data
        if self.skipped and self.lasttag == "script":
            self.scripts[-1] += data


def page(result: Scores) -> Text:
    """Read a page, whose one script must be the page's own; it is not among the tags."""
    parsed = Text()
    parsed.feed(str(result.html()))
    own = (Path(pellucid.__file__).parent / "render" / "page.js").read_text(encoding="utf-8")
    assert [text.strip() for text in parsed.scripts] == [own.strip()]
    parsed.tags.discard("script")
    return parsed


def terminal(result: Scores, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setenv("COLUMNS", "200")
    result.show()
    return capsys.readouterr().out


def attribute(text: str, unit: str = "token") -> Scores:
    result: Scores = pellucid.run("gradient_x_input", language_model(), text, target=7, unit=unit)
    return result


def test_a_script_in_a_prompt_is_text(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for unit in ("token", "word", "message"):
        result = attribute(HOSTILE, unit)
        parsed = page(result)
        assert not parsed.tags & {"script", "b"}
        assert not {name for name in parsed.attributes if name.startswith("on")}
        assert "".join(HOSTILE.split()) in "".join(parsed.said.split()) or unit != "message"
    shown = "".join(terminal(attribute(HOSTILE, "message"), monkeypatch, capsys).split())
    assert "<script>alert(1)</script>" in shown
    assert "[red]hello[/red]" in shown


def test_a_script_in_one_token(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for piece in ("<script>", "</script>", "[bold]", "\x1b[2J", "\u202e", "\x00", "-->"):
        tokens = Tokens((5,), (piece,), (False,), piece, ((0, len(piece)),))
        result = Scores(
            values=np.array([1.0]), labels={"unit": (piece,)}, tokens=tokens, units=Units("token", ((0, 1),), (piece,))
        )
        assert "script" not in page(result).tags
        shown = terminal(result, monkeypatch, capsys)
        assert "\x1b[2J" not in shown
        assert "\x00" not in shown
        if piece.isprintable():
            assert piece in shown


def test_right_to_left_text_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"Hello {HEBREW} is {ARABIC} the"
    result = attribute(text, "word")
    assert result.units is not None
    assert [label.strip() for label in result.units.labels] == text.split()
    assert np.isfinite(result.scores).all()
    markup = result.html(tmp_path / "page.html")
    assert HEBREW in markup
    assert ARABIC in markup
    assert "<bdi" in markup or 'dir="auto"' in markup or "unicode-bidi" in markup
    shown = terminal(result, monkeypatch, capsys)
    assert HEBREW in shown
    assert ARABIC in shown


def test_a_character_split_over_tokens_is_shown_once() -> None:
    result = attribute("Hello 😀 é")
    assert result.tokens is not None
    assert "".join(result.tokens.pieces) == "Hello 😀 é"
    assert "\ufffd" not in result.html()


@pytest.mark.parametrize("text", ["\ud800", "Hello \udc00 world"])
def test_a_lone_surrogate_is_refused(text: str) -> None:
    refused(lambda: attribute(text), InputError, "surrogate", "position", subject=language_model())
    chat = [{"role": "user", "content": text}]
    refused(
        lambda: pellucid.explain(language_model(), chat), InputError, "Message 0", "surrogate", subject=language_model()
    )


def test_a_lone_surrogate_in_a_result_is_saved_and_shown(tmp_path: Path) -> None:
    """Black boxes and results of others may hold one; then the result is kept."""
    result = Scores(values=np.array([1.0]), title="a \ud800 b", labels={"unit": ("\ud800",)})
    result.html(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_bytes().decode("utf-8")
    opened = pellucid.open(result.save(tmp_path / "saved"))
    assert opened.title == result.title
    Console(file=io.StringIO()).print(opened.title.encode("utf-8", "replace").decode())


def test_a_black_box_of_strange_text() -> None:
    subject = pellucid.load(lambda texts: [float(len(text)) for text in texts])
    text = f"<script> {HEBREW} \u200b \u202e x"
    result = pellucid.run("occlusion", subject, text)
    assert "".join(result.tokens.pieces) == text
    assert "script" not in page(result).tags
