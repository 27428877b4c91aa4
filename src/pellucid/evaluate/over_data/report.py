"""What the page of an evaluation shows: which examples, which methods of them, and what the tests come to in words."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pellucid.evaluate.over_data.asked import SAID
from pellucid.evaluate.over_data.findings import Findings
from pellucid.evaluate.over_data.questions import right
from pellucid.render.evaluation_dots import Dot, Panel, drawing
from pellucid.render.html_evaluation import Cell, Metric, Report, Shown, evaluation_page

SIDE, STRIPS = 2, 4


def page(evaluation: Findings) -> str:
    """Return the page of an evaluation."""
    return evaluation_page(report(evaluation))


def figure(evaluation: Findings) -> str:
    """Return the means with their intervals as one SVG file."""
    return drawing(_panels(evaluation), evaluation.title)


def report(evaluation: Findings) -> Report:
    """Return everything that the page shows."""
    failures = [
        (method, metric or "(the method itself)", str(count), reason)
        for method, metric, count, reason in evaluation.failures()
    ]
    tests = [
        (metric, first, second, *(f"{number:.3g}" for number in numbers), better or "–")
        for metric, first, second, *numbers, better in evaluation.tests
    ]
    return Report(
        title=evaluation.title,
        facts=_facts(evaluation),
        notes=evaluation.notes,
        methods=evaluation.method_names,
        metrics=tuple(_metric(evaluation, name) for name in evaluation.metric_names),
        tests=tuple(tests),
        costs=tuple((name, *(f"{number:.3g}" for number in numbers)) for name, *numbers in evaluation.costs()),
        examples=tuple(_row(evaluation, index) for index in range(len(evaluation.examples))),
        example_columns=("#", "text", "label", "what was explained", *evaluation.metric_names),
        left_out=tuple(failures),
        panels=_panels(evaluation),
    )


def _facts(evaluation: Findings) -> tuple[str, ...]:
    measure, explain = evaluation.wanted.measure, evaluation.wanted.explain
    what = f"{evaluation.wanted.generate} generated tokens" if evaluation.wanted.generate else f"the {explain} class"
    what = "the next token" if not evaluation.wanted.generate and _language(evaluation) else what
    facts = [f"Explained: {what}, or an example's own target; measured as {measure}."]
    if not math.isnan(evaluation.accuracy):
        facts.append(f"The model predicts the label of {evaluation.accuracy:.1%} of the examples that have one.")
    return tuple(facts)


def _language(evaluation: Findings) -> bool:
    return not any("predicted" in question for question in evaluation.questions)


def _metric(evaluation: Findings, name: str) -> Metric:
    asked = next(one for one in evaluation.metrics if one.name == name)
    good = evaluation.as_good(name)
    best, worst = _extremes(evaluation, name)
    said = SAID.get(asked.role, "")
    return Metric(
        name=name,
        direction=evaluation.better(name),
        about=_summary(asked.entry.summary) + (f" Here: {said}." if said else ""),
        chance=evaluation.chance(name),
        cells=tuple(_cell(evaluation, method, name, method in good) for method in evaluation.method_names),
        verdict=_verdict(evaluation, name, good),
        best=tuple(_shown(evaluation, index, name) for index in best),
        worst=tuple(_shown(evaluation, index, name) for index in worst),
    )


def _summary(docstring: str) -> str:
    """Return what a metric measures, from the sentence that says what its function returns."""
    plain = docstring.removeprefix("Return ")
    return plain[:1].upper() + plain[1:]


def _cell(evaluation: Findings, method: str, metric: str, good: bool) -> Cell:
    values = evaluation.cells[method, metric].values
    return Cell(
        values["value"], values["low"], values["high"], values.get("gap", math.nan), int(values["examples"]),
        int(values["left_out"]), good and not math.isnan(values["value"]),
    )  # fmt: skip


def _verdict(evaluation: Findings, metric: str, good: list[str]) -> str:
    best = evaluation.best(metric)
    if best is None:
        return "There is no value."
    others = [method for method in good if method != best and not math.isnan(_mean(evaluation, method, metric))]
    beaten = len(evaluation.methods) - len(good)
    head = f"{best} has the best mean ({_mean(evaluation, best, metric):.3g})"
    if not others:
        return f"{head}, and it is better than each of the other {beaten} methods."
    if not beaten:
        return f"{head}, but no test tells it from any other method."
    return f"{head}, and it is better than {beaten} of the others; no test tells it from {', '.join(others)}."


def _mean(evaluation: Findings, method: str, metric: str) -> float:
    return float(evaluation.cells[method, metric].values["value"])


def _extremes(evaluation: Findings, metric: str) -> tuple[list[int], list[int]]:
    """Return the examples where the methods together are furthest above and below chance by a metric."""
    sign = 1 if evaluation.better(metric) == "higher" else -1
    gaps = np.array([
        [sign * (one["value"] - _level(one)) for one in evaluation.numbers(metric, method)]
        for method in evaluation.method_names
    ])  # fmt: skip
    known = np.flatnonzero(~np.isnan(gaps).all(0))
    means = np.nanmean(gaps[:, known], axis=0) if len(known) else np.zeros(0)
    order = known[np.argsort(-means, kind="stable")].tolist()
    count = min(SIDE, len(order) // 2)
    return order[:count], order[::-1][:count]


def _level(numbers: dict[str, float]) -> float:
    return next((numbers[name] for name in ("random_mean", "chance") if name in numbers), 0.0)


def _shown(evaluation: Findings, index: int, metric: str) -> Shown:
    """Return an example with the explanations of the best and the worst method of it, and of some between."""
    place = evaluation.metric_names.index(metric)
    values = evaluation.values[index, :, place]
    sign = 1 if evaluation.better(metric) == "higher" else -1
    ranked = [i for i in np.argsort(-sign * values, kind="stable").tolist() if not math.isnan(values[i])]
    count = min(STRIPS, len(ranked))
    taken = sorted({ranked[round(k * (len(ranked) - 1) / max(1, count - 1))] for k in range(count)}, key=ranked.index)
    strips = []
    for i in taken:
        scores = evaluation.scores(index, evaluation.method_names[i])
        if scores is not None:
            strips.append((evaluation.method_names[i], float(values[i]), scores))
    marked = _marked(evaluation, index) if evaluation.metrics[place].role == "rationale" else ""
    return Shown(f"Example {index + 1}: {_what(evaluation, index)}{marked}", _level_words(evaluation, index, metric),
                 tuple(strips))  # fmt: skip


def _level_words(evaluation: Findings, index: int, metric: str) -> str:
    numbers = [evaluation.numbers(metric, method)[index] for method in evaluation.method_names]
    levels = [_level(one) for one in numbers if "random_mean" in one or "chance" in one]
    return f"Chance here: {np.mean(levels):.3g}" if levels else ""


def _marked(evaluation: Findings, index: int) -> str:
    """Return in words what people marked in an example."""
    example = evaluation.examples[index]
    rationale = example.rationale or ()
    if all(isinstance(one, str) for one in rationale):
        return f"; people marked: {', '.join(rationale)}"
    if isinstance(example.text, str) and all(isinstance(one, tuple) for one in rationale):
        return f"; people marked: {', '.join(example.text[start:end] for start, end in rationale)}"
    return f"; people marked {sum(rationale)} units"


def _what(evaluation: Findings, index: int) -> str:
    question, example = dict(evaluation.questions[index]), evaluation.examples[index]
    if "failed" in question:
        return str(question["failed"])
    words = [f"explained {question['words']}"]
    if "predicted" in question:
        words.append(f"predicted {question['class']} ({question['probability']:.0%})")
    agrees = right(question, example)
    if agrees is not None:
        words.append(f"label {example.label}{'' if agrees else ', which is wrong'}")
    return ", ".join(words)


def _row(evaluation: Findings, index: int) -> tuple[str, ...]:
    example: Any = evaluation.examples[index]
    text = example.text if isinstance(example.text, str) else " / ".join(str(m["content"]) for m in example.text)
    text += "" if example.pair is None else f" ⁄⁄ {example.pair}"
    values = evaluation.values[index]
    means = [
        float(np.mean(column[~np.isnan(column)])) if (~np.isnan(column)).any() else math.nan for column in values.T
    ]
    label = "" if example.label is None else str(example.label)
    words = str(evaluation.questions[index].get("words", "–"))
    return (str(index + 1), text, label, words, *("–" if math.isnan(mean) else f"{mean:.3g}" for mean in means))


def _panels(evaluation: Findings) -> tuple[Panel, ...]:
    panels = []
    for metric in evaluation.metric_names:
        good, dots = evaluation.as_good(metric), []
        for method in evaluation.method_names:
            values = evaluation.cells[method, metric].values
            dots.append(Dot(method.replace("_", " "), values["value"], values["low"], values["high"], method in good))
        name = metric.replace("_", " ")
        panels.append(Panel(name, evaluation.better(metric), tuple(dots), evaluation.chance(metric)))
    return tuple(panels)
