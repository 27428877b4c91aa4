"""Write one page of the manual per method, metric and study, from its metadata, signature and docstring.

`python scripts/make_method_pages.py docs/methods` runs before the manual is built; the pages are not committed.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

from pellucid.core.catalogue import Entry, coverage, entries

ROOT = Path(__file__).resolve().parent.parent
KINDS = {"method": "Methods", "metric": "Metrics", "study": "Studies"}
SECTION = re.compile(r"^(Args|Returns|Raises|Example|Examples|Yields|Attributes|Note|Notes):$", re.MULTILINE)


def main(folder: str) -> None:
    """Write the pages and their index into `folder`, and remove those of methods that are gone."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    chosen = [entry for entry in entries() if entry.kind in KINDS]
    pages = {f"{entry.name}.md": page(entry) for entry in chosen} | {"index.md": index(chosen)}
    for old in target.glob("*.md"):
        if old.name not in pages:
            old.unlink()
    for name, text in pages.items():
        (target / name).write_text(text, encoding="utf-8")
    print(f"{folder}: {len(chosen)} pages.")


def index(chosen: list[Entry]) -> str:
    """Return the page that lists everything by kind and family, with the share of the map that is delivered."""
    rows = coverage()
    delivered = sum(bool(row["delivered_by"]) for row in rows)
    lines = [
        "# Methods",
        "",
        "Generated from the sources. Each method is one file with one function; `pellucid run NAME` and "
        f"`pellucid.run(name, ...)` call it. {delivered} of the {len(rows)} rows of the map are delivered; "
        "`pellucid methods --coverage` lists them all.",
    ]
    for kind, title in KINDS.items():
        of_kind = [entry for entry in chosen if entry.kind == kind]
        if of_kind and kind != "method":
            lines += ["", f"## {title}"]
        for family in sorted({entry.family for entry in of_kind}):
            heading = f"## {family.replace('_', ' ').capitalize()}" if kind == "method" else f"### {family}"
            lines += ["", heading, "", "| name | what it does | paper |", "|---|---|---|"]
            lines += [
                f"| [{entry.name}]({entry.name}.md) | {cell(entry.summary)} | {link(entry.paper)} |"
                for entry in of_kind
                if entry.family == family
            ]
    return "\n".join(lines) + "\n"


def page(entry: Entry) -> str:
    """Return the page of one entry: signature, facts, parameters, then its docstring."""
    facts = {
        "Paper": link(entry.paper),
        "Rows of the map": ", ".join(entry.rows),
        "Takes": entry.takes,
        "Gives": entry.produces + (f" over {' × '.join(entry.axes)}" if entry.axes else ""),
        "Needs": ", ".join(entry.needs),
        "Cost": f"`{entry.cost}` (F: a row forward, B: a row backward)" if entry.cost else "",
        "Better": entry.better,
        "Chance level": "" if entry.chance is None else f"{entry.chance:g}",
        "Patent": entry.patent,
    }
    body, sections = split(plain(docstring(entry)))
    parts = [f"# {entry.name}", "", body, "", "```python", signature(entry), "```", ""]
    parts += [f"- **{name}**: {value}" for name, value in facts.items() if value]
    if entry.parameters:
        parts += ["", "## Parameters", "", "| name | what it may be | default | meaning |", "|---|---|---|---|"]
        for item in entry.parameters:
            default = "" if item["required"] else f"`{item['default']!r}`"
            words = "a Subject" if item["annotation"] == "object" else item["words"]
            parts.append(f"| `{item['name']}` | {cell(words)} | {cell(default)} | {cell(item['doc'])} |")
    for name, text in sections.items():
        if name != "Args":
            parts += ["", f"## {name}", "", text]
    parts += ["", f"Source: `src/{entry.module.replace('.', '/')}.py`"]
    return "\n".join(parts) + "\n"


def signature(entry: Entry) -> str:
    """Return the call as Python shows it, one parameter per line where there are many."""
    shown, starred = [], False
    for item in entry.parameters:
        if item["keyword"] and not starred:
            shown.append("*")
            starred = True
        shown.append(item["name"] if item["required"] else f"{item['name']}={item['default']!r}")
    one_line = f"{entry.name}({', '.join(shown)})"
    return one_line if len(one_line) <= 100 else f"{entry.name}(\n    " + ",\n    ".join(shown) + ",\n)"


def docstring(entry: Entry) -> str:
    """Return the whole docstring of the entry's function, read from its source."""
    path = ROOT / "src" / Path(*entry.module.split(".")).with_suffix(".py")
    if not path.is_file():
        return entry.summary
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == entry.name:
            return ast.get_docstring(node) or entry.summary
    return entry.summary


def split(text: str) -> tuple[str, dict[str, str]]:
    """Split a Google-style docstring into its text and its sections."""
    pieces = SECTION.split(text)
    sections = dict(zip(pieces[1::2], (bullets(piece) for piece in pieces[2::2]), strict=True))
    return pieces[0].strip(), sections


def plain(text: str) -> str:
    """Keep the asterisks of formulas from being read as emphasis; those inside backquotes need no care."""
    return "`".join(
        part.replace("*", "\\*") if number % 2 == 0 else part for number, part in enumerate(text.split("`"))
    )


def bullets(section: str) -> str:
    """Turn the lines of a section that begin an item (`Name: text`) into a list; other text stays as it is."""
    lines = [line.removeprefix("    ") for line in section.strip("\n").splitlines()]
    starts = [bool(re.match(r"\w+: ", line)) for line in lines]
    return "\n".join(
        f"- `{line.replace(': ', '`: ', 1)}" if start else line for line, start in zip(lines, starts, strict=True)
    )


def link(paper: str) -> str:
    """Turn an arXiv number or a DOI into a link; anything else stays text."""
    if found := re.fullmatch(r"arXiv:([\w./-]+)", paper):
        return f"[{paper}](https://arxiv.org/abs/{found[1]})"
    if found := re.fullmatch(r"doi:(\S+)", paper, re.IGNORECASE):
        return f"[{paper}](https://doi.org/{found[1]})"
    return paper


def cell(text: str) -> str:
    """Make a text safe inside a table."""
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    main(*sys.argv[1:])
