"""Models that ship their right explanation, and how each kind of method is asked about it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pellucid.core.catalogue import Entry
from pellucid.core.errors import InputError, did_you_mean
from pellucid.core.results import Graph, Result, Scores
from pellucid.core.targets import Target
from pellucid.evaluate._ranking import RESOLUTION
from pellucid.models.saved import ZOO

SITES = {"place": "resid_pre", "head": "attn.z", "neuron": "mlp.post"}
INPUTS = ("input", "rationale", "shortcut")  # all ask which input matters; a model's answer says which of them it is
ORDER = (*INPUTS, "head", "neuron", "place", "edge")


@dataclass(frozen=True)
class Known:
    """A model of the zoo and its answer, as `answer.json` holds it (see docs/truth.md)."""

    name: str
    question: str
    redundant: bool
    replacement: int
    resolution: float
    prompts: tuple[dict[str, Any], ...]
    pairs: tuple[dict[str, Any], ...]
    neurons: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Item:
    """One answer of a method beside the truth, of the same shape.

    `signed` says whether the sign has a meaning; scores closer than `resolution` of the largest count as equal.
    """

    question: str
    truth: np.ndarray
    scores: np.ndarray
    relevant: np.ndarray
    signed: bool
    passes: int
    resolution: float


def known(names: Sequence[str] | None) -> list[Known]:
    """Return the bundled models that ship an answer, or those named ("truth/fact", with or without "zoo:").

    Raises:
        InputError: a name is not among them.
    """
    found = {file.parent.relative_to(ZOO).as_posix(): file for file in sorted(ZOO.glob("**/answer.json"))}
    wanted = [name.removeprefix("zoo:") for name in names] if names is not None else list(found)
    for name in wanted:
        if name not in found:
            hint = did_you_mean(name, found) or f"; it has {', '.join(found)}"
            raise InputError(f"The zoo has no model {name!r} whose answer is known{hint}.")
    return [_read(name, json.loads(found[name].read_text(encoding="utf-8"))) for name in wanted]


def _read(name: str, answer: dict[str, Any]) -> Known:
    return Known(
        name, answer.get("question", "input"), bool(answer.get("redundant")), int(answer["replacement"]),
        float(answer.get("resolution", RESOLUTION)),
        tuple(answer.get("prompts", ())), tuple(answer.get("pairs", ())), tuple(answer.get("neurons", ())),
    )  # fmt: skip


def questions(entry: Entry) -> tuple[str, ...]:
    """Return the questions a method answers, by its metadata: input, head, neuron, place (layer, position), edge.

    A model whose answer asks for a rationale or a shortcut asks that in the place of "input".
    """
    axes = entry.axes
    if entry.kind != "method" or entry.family == "reading":  # what is read says what is there, not what it does
        return ()
    if entry.takes == "prompt" and entry.produces == "scores" and axes[:1] == ("unit",) and "other_unit" not in axes:
        return ("input",)
    if entry.takes not in ("prompt", "pair"):
        return ()
    if entry.produces == "graph" and entry.takes == "pair":
        return ("edge",)
    if entry.produces != "scores" or axes[:1] != ("layer",):
        return ()
    if entry.takes == "pair" and "site" in {parameter["name"] for parameter in entry.parameters}:
        return ("head", "neuron", "place")
    return ("head",) if axes[1:2] == ("head",) else ("place",) if axes == ("layer", "position") else ()


def arguments(entry: Entry, model: Known, item: dict[str, Any], question: str, seed: int) -> dict[str, Any]:
    """Return what a method is called with: the item's prompt and target, and the stated replacement where it takes one.

    Raises:
        InputError: the method asks for something that the answer does not hold.
    """
    target, contrast = item["target"], item["contrast"]
    names = {parameter["name"]: parameter for parameter in entry.parameters}
    offered: dict[str, Any] = {
        "prompt": item.get("ids", item.get("clean")), "clean": item.get("clean"), "corrupt": item.get("corrupt"),
        "target": target, "replacement": model.replacement, "site": SITES.get(question), "seed": seed, "unit": "token",
    }  # fmt: skip
    if "Baseline" in names.get("baseline", {}).get("annotation", ""):
        offered["baseline"] = model.replacement
    if contrast is not None:
        offered |= {"contrast": contrast} if "contrast" in names else {"target": Target(target, contrast)}
    lacking = [name for name, p in names.items() if p["required"] and name != "subject" and name not in offered]
    if lacking:
        raise InputError(f"it needs {' and '.join(lacking)}, which the answer does not hold")
    return {name: value for name, value in offered.items() if name in names and value is not None}


def compare(question: str, item: dict[str, Any], result: Result, resolution: float = RESOLUTION) -> Item:
    """Return a method's answer beside the truth, both summed to the axes of the question.

    Raises:
        InputError: the answer is about other parts than the truth, or holds values that are not finite.
    """
    passes = result.provenance.forwards + result.provenance.backwards
    signed = False
    if isinstance(result, Graph):
        truth, scores = _edges(item, result)
    else:
        assert isinstance(result, Scores)
        signed = "positive" in result.sign.lower() and question in (*INPUTS, "place")
        if question in ("head", "neuron") and question not in result.axes:
            raise InputError(f"it gives scores by {', '.join(result.axes)}, one per {question} is asked for")
        truth, scores = _parts(question, item, np.asarray(result.values))
    if truth.shape != scores.shape or not np.isfinite(scores).all():
        raise InputError(f"it gives {scores.shape} scores, {truth.shape} finite ones are asked for")
    relevant = np.array(item["rationale"]) > 0 if "rationale" in item else np.abs(truth) > 1e-9
    return Item(question, truth, scores, relevant, signed, passes, resolution)


def _parts(question: str, item: dict[str, Any], values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the truth and the scores of inputs, places, heads or neurons; positions of the latter two are summed."""
    if question in INPUTS:
        return np.array(item["truth"]), values.reshape(len(values), -1).sum(1)
    if question == "place":
        return np.array(item["places"]), values
    summed = np.abs(values).reshape(*values.shape[:2], -1).sum(2)
    if question == "head":
        return np.abs(np.array(item["heads"])).sum(2), summed
    truth = np.zeros(summed.shape)
    for layer, neuron, _, effect in item["neurons"]:
        truth[layer, neuron] += abs(effect)
    return truth, summed


def _edges(item: dict[str, Any], graph: Graph) -> tuple[np.ndarray, np.ndarray]:
    """Return truth and weight of every edge of a graph whose nodes are named as in the answer, both unsigned."""
    effects = {(source, target): abs(effect) for source, target, effect in item["edges"]}
    ids = [str(node["id"]) for node in graph.nodes]
    named = [(ids[int(s)], ids[int(t)]) for s, t in zip(graph.sources, graph.targets, strict=True)]
    if not set(named) & set(effects):
        raise InputError("its nodes are not named as in answer.json")
    return np.array([effects.get(edge, 0.0) for edge in named]), np.abs(graph.weights)


def chosen(items: Sequence[dict[str, Any]], count: int | None, seed: int) -> Iterator[dict[str, Any]]:
    """Yield `count` of the items, drawn without replacement and in their order; all of them for None."""
    if count is None or count >= len(items):
        yield from items
        return
    for index in sorted(np.random.default_rng(seed).permutation(len(items))[:count]):
        yield items[int(index)]
