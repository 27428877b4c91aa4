"""Every zoo model has a page, made from its files, with pictures; `scripts.make_zoo_pages` makes them again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pellucid import zoo
from scripts import make_zoo_pages

ROOT = Path(__file__).resolve().parents[2]
NAMES = zoo.names()


def page(name: str) -> Path:
    return make_zoo_pages.DOCS / "zoo" / f"{name.replace('/', '-')}.md"


@pytest.mark.parametrize("name", NAMES)
def test_the_page_says_what_the_files_say(name: str) -> None:
    text = page(name).read_text(encoding="utf-8")
    assert text == make_zoo_pages.filled(text), "run python -m scripts.make_zoo_pages"
    assert f"zoo/{page(name).name}" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert page(name).name in (make_zoo_pages.DOCS / "zoo.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_the_page_has_pictures_that_the_script_draws(name: str) -> None:
    shown = re.findall(r"!\[.+?\]\(\.\./images/zoo/(.+?)\.png\)", page(name).read_text(encoding="utf-8"))
    assert shown
    for picture in shown:
        assert picture in make_zoo_pages.pictures()
        assert (make_zoo_pages.IMAGES / f"{picture}.png").stat().st_size < 100_000


def test_what_stands_between_the_marks_is_made_again_and_nothing_else() -> None:
    made = make_zoo_pages.filled("a\n<!-- made: facts truth/fact -->\nold\n<!-- end -->\nb")
    assert made.startswith("a\n<!-- made: facts truth/fact -->\n\n- TruthForCausalLM")
    assert made.endswith("\n\n<!-- end -->\nb")
    assert "old" not in made
    assert make_zoo_pages.filled(made) == made


def test_the_truth_page_has_five_sentences_and_the_tables() -> None:
    text = (make_zoo_pages.DOCS / "truth.md").read_text(encoding="utf-8")
    taught = text.partition("## What it teaches")[2].partition("\n## ")[0]
    assert len(re.findall(r"^\d\. ", taught, re.MULTILINE)) == 5
    parts = {what.partition(" ")[2] for _, what, _ in make_zoo_pages.BLOCK.findall(text)}
    assert parts == {"overall", "truth/redundant", "tiny-classifier", "tiny-classifier-shortcut", "left-out"}
