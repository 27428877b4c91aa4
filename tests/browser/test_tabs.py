"""Every tab on the bundled model, in both colour schemes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.browser.conftest import FRANCE, ITALY, Window

pytestmark = pytest.mark.browser
Open = Callable[..., Window]


def _seen(page: Any, axis: int = 0) -> set[tuple[int, int, int]]:
    """Return some colours of the first matrix."""
    found = page.evaluate(
        """() => {
          const c = document.querySelector('.matrix canvas');
          const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
          const out = new Set();
          for (let i = 0; i < d.length; i += 4 * 37) out.add([d[i], d[i + 1], d[i + 2]].join());
          return [...out];
        }"""
    )
    return {tuple(map(int, text.split(","))) for text in found}


def test_the_prompt_is_read_and_a_target_is_picked(window: Open) -> None:
    page = window().open()
    page.get_by_label("Prompt", exact=True).last.fill(FRANCE)
    page.keyboard.press("Enter")
    page.wait_for_selector(".bars")
    assert page.locator(".strip [data-i]").all_inner_texts() == ["<|bos|>", "The", " capital", " of", " France", " is"]
    first = page.locator(".next .bars tbody tr").first
    assert first.locator("th").inner_text().strip() == "Paris"
    page.get_by_role("button", name="not Berlin").click()
    page.wait_for_function("() => document.querySelector('.why').textContent.includes('Berlin')")
    assert page.locator("input[aria-label='the alternative']").input_value() == " Berlin"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_attribution_shows_methods_side_by_side_with_their_evidence(window: Open, scheme: str) -> None:
    page = window(color_scheme=scheme).open(prompt=FRANCE)
    assert page.locator(".side-by-side h3").all_inner_texts() == ["Integrated gradients", "Occlusion"]
    text = page.locator("#view").inner_text()
    assert "Completeness." in text
    assert "Do they agree?" in text
    assert "Kendall" in text
    assert page.locator(".curve path.band").count() == 2
    page.get_by_text("5 numbers").first.click()
    header = page.get_by_role("button", name="logit").first
    header.click()
    shown = [float(t.replace("−", "-")) for t in page.locator("details[open] tbody td:nth-child(3)").all_inner_texts()]
    assert shown == sorted(shown, reverse=True)
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert dark == ("rgb(21, 23, 27)" if scheme == "dark" else "rgb(255, 255, 255)")


def test_a_further_method_joins_the_others(window: Open) -> None:
    one = window()
    page = one.open(prompt=FRANCE)
    page.get_by_label("Add a method").select_option("gradient_x_input")
    page.wait_for_selector("text=Gradient x input >> visible=true")
    page.wait_for_function("() => document.querySelectorAll('.side-by-side h3').length === 3", timeout=60_000)
    assert "gradient_x_input" in one.state()


def test_marking_a_token_marks_it_in_every_panel(window: Open) -> None:
    page = window().open(prompt=FRANCE)
    page.locator(".side-by-side .tokens").first.locator("[data-i]", has_text="France").click()
    assert page.locator(".tokens [aria-selected=true]").all_inner_texts() == [" France"] * 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_lens_is_a_grid_of_words(window: Open, scheme: str) -> None:
    page = window(color_scheme=scheme).open(prompt=FRANCE, tab="lens")
    grid = page.get_by_role("application")
    assert "6 rows (layer) by 6 columns (position)" in (grid.get_attribute("aria-label") or "")
    grid.focus()
    for key in ("ArrowDown", "End", "PageDown"):
        page.keyboard.press(key)
    assert "Paris" in page.locator(".matrix .readout").inner_text()
    background = (21, 23, 27) if scheme == "dark" else (255, 255, 255)
    colours = _seen(page)
    assert background in colours
    assert any(blue > red + 30 for red, _, blue in colours)


def test_one_head_at_a_time_with_thumbnails_of_all(window: Open) -> None:
    one = window()
    page = one.open(prompt=FRANCE, tab="attention")
    assert page.locator(".thumbnail").count() == 24
    page.get_by_role("button", name="head 2.1").click()
    assert page.locator(".large h4").inner_text() == "head 2.1"
    assert page.locator(".thumbnail[aria-pressed=true]").count() == 1
    assert any(red > blue + 60 for red, _, blue in _seen(page))
    assert "9" in one.state().split("view=")[1]


def test_patching_moves_the_answer_in_both_directions(window: Open) -> None:
    one = window()
    page = one.open(prompt=FRANCE, tab="patch")
    page.get_by_label("The other prompt").fill(ITALY)
    page.get_by_role("button", name="Use it").click()
    page.wait_for_selector("section[aria-label='Activation patching at resid_pre'] .matrix", timeout=60_000)
    grid = page.get_by_role("application").first
    grid.focus()
    for key in ("ArrowDown", "Home", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    page.wait_for_selector(".moved .sentence")
    said = page.locator(".moved .sentence").inner_text()
    assert "Paris" in said
    assert "layer 0, position 4" in page.locator(".moved h3").inner_text()
    before, after = (
        float(text.rstrip(" %").lstrip("< ")) for text in page.locator(".moved .sentence b").all_inner_texts()
    )
    assert before < 1
    assert after > 90
    page.get_by_text("Break: other into first").click()
    one.settle()
    page.wait_for_selector(".matrix")
    grid = page.get_by_role("application").first
    grid.focus()
    for key in ("ArrowDown", "Home", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    page.wait_for_selector(".moved .sentence")
    one.settle()
    texts = page.locator(".moved .sentence b").all_inner_texts()
    before, after = (float(text.rstrip(" %").lstrip("< ")) for text in texts)
    assert before > 90
    assert after < 1


def test_a_head_is_switched_off_and_the_edit_is_kept(window: Open) -> None:
    one = window()
    page = one.open(prompt=FRANCE, tab="patch")
    page.wait_for_selector(".matrix", timeout=60_000)
    page.get_by_role("application").focus()
    for key in ("ArrowDown", "Home", "Enter"):
        page.keyboard.press(key)
    page.wait_for_selector(".moved .sentence")
    page.get_by_role("button", name="Keep this edit").click()
    assert "blocks.0.attn.z, head 0: switched off" in page.locator(".edits").inner_text()
    assert "edits=" in one.state()
    one.settle()
    page.get_by_role("tab", name="Compare").click()
    page.wait_for_selector(".columns .tokens", timeout=60_000)
    assert "Without the edits" in page.locator("#view").inner_text()
    page.get_by_role("button", name="Undo edit").click()
    assert page.locator(".edits").count() == 0


def test_the_graph_zooms_pans_prunes_pins_and_groups(window: Open) -> None:
    one = window()
    page = one.open(tab="runs", result=one.server.ids["graph"])
    graph = page.locator("svg.graph")
    box = graph.get_attribute("viewBox")
    graph.focus()
    page.keyboard.press("+")
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("(box) => document.querySelector('svg.graph').getAttribute('viewBox') !== box", arg=box)
    page.get_by_role("button", name="Fit").click()
    slider = page.get_by_role("slider")
    slider.fill("3")
    page.wait_for_function("() => document.querySelectorAll('.edge').length === 3")
    slider.fill("20")
    nodes = page.locator("svg.graph .node")
    total = nodes.count()
    for place in (1, 2):
        nodes.nth(place).focus()
        page.keyboard.press("Enter")
    nodes.nth(0).focus()
    page.keyboard.press("p")
    assert page.locator("svg.graph .node.pinned").count() == 1
    page.get_by_role("button", name="Group", exact=True).click()
    assert "2 nodes:" in (page.locator("svg.graph .node[data-node^='g:']").get_attribute("aria-label") or "")
    assert nodes.count() == total - 1
    page.locator("svg.graph .node[data-node^='g:']").focus()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Ungroup").click()
    assert nodes.count() == total


def test_the_graph_tab_draws_a_method_of_the_model(window: Open) -> None:
    page = window().open(prompt=FRANCE, tab="graph")
    assert page.locator("svg.graph .node").count() > 3
    page.get_by_text("edges", exact=False).locator("visible=true").last.click()


def test_two_prompts_are_compared(window: Open) -> None:
    page = window().open(prompt=FRANCE, other=ITALY, tab="compare")
    page.wait_for_function("() => document.querySelectorAll('.column .tokens').length === 2", timeout=60_000)
    firsts = page.locator(".column").evaluate_all(
        "(all) => all.map((one) => one.querySelector('.bars tbody th').textContent)"
    )
    assert [text.strip() for text in firsts] == ["Paris", "Rome"]


@pytest.mark.parametrize(
    ("name", "selector"),
    [("curve", ".curve path.band"), ("table", "td"), ("text", ".prose"), ("examples", "td"), ("graph", ".node")],
)
def test_saved_results_of_every_kind_are_shown_as_text(window: Open, name: str, selector: str) -> None:
    one = window()
    page = one.open(tab="runs", result=one.server.ids[name])
    page.wait_for_selector(selector, state="attached")
    assert page.evaluate("window.broken") is None
    assert page.locator("main script, main img").count() == 0


def test_settings_are_drawn_from_what_the_method_says_of_itself(window: Open) -> None:
    one = window()
    page = one.open(prompt=FRANCE, ask={"attribution.one": {"method": "integrated_gradients", "parameters": {}}})
    page.locator("details.more .settings > summary").click()
    page.locator("details.more").get_by_label("steps", exact=True).fill("8")
    page.keyboard.press("Tab")
    page.get_by_role("button", name="Run with these settings").click()
    one.settle()
    assert '"steps":8' in one.page.evaluate("decodeURIComponent(location.hash)")
