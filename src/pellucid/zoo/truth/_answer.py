"""The answer of a program as data: what each input, place, head, neuron and edge is worth. No model is asked.

Inputs: the exact Shapley values of the stated function (`value`) when a removed word becomes the blank. Inner parts:
the change of the answer when that part alone is taken from the clean run of the program into the corrupted one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from pellucid.zoo.truth._program import BLANK, SCALE, Asked, Exchange, Program, Run, Words, execute, read


def answer(program: Program) -> dict[str, Any]:
    """Return everything that is known about a constructed model, as plain JSON values; effects are in logits."""
    order = {word: index for index, word in enumerate(program.vocabulary)}
    prompts = [
        {"ids": program.ids(words), **_asked(order, program.ask(words)), "truth": _rounded(shapley(program, words))}
        for words in program.prompts
    ]
    return {
        "format": 1, "model": f"zoo:truth/{program.name}", "summary": program.summary, "redundant": program.redundant,
        "replacement": order[BLANK], "heads": _heads(program), "neurons": _neurons(program), "prompts": prompts,
        "pairs": [_pair(program, order, clean, corrupt) for clean, corrupt in program.pairs],
    }  # fmt: skip


def shapley(program: Program, words: Words) -> np.ndarray:
    """Return the Shapley value of every word, straight from the definition over all subsets of the others."""
    asked, count = program.ask(words), len(words)
    values = {
        kept: program.value(tuple(w if i in kept else BLANK for i, w in enumerate(words)), *asked)
        for kept in map(frozenset, _subsets(range(count)))
    }
    found = np.zeros(count)
    for player in range(count):
        for others in map(frozenset, _subsets(i for i in range(count) if i != player)):
            weight = math.factorial(len(others)) * math.factorial(count - len(others) - 1) / math.factorial(count)
            found[player] += weight * (values[others | {player}] - values[others])
    return SCALE * found


def _subsets(items: Any) -> Iterator[tuple[int, ...]]:
    given = tuple(items)
    return itertools.chain.from_iterable(itertools.combinations(given, size) for size in range(len(given) + 1))


def _asked(order: dict[str, int], asked: Asked) -> dict[str, Any]:
    return {"target": order[asked[0]], "contrast": None if asked[1] is None else order[asked[1]]}


def _rounded(values: np.ndarray) -> list[Any]:
    found: list[Any] = (np.round(values, 9) + 0.0).tolist()  # adding zero turns -0.0 into 0.0
    return found


def _heads(program: Program) -> list[dict[str, Any]]:
    return [
        {"layer": layer, "head": index, "role": head.role, "relevant": bool(head.role)}
        for layer, block in enumerate(program.blocks)
        for index, head in enumerate(block.heads)
    ]


def _neurons(program: Program) -> list[dict[str, Any]]:
    return [
        {"layer": layer, "neuron": index, "role": neuron.role, "relevant": bool(neuron.role)}
        for layer, block in enumerate(program.blocks)
        for index, neuron in enumerate(block.neurons)
    ]


def _pair(program: Program, order: dict[str, int], clean: Words, corrupt: Words) -> dict[str, Any]:
    asked = program.ask(clean)
    good, bad = execute(program, clean), execute(program, corrupt)
    worth = read(program, bad.logits, asked)

    def effect(exchange: Exchange) -> float:
        return SCALE * (read(program, execute(program, corrupt, exchange).logits, asked) - worth)

    length, depth = len(clean) + 1, len(program.blocks)
    count = len(good.heads[0])
    places, heads = np.zeros((depth, length)), np.zeros((depth, count, length))
    neurons: list[list[Any]] = []
    for layer, place in itertools.product(range(depth), range(length)):
        places[layer, place] = effect(Exchange("state", layer, 0, place, good.states[layer][place]))
        for head in range(count):
            heads[layer, head, place] = effect(Exchange("head", layer, head, place, good.heads[layer][head, place]))
        for neuron in np.flatnonzero(good.neurons[layer][place] != bad.neurons[layer][place]):
            value = float(good.neurons[layer][place, neuron])
            neurons.append([layer, int(neuron), place, effect(Exchange("neuron", layer, int(neuron), place, value))])
    edges = [[source, target, effect(exchange)] for source, target, exchange in _edges(program, good, bad)]
    return {
        "clean": program.ids(clean), "corrupt": program.ids(corrupt), **_asked(order, asked),
        "difference": round(SCALE * (read(program, good.logits, asked) - worth), 9),
        "places": _rounded(places), "heads": _rounded(heads),
        "neurons": [[*n[:3], round(n[3], 9)] for n in neurons if abs(n[3]) > 1e-9],
        "edges": [[s, t, round(e, 9)] for s, t, e in edges if abs(e) > 1e-9],
    }  # fmt: skip


def _edges(program: Program, good: Run, bad: Run) -> Iterator[tuple[str, str, Exchange]]:
    """Yield every edge with what its receiver would see if the sender alone wrote what it wrote in the clean run."""
    for order, source, change in _senders(program, good, bad):
        for place, target, layer, index in receivers(program):
            if place > order and np.any(change):
                yield source, target, Exchange("edge", layer, index, 0, change)


def _senders(program: Program, good: Run, bad: Run) -> Iterator[tuple[int, str, np.ndarray]]:
    yield -1, "embed", good.states[0] - bad.states[0]
    for layer, block in enumerate(program.blocks):
        for head in range(len(block.heads)):
            yield 2 * layer, f"blocks.{layer}.attn.{head}", good.heads[layer][head] - bad.heads[layer][head]
        moved = good.states[layer + 1] - good.states[layer] - good.heads[layer].sum(0)
        moved = moved - (bad.states[layer + 1] - bad.states[layer] - bad.heads[layer].sum(0))
        if block.neurons:
            yield 2 * layer + 1, f"blocks.{layer}.mlp", moved


def receivers(program: Program) -> Iterator[tuple[int, str, int, int]]:
    """Yield (when it runs, name, layer, number as in `Exchange`) of everything that reads the residual stream."""
    for layer, block in enumerate(program.blocks):
        for head in range(len(block.heads)):
            yield 2 * layer, f"blocks.{layer}.attn.{head}", layer, head
        if block.neurons:
            yield 2 * layer + 1, f"blocks.{layer}.mlp", layer, -1
    yield 2 * len(program.blocks), "logits", len(program.blocks), -2
