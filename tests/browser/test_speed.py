"""How long people wait: the size of the bundle, the first view, and clicks in long results."""

from __future__ import annotations

import gzip
from collections.abc import Callable

import pytest

from tests.browser.conftest import STATIC, Window

pytestmark = pytest.mark.browser
Open = Callable[..., Window]
# Until the next frame is drawn after a click: what a person waits.
CLICK = """async ([selector, place]) => {
  const all = document.querySelectorAll(selector);
  const element = all[Math.floor(all.length * place)];
  const box = element.getBoundingClientRect();
  await new Promise((wake) => setTimeout(wake, 120));
  return new Promise((done) => {
    const start = performance.now();
    const at = {clientX: box.left + 200 + 400 * place, clientY: box.top + 60};
    element.dispatchEvent(new MouseEvent('click', {bubbles: true, ...at}));
    requestAnimationFrame(() => { const channel = new MessageChannel();
      channel.port1.onmessage = () => done(performance.now() - start); channel.port2.postMessage(0) });
  });
}"""


def _clicks(one: Window, selector: str) -> list[float]:
    one.page.evaluate(CLICK, [selector, 0.5])
    return sorted(one.page.evaluate(CLICK, [selector, place / 10]) for place in range(1, 10))


def test_the_bundle_is_small() -> None:
    if not (STATIC / "index.html").is_file():
        pytest.skip("the page is not built; run make page")
    size = sum(len(gzip.compress(path.read_bytes(), 9)) for path in STATIC.rglob("*") if path.is_file())
    print(f"bundle: {size / 1000:.1f} kB gzip")
    assert size < 60_000


def test_the_first_view_comes_quickly(window: Open) -> None:
    one = window()
    times = []
    for _ in range(3):
        one.page.goto("about:blank")
        one.page.goto(one.server.url)
        one.page.wait_for_selector(".prompt textarea")
        times.append(one.page.evaluate("performance.now()"))
    print("first view:", [f"{time:.0f} ms" for time in times])
    assert min(times) < 1500


@pytest.mark.parametrize(("name", "most"), [("1000", 100), ("4000", 400)])
def test_a_click_on_a_token_is_seen_at_once(window: Open, name: str, most: int) -> None:
    one = window()
    page = one.open(tab="runs", result=one.server.ids[f"tokens {name}"])
    page.wait_for_selector(".tokens [data-i]")
    times = _clicks(one, ".tokens [data-i]")
    print(f"{name} tokens, click to redraw: median {times[4]:.0f} ms, worst {times[-1]:.0f} ms")
    assert times[4] < most


@pytest.mark.parametrize("name", ["grid 1000", "grid 4000", "heads 1000"])
def test_a_click_on_a_cell_is_seen_at_once(window: Open, name: str) -> None:
    one = window()
    page = one.open(tab="runs", result=one.server.ids[name])
    page.wait_for_selector(".matrix canvas")
    times = _clicks(one, ".matrix canvas")
    print(f"{name}, click to redraw: median {times[4]:.0f} ms, worst {times[-1]:.0f} ms")
    assert times[4] < 100
    assert "at=" in one.state()


def test_large_matrices_travel_as_bytes_one_head_at_a_time(window: Open) -> None:
    one = window()
    sizes: list[tuple[str, int]] = []
    one.page.on(
        "response",
        lambda reply: (
            sizes.append((reply.url, int(reply.headers.get("content-length", 0)))) if "/values?" in reply.url else None
        ),
    )
    page = one.open(tab="runs", result=one.server.ids["heads 1000"])
    page.wait_for_selector(".matrix canvas")
    page.wait_for_timeout(500)
    assert sizes
    assert all("at=head" in url for url, _ in sizes)
    assert {size for url, size in sizes if "uint8" in url} == {1_000_000}
