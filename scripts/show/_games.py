"""Perturbing the input, first part: the games against enumeration, closed forms, chance and other libraries."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import combinations
from math import comb, factorial
from pathlib import Path
from typing import Any

import numpy as np

from scripts.show import ROOT, Shown, line

WORDS = "a b c d e f g"
EIGHT = [11, 42, 7, 23, 64, 5, 9, 31]
RUNS = 200


def table_subject(table: np.ndarray) -> Any:
    """Return a black box that is worth what a table [2**words, targets] says of the words that are present."""
    import pellucid

    words = WORDS.split()

    def worth(texts: list[str]) -> list[float]:
        return [
            float(table[sum(1 << words.index(word) for word in text.split() if word in words), 0]) for text in texts
        ]

    return pellucid.load(worth)


def by_definition(table: np.ndarray) -> dict[str, np.ndarray]:
    """Return values [players] and pairs [pairs] of a game as the sums over all coalitions that define them."""
    from tests import games

    n = int(np.log2(len(table)))
    weights: dict[str, tuple[int, Callable[[int], float]]] = {
        "shapley": (1, lambda t: factorial(t) * factorial(n - t - 1) / factorial(n)),
        "banzhaf": (1, lambda _: 0.5 ** (n - 1)),
        "k-SII": (2, lambda t: factorial(t) * factorial(n - t - 2) / factorial(n - 1)),
        "STII": (2, lambda t: 2 / n / comb(n - 1, t)),
    }
    found = {
        name: np.array([games.mean_derivative(table, m, weight)[0] for m in combinations(range(n), size)])
        for name, (size, weight) in weights.items()
    }
    return found | {"FSII": _faithful(table, n)}


def _faithful(table: np.ndarray, n: int) -> np.ndarray:
    """Return the pairs of FSII: the regression under the Shapley kernel, both ends held by a large weight."""
    members = [m for size in (1, 2) for m in combinations(range(n), size)]
    rows = np.array([[all(t >> i & 1 for i in m) for m in members] for t in range(2**n)], dtype=float)
    sizes = [t.bit_count() for t in range(2**n)]
    kernel = np.sqrt([1e9 if t in (0, n) else (n - 1) / (comb(n, t) * t * (n - t)) for t in sizes])[:, None]
    solved = np.linalg.lstsq(kernel * rows, kernel * (table - table[0]), rcond=None)[0]
    return solved[n:, 0]


EXACT: dict[str, tuple[str, dict[str, Any]]] = {
    "shapley_values": ("shapley", {"exact": True}),
    "kernel_shap": ("shapley", {}),
    "kernel_shap by regression": ("shapley", {"estimator": "regression"}),
    "leverage_shapley": ("shapley", {}),
    "owen_values of one sentence": ("shapley", {"permutations": 1000}),
    "banzhaf_values": ("banzhaf", {}),
    "shapley_interactions k-SII": ("k-SII", {}),
    "shapley_interactions STII": ("STII", {"index": "STII"}),
    "shapley_interactions FSII": ("FSII", {"index": "FSII"}),
}


def flat(scores: np.ndarray) -> np.ndarray:
    """Return scores per unit as they are, and those per pair as a list of pairs."""
    return scores if scores.ndim == 1 else scores[np.triu_indices(len(scores), 1)]


@line("all game methods against enumeration at <= 10 units", bar="equal to the sums that define them to 1e-6")
def enumeration(out: Path) -> Shown:
    """Explain 8 tokens of a random model whose 256 inputs are run by Hugging Face alone."""
    import pellucid
    from tests import games, plain

    model = plain.tiny("llama")
    truth, subject = by_definition(games.of_model(model, EIGHT, 3)), pellucid.load(model)
    worst = {}
    for name, (kind, more) in EXACT.items():
        found = pellucid.run(name.split()[0], subject, EIGHT, target=plain.TARGET, replacement=3, **more)
        worst[name] = float(np.abs(flat(found.scores) - truth[kind]).max())
    for name in ("shapley_values", "stratified_shapley"):
        found = pellucid.run(name, subject, EIGHT, target=plain.TARGET, replacement=3, permutations=64)
        away = np.abs(found.scores - truth["shapley"]) / found.std_error
        worst[f"{name} sampled, over 4.5 standard errors"] = max(0.0, float(away.max()) - 4.5)
    name = max(worst, key=lambda key: worst[key])
    return Shown(f"{len(worst)} methods, the largest difference {worst[name]:.1e} ({name})", worst[name] < 1e-6)


@line("all game methods against closed-form unanimity games", bar="1/|T|, 2^-(|T|-1), 1/(|T|-1), 1/C(|T|,2) to 1e-6")
def unanimity(out: Path) -> Shown:
    """Explain black boxes that are worth 1 where all words of a team are there, for three teams of seven words."""
    import pellucid
    from tests import games

    worst, count = {}, 0
    for team in ([1, 4], [0, 2, 5], [0, 2, 3, 6]):
        size, subject = len(team), table_subject(games.unanimity(7, team))
        inside = np.isin(np.arange(7), team)
        both = (inside[:, None] & inside)[np.triu_indices(7, 1)]
        closed = {"shapley": inside / size, "banzhaf": inside * 0.5 ** (size - 1), "k-SII": both / (size - 1),
                  "STII": both / comb(size, 2)}  # fmt: skip
        for name, (kind, more) in EXACT.items():
            if kind in closed:
                found = pellucid.run(name.split()[0], subject, WORDS, unit="word", **more)
                gap = float(np.abs(flat(found.scores) - closed[kind]).max())
                worst[name], count = max(worst.get(name, 0.0), gap), count + 1
    name = max(worst, key=lambda key: worst[key])
    return Shown(
        f"{len(worst)} methods, {count} games, the largest difference {worst[name]:.1e} ({name})", worst[name] < 1e-6
    )


# What is sampled, its arguments, and how many draws make one independent one.
SAMPLED: dict[str, tuple[str, dict[str, Any], int]] = {
    "shapley_values": ("shapley", {"permutations": 24}, 2),
    "stratified_shapley": ("shapley", {"permutations": 30, "strata": 3}, 3),
    "owen_values": ("shapley", {"permutations": 12}, 2),
    "kernel_shap": ("shapley", {"samples": 64}, 2),
    "leverage_shapley": ("shapley", {"samples": 64}, 2),
    "banzhaf_values": ("banzhaf", {"samples": 64}, 2),
    "shapley_interactions k-SII": ("k-SII", {"samples": 100}, 2),
    "shapley_interactions STII": ("STII", {"samples": 100, "index": "STII"}, 2),
    "shapley_interactions FSII": ("FSII", {"samples": 100, "index": "FSII"}, 2),
}


def studied(name: str, truth: dict[str, np.ndarray], subject: Any) -> tuple[float, float]:
    """Return the largest bias of 200 runs in standard errors, and the coverage of their 95 % intervals."""
    from scipy import stats

    import pellucid

    kind, more, together = SAMPLED[name]
    means, hits = [], []
    for seed in range(RUNS):
        found = pellucid.run(name.split()[0], subject, WORDS, unit="word", seed=seed, **more)
        draws = next(one.values["draws"] for one in found.evidence if one.name == "sampling error")
        assert found.std_error is not None
        reach = stats.t.ppf(0.975, max(draws / together - 1, 1)) * flat(found.std_error)
        means.append(flat(found.scores))
        hits.append(np.abs(means[-1] - truth[kind]) <= reach + 1e-12)
    spread = np.std(means, axis=0, ddof=1) / RUNS**0.5
    return float((np.abs(np.mean(means, 0) - truth[kind]) / spread).max()), float(np.mean(hits))


@line("every sampled estimate is unbiased, and its intervals cover",
      bar="mean of 200 runs within 3 standard errors; 90-99 % for nominal 95 %")  # fmt: skip
def unbiased(out: Path) -> Shown:
    """Sample a rough game of seven words 200 times with every method."""
    from tests import games

    table = games.rough(7)
    truth, subject = by_definition(table), table_subject(table)
    found = {name: studied(name, truth, subject) for name in SAMPLED}
    figure = "; ".join(f"{name} {bias:.1f} se, {100 * covered:.0f} %" for name, (bias, covered) in found.items())
    return Shown(figure, all(bias < 3 and 0.90 <= covered <= 0.99 for bias, covered in found.values()))


@line("sparse interactions at scale: 64 units, 13 planted terms of 1 to 4 units",
      bar="units and pairs of FSII with R² >= 0.99 from at most 1,500 forwards")  # fmt: skip
def at_scale(out: Path) -> Shown:
    """Explain a black box of 64 words whose terms are known."""
    import pellucid
    from pellucid.engine.games import interactions, sets_up_to

    rng, words = np.random.default_rng(0), [f"w{i}" for i in range(64)]
    planted = np.array(
        [np.isin(np.arange(64), rng.choice(64, size, replace=False)) for size in (1,) * 8 + (2, 2, 2, 3, 4)]
    )
    amounts = rng.normal(size=(13, 1)) + 2 * (planted.sum(1) > 1)[:, None]

    def worth(texts: list[str]) -> list[float]:
        present = np.array([np.isin(words, text.split()) for text in texts])
        return [float(amounts[(~planted | here).all(1)].sum()) for here in present]

    found = pellucid.run("proxy_spex", pellucid.load(worth), " ".join(words), unit="word", samples=1024)
    upper = np.triu_indices(64)
    wanted = sets_up_to(64, 2)
    truth = np.zeros((64, 64))
    for members, amount in zip(wanted, interactions(planted, amounts, wanted, "FSII", 2)[:, 0], strict=True):
        truth[np.flatnonzero(members)[0], np.flatnonzero(members)[-1]] = amount
    rest = ((found.scores - truth)[upper] ** 2).sum() / (truth[upper] ** 2).sum()
    forwards = found.provenance.forwards
    return Shown(f"R² {1 - rest:.4f} from {forwards:,} forwards", 1 - rest >= 0.99 and forwards <= 1500)


@line("same numbers as shap and shapiq", bar="exact ones to 1e-8, sampled ones within 4.5 standard errors")
def peers(out: Path) -> Shown:
    """Run the agreement tests where both libraries are installed."""
    lacking = [name for name in ("shap", "shapiq") if importlib.util.find_spec(name) is None]
    if lacking:
        return Shown(f"not compared: {' and '.join(lacking)} not installed (pip install shap shapiq)", False)
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", "-m", "peers"]
    done = subprocess.run([*command, "tests/engine/test_games_and_peers.py"], capture_output=True, text=True, cwd=ROOT,
                          env=os.environ, check=False)  # fmt: skip
    last = (done.stdout.strip().splitlines() or [done.stderr.strip()])[-1]
    return Shown(last, done.returncode == 0 and "skipped" not in last)
