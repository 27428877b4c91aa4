"""The house, second part: a user's own tasks in few lines, and a model that pellucid has never seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scripts.show import Shown, line

MOST_LINES = 6

GRID = """
import pellucid
subject = pellucid.load("zoo:tiny-lm")
grid = pellucid.run("activation_patching", subject, "The capital of France is", corrupt="The capital of Italy is",
                    target=" Paris", contrast=" Rome")
page = grid.html("grid.html")
"""

MANY = """
import pandas as pd, pellucid
subject = pellucid.load("zoo:tiny-lm")
prompts = [f"{name} went to the {place} because" for name in NAMES for place in PLACES]
results = pellucid.run("gradient_x_input", subject, prompts)
table = pd.concat([result.to_pandas().assign(prompt=prompt) for prompt, result in zip(prompts, results)])
"""

FUNCTION = """
import math, pellucid
def judge(texts):
    return [math.log(0.9 if "good" in text else 0.2) for text in texts]
subject = pellucid.load(judge)
result = pellucid.run("occlusion", subject, "a good film indeed", unit="word")
"""


def task(code: str, folder: Path, **names: Any) -> tuple[dict[str, Any], int]:
    """Run a user's lines in `folder`; return the names they define and how many lines they are."""
    import os

    before = Path.cwd()
    os.chdir(folder)
    try:
        exec(compile(code, "<task>", "exec"), names)
    finally:
        os.chdir(before)
    return names, sum(bool(text.strip()) for text in code.splitlines())


@line("a user's task: patch a grid", bar=f"<= {MOST_LINES} lines, layers x positions, and the effect is there")
def grid(out: Path) -> Shown:
    """Patch the residual stream of every layer and position."""
    import numpy as np

    names, count = task(GRID, out)
    scores = names["grid"].scores
    largest = float(np.abs(scores).max())
    shape = names["grid"].axes == ("layer", "position") and scores.shape[0] == names["subject"].layers
    whole = bool(np.isfinite(scores).all()) and largest > 0
    figure = f"{count} lines, {' x '.join(map(str, scores.shape))}, largest effect {largest:.3g}"
    return Shown(figure, count <= MOST_LINES and shape and whole, (out / "grid.html",))


@line("a user's task: explain 100 prompts into a table", bar=f"<= {MOST_LINES} lines, 100 prompts, equal to one by one")
def many(out: Path) -> Shown:
    """Explain 100 prompts of different lengths, and three of them again alone."""
    import numpy as np

    import pellucid

    people = [
        "Anna",
        "Ben",
        "Clara",
        "The old man",
        "My friend from Spain",
        "Tom",
        "A girl",
        "The king",
        "Sam",
        "Mary and Tom",
    ]
    places = ["park", "market", "school", "river", "old town", "station", "shop", "forest", "library", "sea"]
    names, count = task(MANY, out, NAMES=people, PLACES=places)
    table, prompts, subject = names["table"], names["prompts"], names["subject"]
    worst = 0.0
    for place in (0, 37, 99):
        alone = pellucid.run("gradient_x_input", subject, prompts[place]).scores
        together = table[table["prompt"] == prompts[place]]["value"].to_numpy()
        worst = max(worst, float(np.abs(alone - together).max() / np.abs(alone).max()))
    explained = table["prompt"].nunique()
    figure = f"{count} lines, {explained} prompts, {len(table)} rows, differs from one by one by {worst:.1e}"
    return Shown(figure, count <= MOST_LINES and explained == 100 and worst < 1e-4)


@line(
    "a user's task: explain a plain Python function texts -> log-probs", bar=f"<= {MOST_LINES} lines, the known scores"
)
def function(out: Path) -> Shown:
    """Occlude words of a text that a function judges by one word."""
    import math

    names, count = task(FUNCTION, out)
    result = names["result"]
    labels = [label.strip() for label in result.units.labels]
    want = [math.log(0.9 / 0.2) if label == "good" else 0.0 for label in labels]
    right = labels == ["a", "good", "film", "indeed"] and all(
        abs(score - wanted) < 1e-9 for score, wanted in zip(result.scores, want, strict=True)
    )
    scores = ", ".join(f"{label} {score:.3f}" for label, score in zip(labels, result.scores, strict=True))
    return Shown(f"{count} lines: {scores}", count <= MOST_LINES and right)


@line(
    "an unseen architecture (Llama with renamed modules) is guessed, proved and explained",
    bar="guessed, every check passes, equal to the same weights as Llama",
)
def unseen(out: Path) -> Shown:
    """Rename the modules of a Llama, load it, check it, and compare an explanation with the original's."""
    import numpy as np
    import torch

    import pellucid
    from pellucid.engine.check import check
    from tests.show.unseen import renamed_llama
    from tests.tiny import TINY

    torch.manual_seed(0)
    known = TINY["llama"]()
    subject, original = pellucid.load(renamed_llama(known)), pellucid.load(known)
    table = check(subject)
    found = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    failed = [f"{row['dtype']}: {row['check']}" for row in found if not row["ok"]]
    ids = [5, 9, 3, 7, 4]
    here, there = (pellucid.run("integrated_gradients", s, ids, target=6).scores for s in (subject, original))
    difference = float(np.abs(here - there).max() / np.abs(there).max())
    source = subject.need_layout().source
    checks = f"{len(found)} checks, {len(failed)} failed{f' {failed[:5]}' if failed else ''}"
    figure = f"layout by {source}, {checks}, differs by {difference:.1e}"
    return Shown(figure, source != "row" and bool(found) and not failed and difference < 1e-4)
