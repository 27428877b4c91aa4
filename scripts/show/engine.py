"""The engine: the rows of its table, read from what `make bench` saved, and held against their bars.

A row is ok when every peer of it was measured on every model, agrees with us, and the median of the wall ratios
reaches its bar on each.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.jobs import JOBS, Job
from bench.models import SHAPES
from scripts.show import ROOT, Shown, _exactness, line

PARTS = (_exactness,)
RESULTS = ROOT / "bench" / "results.json"
AGREE = 1e-4
OWN: list[str] = []  # the jobs whose rows stand here; others belong to other issues


def records(job: str | None = None) -> list[dict[str, Any]]:
    """Return what was saved for a job, or for all jobs; nothing where the benchmark was not run."""
    found = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else []
    return [one for one in found if job in (None, one["job"])]


def judged(job: Job) -> tuple[list[str], list[str]]:
    """Return the figures of a job in words, and what is missing or short."""
    figures, short = [], []
    have = {(one["peer"], one["model"]): one for one in records(job.name)}
    for peer in job.peers:
        for model in SHAPES:
            one = have.get((peer, model))
            if one is None or "failed" in one:
                short.append(f"{peer} on {model}: {'not run' if one is None else one['failed']}")
                continue
            for name, way in one["ways"].items():
                median, bar = way["wall"]["median"], way["bar"]
                figures.append(f"{name} on {model} {median:.2f}")
                if median > bar if job.at_most else median < bar:
                    short.append(f"{name} on {model}: {median:.2f} for {bar:g}")
                worst = max([way["agreement"], *way["timed_differences"]])
                if worst > AGREE:
                    short.append(f"{name} on {model} differs by {worst:.1e}")
                if job.counted_bar is not None and way["counted_token_layers"] < job.counted_bar:
                    short.append(f"{name} on {model}: counted {way['counted_token_layers']:.2f}")
    return figures, short


def row(name: str) -> Callable[[Path], Shown]:
    """Return the line of one job."""
    job = JOBS[name]
    OWN.append(name)
    sign = "at most" if job.at_most else "at least"
    bars = ", ".join(f"{sign} {bar:g}" + ("" if way == "any" else f" ({way})") for way, bar in job.bars.items())
    counted = f", counted token-layers at least {job.counted_bar:g}" if job.counted_bar else ""

    @line(f"bench: {job.text}, against {' and '.join(job.peers)}", bar=f"{bars}{counted}, equal to {AGREE:g}")
    def measure(out: Path) -> Shown:
        """Read the saved ratios of this job."""
        figures, short = judged(job)
        return Shown("; ".join(figures) + (f"; short: {'; '.join(short)}" if short else ""), not short)

    return measure


gradients, span_gradients, gradient_matrix = row("ig"), row("ig-span"), row("gradient-matrix")
occlusion, occlusion_matrix, shapley = row("occlusion"), row("occlusion-matrix"), row("shapley")
residual_patching, head_patching = row("residual-patching"), row("head-patching")
tracing, window_tracing, capture = row("tracing-1"), row("tracing-10"), row("capture")


@line("bench: every job is close to the products it needs", bar="at most 1.4 x the floor, 1.6 x with backward")
def floor(out: Path) -> Shown:
    """Compare our time with the floor's, for every job and model."""
    best: dict[tuple[str, str], tuple[float, float]] = {}
    for one in records():
        if "floor" in one and one["job"] in OWN:
            found = (one["floor"]["ratio"]["median"], one["floor_bar"])
            key = (one["job"], one["model"])
            best[key] = min(best.get(key, found), found)
    lacking = [f"{job} on {model}" for job in OWN for model in SHAPES if (job, model) not in best]
    over = [f"{job} on {model} {ratio:.2f}" for (job, model), (ratio, bar) in best.items() if ratio > bar]
    figure = ", ".join(f"{job} on {model} {ratio:.2f}" for (job, model), (ratio, _) in best.items())
    short = [*(f"over: {text}" for text in over), *(f"not measured: {text}" for text in lacking)]
    return Shown("; ".join([figure, *short]) if figure else "nothing was measured: run make bench", not short)
