"""The page for everyone: axe, keyboard alone, phone width, 200 % zoom, right-to-left and hostile text."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.browser.conftest import FRANCE, ITALY, ROOT, Window

pytestmark = pytest.mark.browser
Open = Callable[..., Window]
AXE = ROOT / "frontend" / "node_modules" / "axe-core" / "axe.min.js"
TABS = ["attribution", "lens", "attention", "patch", "graph", "compare", "more", "runs"]
HOSTILE = '<script>window.broken=1</script><img src=x onerror="window.broken=1">\u202e "&amp;\u0007'
HEBREW = "שלום עולם 👩\u200d👩\u200d👧 مرحبا"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("tab", TABS)
def test_axe_finds_nothing_serious(window: Open, tab: str, scheme: str) -> None:
    if not AXE.is_file():
        pytest.skip("axe-core is not installed; run npm --prefix frontend ci")
    page = window(color_scheme=scheme, bypass_csp=True).open(prompt=FRANCE, other=ITALY, tab=tab)
    page.wait_for_timeout(300)
    page.add_script_tag(path=str(AXE))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    bad = [
        f"{one['id']}: {one['nodes'][0]['target']} {one['nodes'][0]['failureSummary']}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]
    assert not bad, "\n".join(bad)


def test_everything_is_reached_by_keyboard_alone(window: Open) -> None:
    one = window()
    page = one.open()
    page.get_by_label("Prompt", exact=True).last.focus()
    page.keyboard.type(FRANCE)
    page.keyboard.press("Enter")
    page.wait_for_selector(".side-by-side .tokens", timeout=60_000)
    reached: list[str] = []
    for _ in range(90):
        page.keyboard.press("Tab")
        name = page.evaluate(
            "() => { const e = document.activeElement;"
            " return e.getAttribute('aria-label') || e.textContent.slice(0, 40) }"
        )
        reached.append(name)
        outlined = page.evaluate(
            "() => { const s = getComputedStyle(document.activeElement);"
            " return s.outlineStyle !== 'none' || document.activeElement === document.body }"
        )
        assert outlined, f"no visible focus on {name!r}"
    text = "\n".join(reached)
    for wanted in (
        "6 tokens",
        "why Paris",
        "what is explained",
        "Attribution",
        "Copy as Python",
        "Download PNG",
        "coloured",
    ):
        assert wanted in text, wanted
    page.get_by_role("tab", name="Attribution").focus()
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("tab", selected=True).inner_text() == "Lens"
    page.locator(".strip").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.locator(".strip [aria-selected=true]").inner_text() == "The"
    page.wait_for_selector("text=After 2 tokens")


@pytest.mark.parametrize("tab", TABS)
@pytest.mark.parametrize("size", [(360, 740), (640, 450)], ids=["phone", "200 %"])
def test_nothing_sticks_out(window: Open, tab: str, size: tuple[int, int]) -> None:
    """A window of 640 x 450 CSS pixels is what 1280 x 900 shows at 200 %."""
    page = window(viewport={"width": size[0], "height": size[1]}).open(prompt=FRANCE, other=ITALY, tab=tab)
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    box = page.get_by_role("tab", selected=True).bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= size[0]


@pytest.mark.parametrize("tab", ["attribution", "lens", "attention", "graph"])
def test_hostile_tokens_are_text(window: Open, tab: str) -> None:
    page = window().open(prompt=HOSTILE, tab=tab)
    page.wait_for_timeout(300)
    assert page.evaluate("window.broken") is None
    assert page.locator("main script, main img").count() == 0
    strip = page.locator(".strip").inner_text()
    assert "<" in strip
    assert "⟨U+202E⟩" in strip
    assert "\u202e" not in page.locator("#view").inner_text()


def test_right_to_left_text_reads_from_the_right(window: Open) -> None:
    page = window().open(prompt=HEBREW)
    for text in (".strip", ".side-by-side .tokens"):
        direction = page.locator(text).first.evaluate("(e) => e.matches(':dir(rtl)')")
        assert direction, text
    assert "👩" in page.locator(".strip").inner_text()


def test_no_motion_where_none_is_wanted(window: Open) -> None:
    page = window(reduced_motion="reduce").open(prompt=FRANCE)
    assert page.locator(".track i").first.evaluate("(e) => getComputedStyle(e).transitionDuration") == "0s"
