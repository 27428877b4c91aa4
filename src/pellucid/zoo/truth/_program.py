"""A program: what a constructed model computes, written in words twice, and run without any weights.

Once as a plain function of the prompt's words (`value`), once as heads and neurons that move named features of the
residual stream (`blocks`). The second is what the weights are made of (`_weights`); here it is run with attention that
is exactly hard, and any part of it can be exchanged, so that the effect of a part is known without asking the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

PAD, START, BLANK = "<pad>", "<bos>", "_"
LONGEST = 8
SCALE = 10.0
SHARP = 32.0
FALLBACK = SHARP / 2


@dataclass(frozen=True)
class Head:
    """A head attends to the places with the highest score and copies features from there.

    `scores` are (feature of the query, feature of the key, strength): the score is the sum of strength x query x key.
    `moves` are (feature read, feature written). `role` says what the head is for; an idle one has the role "".
    """

    role: str
    scores: tuple[tuple[str, str, float], ...]
    moves: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Neuron:
    """A neuron is max(0, sum of amount x feature read + bias), times the amounts written; idle with the role ""."""

    role: str
    reads: tuple[tuple[str, float], ...]
    bias: float
    writes: tuple[tuple[str, float], ...]


CHATTER = ("chatter", BLANK, 0.1)


def sink(*features: str) -> tuple[tuple[str, str, float], ...]:
    """Return scores that look for the features anywhere, and at the start token where there are none."""
    return (*(("one", feature, SHARP) for feature in features), ("one", f"tok:{START}", FALLBACK))


def idle_head(name: str, word: str) -> Head:
    """Return a head that attends to a word and writes where nobody reads."""
    return Head("", sink(f"tok:{word}"), ((f"tok:{word}", name),))


def chatter(*words: str) -> Head:
    """Return a head that attends softly to words and moves (with `CHATTER`) the blank's logit, which nobody asks for.

    It does not touch any answer, but it makes every site of its block move some logit, as the proofs at load demand.
    """
    features = [f"tok:{word}" for word in words]
    return Head("", tuple(("one", name, 1.0) for name in features), tuple((name, "chatter") for name in features))


@dataclass(frozen=True)
class Block:
    """One block: its heads run side by side, then its neurons."""

    heads: tuple[Head, ...]
    neurons: tuple[Neuron, ...] = ()


@dataclass(frozen=True)
class Matrices:
    """A block over all features: per head (query x key, read x written), and what the neurons read, add and write."""

    heads: tuple[tuple[np.ndarray, np.ndarray], ...]
    reads: np.ndarray
    bias: np.ndarray
    writes: np.ndarray


Words = tuple[str, ...]
Asked = tuple[str, str | None]


@dataclass(frozen=True)
class Program:
    """A constructed model's answer.

    Attributes:
        name: of the model, `zoo:truth/NAME`.
        summary: what it computes, in one sentence.
        words: the ordinary words of its vocabulary.
        blocks: its parts.
        logits: (feature, word, amount): how the logits are read at the last position.
        value: the stated function (words of the prompt, word asked for, word it is compared with or None) -> logit, or
            logit difference, in units of `SCALE`.
        inputs: all short prompts for which the function is stated, without the start token.
        prompts: those among them that explanations are scored on: every one of one length that has an answer.
        ask: the answer of a prompt and the word it is compared with.
        pairs: clean and corrupted prompts for patching.
        redundant: whether parts can stand in for each other, so that removing one shows nothing.
        gpt2: whether it is built inside an unmodified GPT-2.
        notes: for the card.
    """

    name: str
    summary: str
    words: Words
    blocks: tuple[Block, ...]
    logits: tuple[tuple[str, str, float], ...]
    value: Callable[[Words, str, str | None], float]
    inputs: tuple[Words, ...] = field(repr=False)
    prompts: tuple[Words, ...] = field(repr=False)
    ask: Callable[[Words], Asked]
    pairs: tuple[tuple[Words, Words], ...] = field(repr=False)
    redundant: bool = False
    gpt2: bool = False
    notes: str = ""

    @cached_property
    def vocabulary(self) -> Words:
        """Return all tokens in the order of their ids: padding, start, blank, then the words."""
        return (PAD, START, BLANK, *self.words)

    @cached_property
    def features(self) -> Words:
        """Return the names of the dimensions of the residual stream, in order."""
        used = ["one"] + [f"pos:{i}" for i in range(LONGEST)] if self._uses_positions() else ["one"]
        used += [f"tok:{word}" for word in (START, *self.words)]
        for block in self.blocks:
            used += [name for head in block.heads for move in head.moves for name in move]
            used += [name for neuron in block.neurons for name, _ in (*neuron.reads, *neuron.writes)]
        return tuple(dict.fromkeys(used))

    @cached_property
    def matrices(self) -> tuple[Matrices, ...]:
        """Return each block as matrices over the features."""
        names = {name: i for i, name in enumerate(self.features)}
        return tuple(_matrices(block, names) for block in self.blocks)

    def _uses_positions(self) -> bool:
        return any("pos:" in name for b in self.blocks for h in b.heads for q, k, _ in h.scores for name in (q, k))

    def ids(self, words: Sequence[str]) -> tuple[int, ...]:
        """Return the token ids of a prompt, the start token included."""
        order = {word: index for index, word in enumerate(self.vocabulary)}
        return tuple(order[word] for word in (START, *words))


@dataclass(frozen=True)
class Run:
    """What happened everywhere in a run; the layers of `states` are the streams before each block and at the end."""

    states: list[np.ndarray]
    heads: list[np.ndarray]
    neurons: list[np.ndarray]
    logits: np.ndarray


@dataclass(frozen=True)
class Exchange:
    """Put other values into a run, as patching does: whole streams, what heads wrote, or activations of neurons.

    `kind` is "state" (value [features] at `position`), "head" or "neuron" (number `index` at `position`), or "edge":
    the receiver `index` of `layer` (a head's number, -1 for the neurons, -2 for the readout) sees `value` [positions,
    features] added to the stream, and nothing else does.
    """

    kind: str
    layer: int
    index: int
    position: int
    value: np.ndarray | float


def execute(program: Program, words: Sequence[str], exchange: Exchange | None = None) -> Run:
    """Run a program on a prompt with exactly hard attention, with at most one exchange."""
    names = {name: i for i, name in enumerate(program.features)}
    stream = _embedded(program, names, words)
    states, heads, neurons = [], [], []

    for layer, block in enumerate(program.blocks):
        if state := _due(exchange, "state", layer, 0):
            stream[state.position] = state.value
        states.append(stream.copy())
        matrices = program.matrices[layer]
        written = np.stack([_attend(*head, _seen(exchange, stream, layer, i)) for i, head in enumerate(matrices.heads)])
        for i in range(len(block.heads)):
            if head := _due(exchange, "head", layer, i):
                written[i, head.position] = head.value
        heads.append(written)
        stream = stream + written.sum(0)
        active = np.maximum(0, _seen(exchange, stream, layer, -1) @ matrices.reads.T + matrices.bias)
        for i in range(len(block.neurons)):
            if neuron := _due(exchange, "neuron", layer, i):
                active[neuron.position, i] = neuron.value
        neurons.append(active)
        stream = stream + active @ matrices.writes
    states.append(stream)
    final = _seen(exchange, stream, len(program.blocks), -2)[-1]
    logits = np.zeros(len(program.vocabulary))
    for feature, word, amount in program.logits:
        logits[program.vocabulary.index(word)] += amount * final[names[feature]]
    return Run(states, heads, neurons, logits)


def _due(exchange: Exchange | None, kind: str, layer: int, index: int) -> Exchange | None:
    if exchange is None or (exchange.kind, exchange.layer, exchange.index) != (kind, layer, index):
        return None
    return exchange


def _seen(exchange: Exchange | None, stream: np.ndarray, layer: int, index: int) -> np.ndarray:
    """Return the stream as one receiver sees it."""
    edge = _due(exchange, "edge", layer, index)
    return stream if edge is None else stream + edge.value


def read(program: Program, logits: np.ndarray, asked: Asked) -> float:
    """Return the logit of the word asked for, less that of the word it is compared with."""
    target, contrast = asked
    value = logits[program.vocabulary.index(target)]
    return float(value if contrast is None else value - logits[program.vocabulary.index(contrast)])


def _embedded(program: Program, names: dict[str, int], words: Sequence[str]) -> np.ndarray:
    stream = np.zeros((len(words) + 1, len(names)))
    stream[:, names["one"]] = 1
    for position, word in enumerate((START, *words)):
        for name in (f"tok:{word}", f"pos:{position}"):
            if name in names:
                stream[position, names[name]] = 1
    return stream


def _attend(score: np.ndarray, move: np.ndarray, stream: np.ndarray) -> np.ndarray:
    scores = stream @ score @ stream.T
    scores[np.triu_indices(len(stream), 1)] = -np.inf
    chosen = scores >= scores.max(1, keepdims=True) - 1e-9
    written: np.ndarray = (chosen / chosen.sum(1, keepdims=True)) @ stream @ move
    return written


def _matrices(block: Block, names: dict[str, int]) -> Matrices:
    heads = []
    for head in block.heads:
        score, move = np.zeros((2, len(names), len(names)))
        for query, key, strength in head.scores:
            score[names[query], names[key]] += strength
        for source, place in head.moves:
            move[names[source], names[place]] += 1
        heads.append((score, move))
    reads, writes = (_matrix([getattr(n, side) for n in block.neurons], names) for side in ("reads", "writes"))
    return Matrices(tuple(heads), reads, np.array([n.bias for n in block.neurons]), writes)


def _matrix(parts: Sequence[tuple[tuple[str, float], ...]], names: dict[str, int]) -> np.ndarray:
    matrix = np.zeros((len(parts), len(names)))
    for i, amounts in enumerate(parts):
        for name, amount in amounts:
            matrix[i, names[name]] += amount
    return matrix
