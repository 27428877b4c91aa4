"""Turn a taxonomy written in Markdown into the program's map: one JSON row per technique.

    python scripts/make_map.py TAXONOMY.md src/pellucid/core/map.json

Tables whose first column is `id` give the rows; the section is the number of the heading above ("4.1"). The paragraph
of section 6 lists standard methods by name, from which ids such as `STD-deeplift` are made. Reasons already in the
output file are kept.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

HEADING = re.compile(r"^#{2,4} (\d+(?:\.\d+)?)[. ]")
REASONS = {
    "FAD-3": "Defined on the forget gates of recurrent networks; pellucid explains transformers, which have none.",
}


def cells(line: str) -> list[str]:
    """Return the cells of one line of a Markdown table."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def standard_ids(paragraph: str) -> list[tuple[str, str]]:
    """Return (id, name) per method of a running list: `a; b/c (note) · d and e`, where ` / ` gives another name."""
    found = []
    for item in re.split(r"[;·]", re.sub(r"\([^)]*\)", "", paragraph)):
        for name in re.split(r" and |(?<=\S)/(?=\S)", item.strip(" .\n")):
            short = name.split(" / ")[0].strip()
            slug = re.sub(r"[^a-z0-9]+", "-", short.lower().replace("×", "-x-")).strip("-")
            if slug:
                found.append((f"STD-{slug}", name.strip()))
    return found


def rows_of(text: str) -> list[dict[str, str | None]]:
    """Return the rows of a taxonomy in its order."""
    rows: list[dict[str, str | None]] = []
    section, columns = "", []
    for line in text.splitlines():
        heading = HEADING.match(line)
        if heading:
            section, columns = heading[1], []
        elif line.startswith("|"):
            found = cells(line)
            if found[0] == "id":
                columns = found
            elif columns and not set(found[0]) <= set("-: "):
                row = dict(zip(columns, found, strict=True))
                name = row.get("technique") or row.get("metric") or row.get("benchmark") or ""
                rows.append(_row(row["id"], name, row["paper"], section))
        elif section == "6" and line.strip():
            rows += [_row(id_, name, "", section) for id_, name in standard_ids(line)]
    return rows


def _row(id_: str, technique: str, paper: str, section: str) -> dict[str, str | None]:
    return {"id": id_, "technique": technique, "paper": paper, "section": section, "reason": REASONS.get(id_)}


def main(taxonomy: Path, out: Path) -> None:
    """Write the map, keeping the reasons of an earlier one."""
    old = json.loads(out.read_text(encoding="utf-8")) if out.exists() else []
    reasons = {row["id"]: row["reason"] for row in old if row["reason"]}
    rows = rows_of(taxonomy.read_text(encoding="utf-8"))
    twice = {row["id"] for row in rows if sum(other["id"] == row["id"] for other in rows) > 1}
    if twice:
        sys.exit(f"These ids stand twice in {taxonomy.name}: {', '.join(sorted(map(str, twice)))}.")
    lines = [json.dumps({**row, "reason": reasons.get(row["id"], row["reason"])}, ensure_ascii=False) for row in rows]
    out.write_text("[\n  " + ",\n  ".join(lines) + "\n]\n", encoding="utf-8")
    print(f"{len(rows)} rows written to {out}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
