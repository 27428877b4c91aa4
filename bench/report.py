"""The results as text: one line per pair on the terminal, and bench/RESULTS.md out of bench/results.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HEAD = """# Results of the benchmark

Written by `make bench` from `results.json`; NOTES.md says what was expected, and why what is left is left. Ratios are
the peer's over ours (of `capture`: ours over the plain forward), the median of runs in turns with the lowest and the
highest. *Counted* compares the multiply-adds of all weight products, counted by the same hooks on both sides;
*same kernels* has both sides on torch's own; *wall* has ours as it ships. *Floor* is our time over that of the fewest
weight products alone, on the fastest kernel found. A part that was run and scaled is named. *Others* is the most cores
that other processes used during a run; *on* is the machine and the day.
"""


def words(ratio: dict[str, float] | None) -> str:
    """Return a ratio with its range."""
    if ratio is None:
        return "-"
    if ratio["runs"] == 1:
        return f"{ratio['median']:.2f} (1 run)"
    return f"{ratio['median']:.2f} ({ratio['lowest']:.2f} to {ratio['highest']:.2f}, {ratio['runs']} runs)"


def met(record: dict[str, Any], way: dict[str, Any]) -> bool | None:
    """Return whether the wall ratio reaches its bar; None where nothing was timed or there is no bar."""
    if way.get("wall") is None or way.get("bar") is None:
        return None
    median = way["wall"]["median"]
    return median <= way["bar"] if record["at_most"] else median >= way["bar"]


def line(record: dict[str, Any]) -> str:
    """Return one pair in a line or two, for the terminal."""
    name = f"{record['job']} / {record['peer']} / {record['model']}"
    if "failed" in record:
        return f"{name}: {record['failed']}"
    parts = [
        f"{way}: counted {found['counted']:.2f}, wall {words(found.get('wall'))}, differs {found['agreement']:.1e}"
        for way, found in record["ways"].items()
    ]
    limit = f"; floor {words(record['floor']['ratio'])}" if "floor" in record else ""
    return f"{name}: {'; '.join(parts)}{limit}"


def write(results: Path, file: Path, pairs: Sequence[tuple[str, str, str]] = ()) -> None:
    """Write the page of results; of `pairs`, (job, peer, model), those without a record are named."""
    records = json.loads(results.read_text(encoding="utf-8"))
    good = [record for record in records if "failed" not in record]
    text = [HEAD]
    machines = list(dict.fromkeys(_facts(record) for record in good))
    text += [f"Machine {chr(65 + i)}: {facts}.\n" for i, facts in enumerate(machines)]
    packages: dict[str, set[str]] = {}
    for record in good:
        for package, version in record["versions"].items():
            packages.setdefault(package, set()).add(version)
    text.append("Versions: " + ", ".join(f"{name} {' or '.join(sorted(v))}" for name, v in packages.items()) + ".\n")
    text.append("| job | model | against | counted | same kernels | wall | asked | | floor (asked) | others | on |")
    text.append("|---|---|---|---|---|---|---|---|---|---|---|")
    for record in good:
        where = f"{chr(65 + machines.index(_facts(record)))}, {record['when'][:10]}"
        text += [_row(record, name, way, where) for name, way in record["ways"].items()]
    text.append("")
    text.append("| job | model | who | token-layers | backward | logit rows | backward | 10^9 multiply-adds |")
    text.append("|---|---|---|---|---|---|---|---|")
    for record in good:
        counts = {"fewest": record["fewest"], **record["work"]}
        text += [_count(record, name, one) for name, one in counts.items()]
    failed = [record for record in records if "failed" in record]
    text += ["", *(f"- {line(record)}" for record in failed)]
    have = {(record["job"], record["peer"], record["model"]) for record in records}
    lacking = [" / ".join(pair) for pair in pairs if pair not in have]
    text += ["", f"Not measured yet: {', '.join(lacking)}."] if lacking else []
    file.write_text("\n".join(text).rstrip() + "\n", encoding="utf-8")


def _facts(record: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in record["machine"].items())


def _row(record: dict[str, Any], name: str, way: dict[str, Any], where: str) -> str:
    against = f"{record['peer']}: {name}" + (f", batch {way['batch']}" if way.get("batch") else "")
    against += f" ({way['part']}, scaled)" if way["part"] else ""
    verdict = {True: "met", False: "short", None: ""}[met(record, way)]
    limit = f"{words(record['floor']['ratio'])} ({record['floor_bar']})" if "floor" in record else "-"
    runs = record.get("runs", {})
    others = max((other for run in runs.values() for other in run["others"]), default=0.0)
    asked = "" if way["bar"] is None else f"{'at most ' if record['at_most'] else ''}{way['bar']:g}"
    cells = [record["text"], record["model"], against, f"{way['counted']:.2f}", words(way.get("same_kernels"))]
    cells += [words(way.get("wall")), asked, verdict, limit, f"{others:.2f}", where]
    return "| " + " | ".join(cells) + " |"


def _count(record: dict[str, Any], name: str, one: dict[str, float]) -> str:
    cells = [record["job"], record["model"], name]
    cells += [f"{one[key]:.0f}" for key in ("token_layers", "backward_layers", "logit_rows", "backward_logit_rows")]
    return "| " + " | ".join([*cells, f"{one['multiply_adds'] / 1e9:.1f}"]) + " |"
