"""What a run over a data set found: values per example, and their tables with intervals and tests."""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.core import encoding
from pellucid.core.errors import InputError
from pellucid.core.results import Evidence, Scores, Table
from pellucid.evaluate.intervals import over_examples
from pellucid.evaluate.over_data.asked import Asked
from pellucid.evaluate.over_data.compare import holm, sign_flip_test
from pellucid.evaluate.over_data.examples import Example
from pellucid.evaluate.over_data.questions import Wanted, right

LEVEL = 0.05
SUMMARY = ("method", "metric", "better", "mean", "low", "high", "chance", "better by", "by low", "by high", "examples",
           "left out")  # fmt: skip
TESTS = ("metric", "first", "second", "difference", "p", "p (Holm)", "better")


@dataclass(frozen=True)
class Findings:
    """Methods judged by metrics over examples; `Evaluation` is one that can also be drawn.

    `found` holds what the record says per (example, method, metric): `values` or `failed`, a sentence; `kept` the
    explanations in the same way per (example, method). `computed` counts the pieces of work that this call did, the
    others were in the record.
    """

    model: str
    data: str
    examples: tuple[Example, ...]
    methods: tuple[Asked, ...]
    metrics: tuple[Asked, ...]
    questions: tuple[Mapping[str, Any], ...]
    found: Mapping[tuple[int, str, str], Mapping[str, Any]]
    kept: Mapping[tuple[int, str], Mapping[str, Any]]
    wanted: Wanted
    notes: tuple[str, ...] = ()
    seed: int = 0
    computed: int = 0
    seconds: float = 0.0

    @property
    def method_names(self) -> tuple[str, ...]:
        """Return the names of the methods, in the order of the table."""
        return tuple(method.name for method in self.methods)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Return the names of the metrics, in the order of the table."""
        return tuple(metric.name for metric in self.metrics)

    def numbers(self, metric: str, method: str) -> list[dict[str, float]]:
        """Return what a metric said of each example: `value` and what stands beside it; NaN where it failed."""
        if metric not in self.metric_names or method not in self.method_names:
            raise InputError(
                f"This evaluation has no {metric!r} of {method!r}; it has {', '.join(self.metric_names)} of "
                f"{', '.join(self.method_names)}."
            )
        entries = [self.found[index, method, metric] for index in range(len(self.examples))]
        return [_numbers(entry.get("values", {})) for entry in entries]

    @cached_property
    def values(self) -> np.ndarray:
        """Return the value of every metric: [examples, methods, metrics], NaN where it failed."""
        by_pair = [
            [[one["value"] for one in self.numbers(metric, method)] for metric in self.metric_names]
            for method in self.method_names
        ]
        return np.moveaxis(np.array(by_pair, dtype=np.float64), 2, 0)

    @cached_property
    def cells(self) -> dict[tuple[str, str], Evidence]:
        """Return the mean, interval and gap to chance per (method, metric), by `over_examples`."""
        return {
            (method, metric): over_examples(
                metric, [Evidence(metric, "", one) for one in self.numbers(metric, method)], seed=self.seed
            )
            for method in self.method_names for metric in self.metric_names
        }  # fmt: skip

    def better(self, metric: str) -> str:
        """Return which direction of a metric is better: "higher" or "lower"."""
        return next(one.entry.better for one in self.metrics if one.name == metric)

    def best(self, metric: str) -> str | None:
        """Return the method with the best mean, None where there is no value."""
        sign = 1 if self.better(metric) == "higher" else -1
        means = {method: sign * self.cells[method, metric].values["value"] for method in self.method_names}
        known = {method: mean for method, mean in means.items() if not np.isnan(mean)}
        return max(known, key=known.__getitem__) if known else None

    def chance(self, metric: str) -> float:
        """Return the mean chance level of a metric over methods, NaN where it has none."""
        levels = [self.cells[method, metric].values.get("chance", np.nan) for method in self.method_names]
        known = [level for level in levels if not np.isnan(level)]
        return float(np.mean(known)) if known else float("nan")

    def table(self) -> Table:
        """Return one row per method and metric: mean, 95 % bootstrap interval over examples, chance, gap to chance."""
        rows = []
        for method, metric in itertools.product(self.method_names, self.metric_names):
            cell = self.cells[method, metric].values
            numbers = [cell.get(key, float("nan")) for key in ("value", "low", "high", "chance", "gap", "gap_low",
                                                                "gap_high")]  # fmt: skip
            counts = [int(cell[key]) for key in ("examples", "left_out")]
            rows.append((method, metric, self.better(metric), *numbers, *counts))
        return Table(title=self.title, columns=SUMMARY, rows=tuple(rows), evidence=self._evidence())

    def brief(self) -> Table:
        """Return the means with half of their intervals, a row per method and a last one for chance."""
        rows: list[tuple[Any, ...]] = []
        for method in self.method_names:
            cells = [self.cells[method, metric].values for metric in self.metric_names]
            rows.append((method, *(_short(cell["value"], cell["high"] - cell["low"]) for cell in cells)))
        rows.append(("(chance)", *(_short(self.chance(metric), 0.0) for metric in self.metric_names)))
        arrows = {"higher": "↑", "lower": "↓"}
        head = [f"{metric.replace('_', ' ')} {arrows[self.better(metric)]}" for metric in self.metric_names]
        return Table(title=self.title, columns=("method", *head), rows=tuple(rows), evidence=self._evidence())

    @cached_property
    def tests(self) -> tuple[tuple[Any, ...], ...]:
        """Return the rows of `significance`."""
        pairs = list(itertools.combinations(range(len(self.methods)), 2))
        if not pairs:
            return ()
        first, second = np.array(pairs).T
        differences = self.values[:, first] - self.values[:, second]  # [examples, pairs, metrics]
        flat = differences.reshape(len(self.examples), -1)
        p = sign_flip_test(flat, seed=self.seed)
        p[np.isnan(flat).all(0)] = np.nan
        corrected = holm(p).reshape(len(pairs), -1)
        rows = []
        for k, metric in enumerate(self.metric_names):
            sign = 1 if self.better(metric) == "higher" else -1
            for row, (i, j) in enumerate(pairs):
                known = differences[:, row, k][~np.isnan(differences[:, row, k])]
                mean = float(known.mean()) if len(known) else float("nan")
                a, b = self.method_names[i], self.method_names[j]
                settled = corrected[row, k] <= LEVEL
                rows.append((metric, a, b, mean, float(p.reshape(len(pairs), -1)[row, k]), float(corrected[row, k]),
                             (a if sign * mean > 0 else b) if settled else ""))  # fmt: skip
        return tuple(rows)

    def significance(self) -> Table:
        """Return one row per metric and pair of methods: mean difference, p-value, and which one is better for sure.

        The p-values are those of `sign_flip_test` over the examples that both have, corrected by `holm` over all pairs
        and metrics together; a method is called better where the corrected one is at most 0.05.
        """
        return Table(title=f"Differences between methods: {self.title}", columns=TESTS, rows=self.tests)

    def as_good(self, metric: str) -> list[str]:
        """Return the methods that no test tells from the best one of a metric, itself included."""
        best = self.best(metric)
        beaten = {
            (b if better == a else a)
            for name, a, b, _, _, _, better in self.tests if name == metric and better and better == best
        }  # fmt: skip
        return [] if best is None else [method for method in self.method_names if method not in beaten]

    def scores(self, index: int, method: str) -> Scores | None:
        """Return the explanation of an example by a method, None where it failed."""
        entry = self.kept[index, method]
        if "result" not in entry:
            return None
        found = encoding.from_json(json.dumps(entry["result"]))
        assert isinstance(found, Scores)
        return found

    def failures(self) -> list[tuple[str, str, int, str]]:
        """Return (method, metric or "", how many examples, the first reason) for what could not be computed."""
        found: Counter[tuple[str, str]] = Counter()
        reasons: dict[tuple[str, str], str] = {}
        for (_, method), entry in self.kept.items():
            _count(found, reasons, (method, ""), entry)
        for (index, method, metric), entry in self.found.items():
            if "result" in self.kept[index, method]:
                _count(found, reasons, (method, metric), entry)
        return [(method, metric, count, reasons[method, metric]) for (method, metric), count in found.items()]

    @property
    def accuracy(self) -> float:
        """Return the share of examples whose label a classifier predicts, NaN where nothing can be compared."""
        known = [right(dict(q), e) for q, e in zip(self.questions, self.examples, strict=True)]
        compared = [one for one in known if one is not None]
        return float(np.mean(compared)) if compared else float("nan")

    def costs(self) -> list[tuple[str, float, float, float]]:
        """Return (method, mean seconds, rows forward, rows backward per example) of the explanations."""
        found = []
        for method in self.method_names:
            made = [e["result"]["provenance"] for (_, m), e in self.kept.items() if m == method and "result" in e]
            means = [float(np.mean([one[key] for one in made])) if made else float("nan")
                     for key in ("seconds", "forwards", "backwards")]  # fmt: skip
            found.append((method, *means))
        return found

    @property
    def title(self) -> str:
        """Return a headline: counts, data and model; a model's folder by its last name, as pages are passed on."""
        model = Path(self.model).name if Path(self.model).is_absolute() else self.model
        return (
            f"{len(self.methods)} methods by {len(self.metrics)} metrics on {len(self.examples)} examples of "
            f"{self.data} ({model})"
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Save `table()` to a folder; the values themselves are in the record."""
        return self.table().save(path)

    def show(self) -> None:
        """Print the means, with half of their intervals."""
        self.brief().show()

    def _evidence(self) -> tuple[Evidence, ...]:
        tested = len(self.tests)
        sure = sum(bool(row[-1]) for row in self.tests)
        found = [Evidence(
            "differences",
            f"{sure} of {tested} differences between two methods hold at {LEVEL:.0%} after Holm's correction over all "
            "of them (paired sign-flip test over examples).",
            {"tests": float(tested), "differences": float(sure)},
        )]  # fmt: skip
        found += [Evidence("note", note) for note in self.notes]
        for method, metric, count, reason in self.failures():
            what = f"{metric} of {method}" if metric else method
            found.append(Evidence("left out", f"{what} on {count} examples; the first says: {reason}", ok=False))
        return tuple(found)


def _count(
    found: Counter[tuple[str, str]], reasons: dict[tuple[str, str], str], key: tuple[str, str], entry: Mapping[str, Any]
) -> None:
    if "failed" in entry:
        found[key] += 1
        reasons.setdefault(key, entry["failed"])


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a line of the record, whose NaN and infinities are marked."""
    found = {k: float(v["$float"]) if isinstance(v, Mapping) else float(v) for k, v in values.items()}
    return found or {"value": float("nan")}


def _short(value: float, width: float) -> str:
    if np.isnan(value):
        return "–"
    return f"{value:.3g}" + (f" ±{width / 2:.2g}" if width else "")
