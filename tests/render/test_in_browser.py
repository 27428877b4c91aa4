"""Pages in a headless browser: they ask for nothing, are whole without script, and are interactive with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pellucid.core.results import Result
from tests.render.samples import HOSTILE, every_kind, explanation, token_scores

pytestmark = pytest.mark.browser
KINDS = {**every_kind(), "hostile": explanation(HOSTILE)}


class Seen:
    """A page opened from a file, with every request and complaint that it made."""

    def __init__(self, chromium: Any, path: Path, source: str, *, script: bool = True) -> None:
        path.write_text(source, encoding="utf-8")
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page = chromium.new_context(java_script_enabled=script).new_page()
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(f"dialog {dialog.message}"))
        self.page.goto(path.as_uri())


@pytest.mark.parametrize("name", KINDS)
def test_a_page_asks_for_nothing_and_says_the_same_without_script(name: str, chromium: Any, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    source = KINDS[name].html()
    shown = []
    for script in (False, True):
        seen = Seen(chromium, path, source, script=script)
        assert seen.requests == [path.as_uri()]
        assert seen.complaints == []
        seen.page.set_viewport_size({"width": 390, "height": 800})
        shown.append(seen.page.inner_text("main"))
        if script:
            wide = seen.page.evaluate("document.documentElement.scrollWidth")
            assert wide <= 390, f"{wide} pixels wide on a phone"
        seen.page.context.close()
    assert shown[0] == shown[1]
    assert len(shown[0]) > 20


@pytest.mark.parametrize("name", KINDS)
def test_a_notebook_shows_the_same_page_in_a_frame_that_reaches_nothing(
    name: str, chromium: Any, tmp_path: Path
) -> None:
    result: Result = KINDS[name]
    notebook = f"<!doctype html><meta charset=utf-8><p id=own>notebook</p>{result._repr_html_()}"
    path = tmp_path / "notebook.html"
    seen = Seen(chromium, path, notebook)
    frame = seen.page.frames[1]
    frame.wait_for_selector("main")
    assert [url for url in seen.requests if url not in (path.as_uri(), "about:srcdoc")] == []
    assert seen.complaints == []
    alone = Seen(chromium, tmp_path / "page.html", result.html())
    assert frame.inner_text("h1") == alone.page.inner_text("h1")
    assert frame.locator("main *").count() == alone.page.locator("main *").count()
    assert frame.locator("output.readout").count() == 1
    assert frame.evaluate("self.origin") == "null"
    assert frame.evaluate("(() => { try { return parent.document.title } catch { return 'refused' } })()") == "refused"
    assert seen.page.inner_text("#own") == "notebook"
    seen.page.context.close()
    alone.page.context.close()


def test_values_are_read_by_keyboard_and_marked_in_every_method(chromium: Any, tmp_path: Path) -> None:
    seen = Seen(chromium, tmp_path / "page.html", explanation().html())
    page = seen.page
    first = page.locator(".tokens [title]").first
    first.focus()
    said = page.inner_text("output.readout")
    assert said == f"{first.evaluate('one => one.textContent')}: {first.get_attribute('title')}"
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.textContent") == page.locator(".tokens [title]").nth(1).evaluate(
        "one => one.textContent"
    )
    assert page.inner_text("output.readout") != said
    boxes = page.locator(".tokens").count()
    assert boxes > 1
    assert page.locator(".tokens .same").count() == boxes
    page.keyboard.press("ArrowLeft")
    assert page.inner_text("output.readout") == said
    page.locator("h1").hover()
    assert page.locator("output.readout").is_hidden()
    assert seen.complaints == []
    page.context.close()


def test_tables_are_sorted_by_number_and_by_text(chromium: Any, tmp_path: Path) -> None:
    result = token_scores(("b", "c", "a", "d"))
    page = Seen(chromium, tmp_path / "page.html", result.html()).page
    page.locator("details:has(table.values) summary").click()
    button = page.locator("table.values thead button").nth(2)
    button.focus()
    page.keyboard.press("Enter")
    column = page.locator("table.values tbody tr td:nth-child(3)")
    values = [float(text.replace("−", "-")) for text in column.all_inner_texts()]
    assert values == sorted(values, reverse=True)
    assert page.locator("table.values [aria-sort=descending]").count() == 1
    button.click()
    values = [float(text.replace("−", "-")) for text in column.all_inner_texts()]
    assert values == sorted(values)
    page.locator("table.values thead button").nth(1).click()
    names = page.locator("table.values tbody th").all_inner_texts()
    assert names == sorted(names, reverse=True)
    page.context.close()
