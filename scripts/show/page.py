"""The page, its API, its store and the server for assistants: the lines of the issue's "Must show"."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

from scripts.show import ROOT, Shown, line

STATIC = ROOT / "src" / "pellucid" / "web" / "static"
ANY = ("-m", "")


def tested(*arguments: str) -> tuple[bool, str, str]:
    """Run tests; return whether all passed and some ran, how many, and what they printed."""
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-s", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600, cwd=ROOT, check=False)
    counts = re.findall(r"(\d+) (passed|failed|skipped|error)", done.stdout.splitlines()[-1] if done.stdout else "")
    passed = done.returncode == 0 and any(word == "passed" for _, word in counts)
    skipped = sorted(set(re.findall(r"SKIPPED \[\d+\] [^:]+:\d+: (.*)", done.stdout)))
    return passed, ", ".join(map(" ".join, counts)) + "".join(f"; skipped: {one}" for one in skipped), done.stdout


@line("every tab on zoo:tiny-lm in Chromium, both colour schemes, keyboard only, phone width, hostile text; axe-core; "
      "no request to another origin", bar="every browser test passes, none is skipped")  # fmt: skip
def in_the_browser(out: Path) -> Shown:
    """Run the browser tests but those that time."""
    passed, counts, _ = tested("-m", "browser", "tests/browser", "--deselect", "tests/browser/test_speed.py")
    pictures = tuple(sorted((ROOT / "docs" / "images").glob("page-*.png")))
    return Shown(counts, passed and "skipped" not in counts, pictures)


@line("how long people wait", bar="bundle < 60 kB gzip, first view < 1.5 s, click to redraw < 100 ms at 1,000 tokens")
def waits(out: Path) -> Shown:
    """Run the tests that time, and read what they print."""
    if not STATIC.is_dir():
        return Shown("the page is not built; run make page", False)
    size = sum(len(gzip.compress(path.read_bytes(), 9)) for path in STATIC.rglob("*") if path.is_file())
    passed, counts, said = tested("-m", "browser", "tests/browser/test_speed.py")
    figures = re.findall(r"(first view: .*|[\w ]+, click to redraw: .*)", said)
    return Shown("; ".join([f"{size / 1000:.1f} kB", *figures, counts]), passed and size < 60_000)


@line("20 people at once on the API for 2 minutes beside a long job", bar="no error, none mixed up, p95 < 300 ms")
def crowd(out: Path) -> Shown:
    """Run the load, on an otherwise quiet machine."""
    command = [sys.executable, "-m", "bench.page_load", "120"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=ROOT, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-300:])
    found = json.loads(done.stdout.splitlines()[-1])
    good = not found["errors"] and not found["mixed"] and found["p95_ms"] < 300
    return Shown(", ".join(f"{value} {name}" for name, value in found.items() if value != []), good)


@line("killed in a job and in a save, no space, database gone and back, client gone",
      bar="nothing lost that was reported done, no part shown as whole")  # fmt: skip
def survives(out: Path) -> Shown:
    """Run the tests that kill and starve the server and the store."""
    files = ("tests/web/test_survival.py", "tests/store/test_killed.py", "tests/store/test_away.py")
    passed, counts, _ = tested(*ANY, *files)
    return Shown(counts, passed)


@line("the store on SQLite and PostgreSQL", bar="every test passes on both, none is skipped")
def stored(out: Path) -> Shown:
    """Run the tests of the store."""
    passed, counts, _ = tested("tests/store", "tests/cli/test_runs.py")
    return Shown(counts, passed and "skipped" not in counts)


@line("Schemathesis against the OpenAPI document; every attack of the issue", bar="no 500, all refused")
def refused(out: Path) -> Shown:
    """Run both."""
    passed, counts, _ = tested(*ANY, "tests/web/test_openapi.py", "tests/web/test_safety.py")
    return Shown(counts, passed)


@line("a real MCP client", bar="an explanation, a patch and a saved run come back")
def assistants(out: Path) -> Shown:
    """Run the tests with the client of the official SDK."""
    passed, counts, _ = tested("tests/web/test_mcp.py")
    return Shown(counts, passed)


@line("files and notebooks", bar="one file, no request, readable without JavaScript")
def files(out: Path) -> Shown:
    """Open every kind of result in Chromium."""
    passed, counts, _ = tested("-m", "browser", "tests/render/test_in_browser.py")
    return Shown(counts, passed and "skipped" not in counts)
