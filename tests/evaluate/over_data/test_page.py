"""The page of an evaluation: whole, and showing hostile, right-to-left and invalid text instead of obeying it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import pellucid
from pellucid.evaluate.over_data import Evaluation, evaluate_dataset
from pellucid.evaluate.over_data.report import figure, report
from tests.evaluate.over_data.cases import reviews

HOSTILE = (
    "<script>alert(1)</script> good film", "</style><img src=x onerror=alert(2)> bad", "good \u202e\u0007 film \x00",
    "פילם טוב מאוד good", "فيلم جيد جدا", "half \ud800 pair good", '" onmouseover="alert(3)" good', "&amp; &lt; good",
    "👩‍👩‍👧‍👦 e\u0301 good",
)  # fmt: skip


class Tags(HTMLParser):
    """Collect tags and attributes; check that they close in order."""

    VOID = ("meta", "br", "path", "circle", "rect")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def hostile() -> Evaluation:
    def rated(texts: list[str]) -> list[float]:
        return [float(text.count("good")) + 0.1 * len(text.split()) for text in texts]

    subject = pellucid.load(rated)
    rows = [{"text": text, "label": '<b onclick="x">'} for text in HOSTILE]
    asked: dict[str, Any] = {"methods": ["occlusion", "lime"], "metrics": ["comprehensiveness", "sufficiency"]}
    return evaluate_dataset(subject, rows, **asked, unit="word", settings={"lime": {"samples": 16}})


@pytest.fixture(scope="module")
def ordinary() -> Evaluation:
    subject = pellucid.load("zoo:tiny-classifier")
    return evaluate_dataset(
        subject, reviews(4), methods=["occlusion", "gradient_x_input"], metrics=["comprehensiveness", "token_f1"]
    )


def test_hostile_texts_are_shown_and_not_obeyed(hostile: Evaluation, tmp_path: Path) -> None:
    page = hostile.html(tmp_path / "page.html")
    (tmp_path / "page.html").read_bytes().decode("utf-8")
    tags = Tags()
    tags.feed(page)
    assert not tags.open
    assert not tags.seen & {"script", "img", "iframe", "link", "b onclick"}
    assert not any(name.startswith("on") for name in tags.attributes)
    assert "&lt;script&gt;" in page
    assert not re.search(r"[\u202e\x00\x07\ud800]", page)
    assert "<bdi>" in page or 'dir="auto"' in page


def test_nothing_is_loaded_from_elsewhere(ordinary: Evaluation) -> None:
    page = ordinary.html()
    assert "default-src 'none'" in page
    assert not re.search(r'(src|href)="?https?:', page)
    assert "prefers-color-scheme:dark" in page
    assert "max-width:40rem" in page


def test_the_page_shows_the_numbers_of_the_tables(ordinary: Evaluation) -> None:
    page, shown = ordinary.html(), report(ordinary)
    for metric in shown.metrics:
        for method, cell in zip(shown.methods, metric.cells, strict=True):
            values = ordinary.cells[method, metric.name].values
            assert (cell.mean, cell.low, cell.high) == (values["value"], values["low"], values["high"])
            assert f"{cell.mean:.3g}" in page
    assert f"All {len(ordinary.tests)} tests" in page
    assert "people marked: " in page


def test_best_and_worst_examples_are_the_furthest_from_chance(ordinary: Evaluation) -> None:
    shown = next(one for one in report(ordinary).metrics if one.name == "comprehensiveness")
    gaps = [
        sum(one[i]["value"] - one[i]["random_mean"] for one in
            (ordinary.numbers("comprehensiveness", method) for method in ordinary.method_names))
        for i in range(4)
    ]  # fmt: skip
    order = sorted(range(4), key=lambda i: -gaps[i])
    numbers = [int(re.findall(r"Example (\d+)", one.heading)[0]) - 1 for one in (*shown.best, *shown.worst)]
    assert numbers == [*order[:2], *order[:1:-1]]
    for one in (*shown.best, *shown.worst):
        values = [value for _, value, _ in one.strips]
        assert values == sorted(values, reverse=True)


def test_the_drawing_is_one_whole_file(hostile: Evaluation) -> None:
    import xml.etree.ElementTree as ElementTree

    root = ElementTree.fromstring(figure(hostile))
    assert root.tag.endswith("svg")
    assert len(list(root.iter("{http://www.w3.org/2000/svg}circle"))) == 4
