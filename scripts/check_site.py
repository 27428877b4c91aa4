"""Check that the built manual loads nothing from other hosts: `python scripts/check_site.py site`.

Links that a reader clicks may lead anywhere. What a page loads by itself - scripts, styles, images, frames, fonts - may
not.
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

LOADED = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "link": "href",
    "source": "src",
    "video": "src",
    "embed": "src",
}
# A <link> of these kinds tells where a page belongs and loads nothing.
POINTERS = {"canonical", "prev", "next", "alternate", "license", "author"}
CSS = re.compile(r"""(?:url\(|@import\s)\s*['"]?(?:https?:)?//""")
# The theme's script fetches further code for these, so pages must not have them.
FETCHES = {"a diagram": 'class="mermaid"', "a repository": 'data-md-component="source"'}


class Loads(HTMLParser):
    """Collect what a page loads from other hosts."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at one element."""
        given = {name: value or "" for name, value in attrs}
        address = given.get(LOADED.get(tag, ""), "")
        if re.match(r"(https?:)?//", address) and not (tag == "link" and set(given.get("rel", "").split()) & POINTERS):
            self.found.append(f"<{tag}> {address}")


def foreign(site: Path) -> list[str]:
    """Return every load from another host, with its file."""
    found = []
    for path in sorted(site.rglob("*")):
        text = path.read_text(encoding="utf-8", errors="replace") if path.suffix in (".html", ".css") else ""
        if path.suffix == ".css" or "<style" in text:
            found += [f"{path.relative_to(site)}: {match[0]}..." for match in CSS.finditer(text)]
        if path.suffix == ".html":
            page = Loads()
            page.feed(text)
            found += [f"{path.relative_to(site)}: {item}" for item in page.found]
            found += [f"{path.relative_to(site)}: {what}" for what, mark in FETCHES.items() if mark in text]
    return found


def main(folder: str) -> None:
    """Say what is loaded from elsewhere and leave with status 1, or say that nothing is."""
    site = Path(folder)
    pages = len(list(site.rglob("*.html")))
    found = foreign(site)
    if found or not pages:
        sys.exit("\n".join(found) or f"{folder} has no pages.")
    print(f"{folder}: {pages} pages, nothing loaded from other hosts. Open {(site / 'index.html').resolve()}")


if __name__ == "__main__":
    main(*sys.argv[1:])
