"""Every attribution and patching method against models whose right explanation is known."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from pellucid.core.catalogue import Entry, entries
from pellucid.core.errors import CapabilityError, InputError, SiteError, did_you_mean
from pellucid.core.results import Evidence, Provenance, Table
from pellucid.engine import store
from pellucid.engine.planning import check_cancelled
from pellucid.evaluate._known import INPUTS, ORDER, Item, Known, arguments, chosen, compare, known, questions
from pellucid.evaluate._ranking import area_under_roc, average_precision, chance_precision, interval, rank_correlation
from pellucid.methods import run
from pellucid.models.load import load
from pellucid.models.subject import versions

COLUMNS = (
    "question", "model", "method", "correlation", "correlation_low", "correlation_high", "area", "area_low",
    "area_high", "chance", "measure", "compared", "prompts", "passes",
)  # fmt: skip
OVERALL = "all without redundant parts"
Key = tuple[str, str, str]


def bench_truth(
    methods: Sequence[str] | None = None,
    models: Sequence[str] | None = None,
    *,
    seed: int = 0,
    prompts: int | None = 16,
) -> Table:
    """Score methods against the known answers of the zoo's constructed models and classifiers.

    For each prompt (or pair of prompts) the method's scores are ranked against the truth: Spearman's rank correlation,
    and the area under precision-recall (which input) or under the ROC curve (which head, neuron, place, edge) of
    telling parts with an effect from parts without. Scores closer than a thousandth of the largest count as equal (a
    twentieth where the weights were trained and state the truth no more nearly).
    Methods whose sign has a meaning are held to it, others are compared with the size of the effects. Means over
    prompts with 95 % bootstrap intervals. The questions "rationale" and "shortcut" are those of the two trained
    classifiers: whether their words of opinion, and the one planted word, are found among all words.

    The truth of an input is its exact Shapley value in the stated function when removed words become the stated
    replacement token; that of an inner part is the change of the answer when the program, run without weights, takes
    that part alone from the clean prompt. So exact Shapley values and activation patching reach 1.0 where the weights
    compute the program, by linearity and by definition; any other figure measures how far a method's question is from
    this one.

    Args:
        methods: names; None takes every registered method that answers one of the questions.
        models: names such as "truth/fact"; None takes every bundled model with an answer.
        seed: of the draw of prompts and the bootstrap.
        prompts: prompts (and pairs) per model; None takes all that the answer holds.

    Returns:
        A table with one row per question, model and method, and one per method over all models without redundant parts.
        The evidence says which methods were left out and why.

    Raises:
        InputError: an unknown method or model, or a method that answers none of the questions.
    """
    start, chosen_models, left_out = time.perf_counter(), known(models), dict[tuple[str, str], str]()
    able, items = _entries(methods), dict[Key, list[Item]]()
    with _one_thread():
        for model in chosen_models:
            subject = load(f"zoo:{model.name}")
            for entry in able:
                for question, variant, item in _answers(subject, model, entry, prompts, seed, left_out):
                    items.setdefault((question, model.name, variant), []).append(item)
    redundant = {model.name for model in chosen_models if model.redundant}
    rng = np.random.default_rng(seed)
    rows = [_row(key, found, rng) for key, found in (*_overall(items, redundant), *items.items())]
    rows = [row for row in rows if not np.isnan(row[6])]  # no part of that kind matters in the model
    rows.sort(key=lambda row: (ORDER.index(row[0]), row[1] != OVERALL, row[1], -row[6], -np.nan_to_num(row[3]), row[2]))
    names = [m.name for m in chosen_models]
    parameters = {"methods": list(methods) if methods else None, "models": names, "prompts": prompts}
    return Table(
        title=f"Methods against the known answers of {len(chosen_models)} models",
        columns=COLUMNS, rows=tuple(tuple(map(_plain, row)) for row in rows),
        evidence=_left_out(left_out, len(chosen_models)),
        provenance=Provenance(
            "bench_truth", parameters, seed=seed, versions=versions(), seconds=time.perf_counter() - start
        ),
    )  # fmt: skip


def brief(table: Table) -> Table:
    """Return a table of `bench_truth` for reading: figures with their intervals as text, per method over all models."""
    place = {name: index for index, name in enumerate(table.columns)}
    rows = [row for row in table.rows if row[place["model"]] == OVERALL] or list(table.rows)

    def figure(row: tuple[Any, ...], name: str) -> str:
        mean, low, high = (row[place[name + end]] for end in ("", "_low", "_high"))
        return "-" if mean is None else f"{mean:.2f} [{low:.2f}, {high:.2f}]"

    short = tuple(
        (row[0], row[2], figure(row, "correlation"), figure(row, "area"), row[place["measure"]], row[place["chance"]],
         round(row[place["passes"]])) for row in rows
    )  # fmt: skip
    columns = ("question", "method", "rank correlation", "area", "measure", "chance", "passes")
    return Table(title=table.title, columns=columns, rows=short, evidence=table.evidence, provenance=table.provenance)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run on one thread: sharing models of this size out costs more than it brings."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _entries(methods: Sequence[str] | None) -> list[Entry]:
    able = [entry for entry in entries() if questions(entry)]
    if methods is None:
        return able
    names = [entry.name for entry in able]
    for name in methods:
        if name not in names:
            hint = did_you_mean(name, names) or f"; those that do are {', '.join(names)}"
            raise InputError(f"{name!r} is no method that says which input, head, neuron, place or edge matters{hint}.")
    return [entry for entry in able if entry.name in methods]


def _answers(
    subject: Any, model: Known, entry: Entry, prompts: int | None, seed: int, left_out: dict[tuple[str, str], str]
) -> Iterator[tuple[str, str, Item]]:
    """Yield question, method and answer for every drawn prompt; say in `left_out` why there is none.

    A method that refuses one of a model's prompts is left out on that model, so that all are compared on the same.
    """
    flags = [p["name"] for p in entry.parameters if p["name"] == "exact" and p["default"] is False]
    variants = [(entry.name, dict[str, Any]()), *((f"{entry.name} ({flag})", {flag: True}) for flag in flags)]
    for question in questions(entry):
        asked = model.question if question == "input" else question
        for variant, more in variants:
            found: list[Item] = []
            try:
                for item in chosen(model.prompts if question == "input" else model.pairs, prompts, seed):
                    check_cancelled()
                    given = arguments(entry, model, item, question, seed)
                    with store.unused():  # each pays for itself
                        result = run(entry.name, subject, **given, **more)
                    found.append(compare(asked, item, result, model.resolution))
            except SiteError:
                continue  # a model without such parts has no answer to the question
            except (CapabilityError, InputError) as error:
                left_out[variant, model.name] = str(error)
                continue
            yield from ((asked, variant, item) for item in found)


def _figures(item: Item) -> tuple[float, float, float]:
    """Return rank correlation, area and chance level of one answer."""
    size = np.abs(item.scores)
    first, second = (item.truth, item.scores) if item.signed else (np.abs(item.truth), size)
    correlation = rank_correlation(first, second, item.resolution)
    if item.question in INPUTS:
        return correlation, average_precision(item.relevant, size, item.resolution), chance_precision(item.relevant)
    return correlation, area_under_roc(item.relevant, size), 0.5


def _row(key: Key, items: list[Item], rng: np.random.Generator) -> tuple[Any, ...]:
    figures = np.array([_figures(item) for item in items])
    measure = "AUPRC" if key[0] in INPUTS else "AUROC"
    compared = "signed" if items[0].signed else "size"
    chance = interval(figures[:, 2], rng, 2)[0]
    passes = float(np.mean([item.passes for item in items]))
    ends = (*interval(figures[:, 0], rng), *interval(figures[:, 1], rng))
    return (*key, *ends, chance, measure, compared, len(items), passes)


def _overall(items: dict[Key, list[Item]], redundant: set[str]) -> Iterator[tuple[Key, list[Item]]]:
    """Yield, per question and method, the answers for the prompts of all models without redundant parts."""
    pooled: dict[Key, list[Item]] = {}
    for (question, model, method), found in items.items():
        if model not in redundant:
            pooled.setdefault((question, OVERALL, method), []).extend(found)
    yield from pooled.items()


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return None if np.isnan(value) else round(value, 4)
    return value


def _left_out(reasons: dict[tuple[str, str], str], models: int) -> tuple[Evidence, ...]:
    """Say which methods were not scored, on which models (none named: on all), and the reason given for the first."""
    where: dict[str, list[str]] = {}
    for method, model in sorted(reasons):
        where.setdefault(method, []).append(model)
    if not where:
        return ()
    said = [
        f"{method}{'' if len(names) == models else ' on ' + ', '.join(names)} ({reasons[method, names[0]].rstrip('.')})"
        for method, names in where.items()
    ]
    return (Evidence("left out", f"Not scored: {'; '.join(said)}.", {"methods": float(len(where))}),)
