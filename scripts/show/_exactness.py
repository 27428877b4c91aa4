"""The engine, second part: what it promises of its answers, its estimates and its budgets."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from scripts.show import ROOT, Shown, line

BUDGET = 120.0
PROMPT, ANSWER = 2000, 200


def tests(*chosen: str) -> tuple[bool, str]:
    """Run some of the project's tests; return whether they passed, and their last line."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", *chosen],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    last = (done.stdout.strip() or done.stderr.strip()).splitlines()[-1]
    return done.returncode == 0, last


@line("exactness table: batched = single, shared = plain, cone = full, forward mode = gradient = finite difference",
      bar="every architecture, float32 and float64")  # fmt: skip
def exactness(out: Path) -> Shown:
    """Check every tiny model in both types, and write the table."""
    import pellucid
    from pellucid.engine.check import check
    from tests.tiny import TINY

    worst: dict[tuple[str, str], float] = defaultdict(float)
    failed, rows = [], []
    for name, build in TINY.items():
        for dtype, proof, figure, bar, ok, _ in check(pellucid.load(build())).rows:
            rows.append(f"{name}\t{dtype}\t{proof}\t{figure:.3g}\t{bar:.3g}\t{ok}")
            if "=" in proof:
                worst[dtype, proof] = max(worst[dtype, proof], figure / bar if bar else figure)
            failed += [] if ok else [f"{name} {dtype} {proof}"]
    (out / "exactness.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    figure = f"{len(rows)} checks on {len(TINY)} architectures, {len(failed)} failed; worst figure / bar: " + ", ".join(
        f"{proof} {dtype} {share:.2f}" for (dtype, proof), share in worst.items()
    )
    return Shown(figure + (f"; {'; '.join(failed[:5])}" if failed else ""), not failed)


@line("the cone, shared prefixes and packed products equal their plain forms", bar="every decoder and encoder")
def fast_forms(out: Path) -> Shown:
    """Run the tests of the fast forms on all architectures."""
    ok, last = tests("tests/engine/test_cone.py", "tests/engine/test_sharing.py", "tests/models/test_kernels.py",
                     "-m", "all_architectures or not all_architectures")  # fmt: skip
    return Shown(last, ok)


@line("a stale score is impossible: after with_, an in-place change of weights, an optimiser step",
      bar="scores equal a fresh Subject's")  # fmt: skip
def fresh(out: Path) -> Shown:
    """Run the tests of the store and of views."""
    ok, last = tests("tests/engine/test_store.py", "tests/engine/test_views_and_weights.py")
    return Shown(last, ok)


@line("two threads, different prompts, different edits, one model", bar="100 rounds as alone")
def threads(out: Path) -> Shown:
    """Run the test of two threads."""
    ok, last = tests("-m", "slow or not slow", "tests/engine/test_threads.py")
    return Shown(last, ok)


@line("estimates of ten jobs on 12 layers: measured / estimated", bar="memory 0.7 to 1.2, time within 1.5x")
def estimates(out: Path) -> Shown:
    """Estimate and run each job at its full size."""
    jobs = importlib.import_module("tests.engine.estimate_jobs")
    figures, short = [], []
    for name in jobs.JOBS:
        found = jobs.measured(name)
        time, memory = found.seconds / found.estimated.seconds, found.counted / found.estimated.bytes
        figures.append(f"{name} {time:.2f} {memory:.2f}")
        if not (1 / 1.5 <= time <= 1.5 and 0.7 <= memory <= 1.2):
            short.append(name)
    return Shown("; ".join(figures) + (f"; short: {', '.join(short)}" if short else ""), not short)


@line(f"budget={BUDGET:.0f} on {PROMPT} tokens with an answer of {ANSWER}, 12-layer Llama: every method of a prompt",
      bar="ends within 1.5x, saying what it chose, or refuses before it starts with its estimate")  # fmt: skip
def budgets(out: Path) -> Shown:
    """Run every method that scores a prompt; what was found is kept, so that a run that was stopped goes on."""
    import pellucid

    file = out / "budgets.tsv"
    known = dict(row.split("\t", 1) for row in file.read_text().splitlines()) if file.exists() else {}
    names = [e["name"] for e in pellucid.methods() if e["takes"] == "prompt" and e["produces"] == "scores"]
    for name in names:
        if name not in known:
            known[name] = within_budget(name)
            with file.open("a", encoding="utf-8") as rows:
                rows.write(f"{name}\t{known[name]}\n")
    counted = {
        kind: sum(known[name].startswith(kind) for name in names) for kind in ("ran", "refused", "over", "other")
    }
    bad = [f"{name}: {known[name]}" for name in names if known[name].startswith(("over", "other"))]
    figure = ", ".join(f"{count} {kind}" for kind, count in counted.items())
    return Shown(figure + (f"; {'; '.join(bad[:6])}" if bad else ""), not bad)


def within_budget(name: str) -> str:
    """Return what became of a method under the budget: ran, refused (ResourceError), over, or other (an error)."""
    import time

    import pellucid
    from pellucid import Target
    from pellucid.core.errors import PellucidError, ResourceError

    jobs: Any = importlib.import_module("tests.engine.estimate_jobs")
    subject = jobs.subject("llama")
    ids = [5 + (7919 * i) % 29_000 for i in range(PROMPT + ANSWER)]
    start = time.perf_counter()
    try:
        target = Target(ids[PROMPT:], kind="continuation")
        found = pellucid.run(name, subject, ids[:PROMPT], target=target, budget=BUDGET)
    except ResourceError as error:
        seconds = time.perf_counter() - start
        return f"{'refused' if seconds < 0.5 * BUDGET else 'over'} after {seconds:.0f} s: {error}"
    except PellucidError as error:
        return f"refused without a budget: {error}"
    except Exception as error:
        return f"other: {type(error).__name__} {error}".replace("\n", " ")
    seconds = time.perf_counter() - start
    said = next((e.summary for e in found.evidence if e.name == "budget"), "nothing said")
    return f"{'ran' if seconds <= 1.5 * BUDGET else 'over'} {seconds:.0f} s: {said}"
