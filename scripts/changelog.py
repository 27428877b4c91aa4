"""Build CHANGELOG.md from the fragments in `changelog.d/`, each one sentence: `python scripts/changelog.py`.

A fragment is `changelog.d/<issue>-<word>.<kind>.md` (the word may be left out where an issue has one fragment).
Building replaces the section of the version in pyproject.toml and keeps those of older ones, so that it can be
repeated; whoever raises the version removes the fragments that are built in.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "changelog.d"
KINDS = {"added": "Added", "changed": "Changed", "fixed": "Fixed", "removed": "Removed"}
NAME = re.compile(r"^(?P<issue>\d+)(-(?P<word>[a-z0-9_-]+))?\.(?P<kind>[a-z]+)\.md$")
MOST_WORDS = 25
HEAD = "# Changelog\n\nBuilt by `make changelog` from `changelog.d/`: what a user sees, newest first.\n"


def problems(name: str, text: str) -> list[str]:
    """Say what is wrong with a fragment; an empty list means nothing."""
    found = []
    match = NAME.match(name)
    if match is None:
        found.append(f"{name} is not called <issue>-<word>.<kind>.md")
    elif match["kind"] not in KINDS:
        found.append(f"{name} has the kind {match['kind']!r}; use one of {', '.join(KINDS)}")
    sentence = text.strip()
    if "\n" in sentence or not sentence.endswith(".") or re.search(r"[.!?] +[A-Z]", sentence):
        found.append(f"{name} is not one sentence on one line that ends with a full stop")
    if len(sentence.split()) > MOST_WORDS:
        found.append(f"{name} has {len(sentence.split())} words; at most {MOST_WORDS} are allowed")
    return found


def build(fragments: dict[str, str], version: str, before: str = "") -> str:
    """Return the changelog: this version's fragments by kind and issue, then the other versions in `before`."""
    parts = [HEAD, f"\n## {version}\n"]
    for kind, title in KINDS.items():
        chosen = sorted(
            (int(m["issue"]), m["word"] or "", text)
            for name, text in fragments.items()
            if (m := NAME.match(name)) and m["kind"] == kind
        )
        if chosen:
            parts.append(f"\n### {title}\n\n")
            parts += [f"- {text.strip()}\n" for _, _, text in chosen]
    older = re.split(r"^(?=## )", before, flags=re.MULTILINE)[1:]
    parts += [f"\n{section.rstrip()}\n" for section in older if section.splitlines()[0] != f"## {version}"]
    return "".join(parts)


def version() -> str:
    """Return the version that pyproject.toml states."""
    found = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        sys.exit("pyproject.toml states no version.")
    return found[1]


def fragments() -> dict[str, str]:
    """Return the text of every fragment by file name."""
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.md"))}


def main() -> None:
    """Write CHANGELOG.md, or say which fragments are wrong and write nothing."""
    texts = fragments()
    wrong = [problem for name, text in texts.items() for problem in problems(name, text)]
    if wrong:
        sys.exit("\n".join(wrong))
    path = ROOT / "CHANGELOG.md"
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    path.write_text(build(texts, version(), before), encoding="utf-8")
    print(f"CHANGELOG.md: {len(texts)} entries.")


if __name__ == "__main__":
    main()
