"""The address holds the state; long work survives a reload; runs are kept, found, annotated and removed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.browser.conftest import FRANCE, ITALY, Window

pytestmark = pytest.mark.browser
Open = Callable[..., Window]


def test_back_and_forward_undo_and_redo(window: Open) -> None:
    one = window()
    page = one.open(prompt=FRANCE)
    page.get_by_role("tab", name="Lens").click()
    one.settle()
    page.get_by_role("tab", name="Attention").click()
    one.settle()
    page.go_back()
    assert page.get_by_role("tab", selected=True).inner_text() == "Lens"
    page.wait_for_selector(".matrix")
    page.go_back()
    assert page.get_by_role("tab", selected=True).inner_text() == "Attribution"
    page.go_forward()
    assert page.get_by_role("tab", selected=True).inner_text() == "Lens"


def test_a_link_opens_the_same_view_in_another_browser(window: Open) -> None:
    one, other = window(), window()
    page = one.open(prompt=FRANCE, tab="attention")
    page.get_by_role("button", name="head 3.2").click()
    page.get_by_role("button", name="Link").click()
    link = page.evaluate("navigator.clipboard.readText()")
    assert link == page.url
    other.page.goto(link)
    other.page.wait_for_selector(".large h4", timeout=60_000)
    assert other.page.locator(".large h4").inner_text() == "head 3.2"


def test_a_job_is_shown_cancelled_and_asked_again(window: Open) -> None:
    one = window()
    ask = {"attribution.one": {"method": "shapley_values", "parameters": {"exact": False, "permutations": 20000}}}
    one.page.goto("about:blank")
    page = one.open(prompt=ITALY)
    page.evaluate("(ask) => { location.hash += '&ask=' + encodeURIComponent(JSON.stringify(ask)) }", ask)
    page.reload()
    page.wait_for_selector(".more .working", timeout=60_000)
    working = page.locator(".more .working")
    page.wait_for_function(
        "() => /left|expected|\\d s/.test(document.querySelector('.more .working')?.textContent ?? '')"
    )
    before = page.evaluate("Object.keys(JSON.parse(localStorage.getItem('pellucid.jobs'))).length")
    page.reload()
    page.wait_for_selector(".more .working")
    assert page.evaluate("Object.keys(JSON.parse(localStorage.getItem('pellucid.jobs'))).length") == before
    jobs = page.evaluate("fetch('api/v1/jobs?state=running&state=queued').then((r) => r.json())")
    assert [job["method"] for job in jobs] == ["shapley_values"], "a reload asked again"
    working.get_by_role("button", name="Cancel").click()
    page.wait_for_selector("text=Cancelled. Nothing was changed.")
    page.wait_for_function(
        "async () => (await (await fetch('api/v1/jobs?state=running&state=queued')).json()).length === 0",
        timeout=60_000,
    )


def test_runs_are_found_annotated_and_removed(window: Open) -> None:
    one = window()
    page = one.open(prompt="The capital of Spain is", tab="lens")
    page.wait_for_selector(".matrix")
    page.get_by_role("tab", name="Runs").click()
    page.wait_for_selector(".runs li")
    page.get_by_label("Search runs").fill("Spain")
    page.wait_for_function("() => document.querySelectorAll('.runs li').length === 1")
    page.locator(".runs li").get_by_role("button", name="note on").click()
    page.get_by_label("Note", exact=True).fill("worth a look")
    page.get_by_label("Tags, separated by commas").fill("iberia, check")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=worth a look")
    page.get_by_role("button", name="Runs with the tag iberia").click()
    page.get_by_label("Search runs").fill("")
    page.wait_for_function("() => document.querySelectorAll('.runs li').length === 1")
    assert "iberia" in one.state()
    page.get_by_label("Up to this day").fill("2020-01-01")
    page.wait_for_selector("text=Nothing was found.")
    page.get_by_label("Up to this day").fill("")
    page.get_by_label("From this day on").fill("2020-01-01")
    page.get_by_label("Method").select_option("logit_lens")
    page.wait_for_selector(".runs li")
    page.get_by_role("button", name="Take the tag iberia off").click()
    page.get_by_label("Search runs").fill("Spain")
    page.wait_for_function("() => document.querySelectorAll('.runs li').length === 1")
    page.locator(".runs .open").click()
    page.wait_for_selector(".matrix")
    assert "result=" in one.state()
    page.get_by_role("button", name="All runs").click()
    page.get_by_role("button", name="ask again").first.click()
    assert page.get_by_role("tab", selected=True).inner_text() == "Lens"
    page.go_back()
    page.wait_for_selector(".runs li")
    page.get_by_role("button", name="Remove").first.click()
    page.get_by_role("button", name="Remove", exact=True).click()
    page.wait_for_selector("text=Nothing was found.")


def test_a_panel_is_copied_as_python_and_downloaded(window: Open, tmp_path: Path) -> None:
    one = window(accept_downloads=True)
    page = one.open(prompt=FRANCE, tab="lens")
    page.get_by_role("button", name="Copy as Python").click()
    page.wait_for_selector("text=Copied as Python.")
    code = page.evaluate("navigator.clipboard.readText()")
    assert "logit_lens" in code
    compile(code, "copied", "exec")
    sizes = {}
    for kind in ("JSON", "CSV", "SVG", "PNG", "HTML"):
        with page.expect_download() as download:
            page.get_by_role("button", name=f"Download {kind}").click()
        file = tmp_path / download.value.suggested_filename
        download.value.save_as(file)
        sizes[file.name] = file.stat().st_size
    assert min(sizes.values()) > 100, sizes
    assert json.loads((tmp_path / "logit_lens.json").read_text())
    page.get_by_role("tab", name="Runs").click()
    page.get_by_label("Open a saved result").set_input_files(tmp_path / "logit_lens.json")
    page.wait_for_selector(".matrix")
    assert page.locator("#view h2").inner_text() == "Logit lens at resid_post"


def test_a_wrong_question_is_refused_in_one_sentence(window: Open) -> None:
    one = window()
    page = one.open(prompt=FRANCE, other="The capital of the United Kingdom is", tab="patch")
    assert "tokens; patching lines them up" in page.get_by_role("alert").first.inner_text()


def test_a_chat_is_written_and_read(window: Open) -> None:
    one = window()
    page = one.open()
    page.get_by_label("as a chat").check()
    page.get_by_label("Message 1", exact=True).fill("Where is Paris?")
    page.get_by_role("button", name="Add a message").click()
    assert page.locator(".chat li").count() == 2
    page.get_by_role("button", name="Remove message 2").click()
    page.get_by_role("button", name="Read", exact=True).click()
    page.wait_for_selector(".strip")
    assert "chat=" in one.state()
