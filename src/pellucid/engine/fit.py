"""What a batch of any shape takes on the model at hand, learned from a few small ones: seconds and bytes.

Seconds are a sum of non-negative terms: per call, per block, per token of a block, per pair of tokens of a block, per
token, per target row, and these again per gradient that travels backward. Bytes have the same terms, once for the
moment when the blocks run and once for the moment when the output is read; the larger of both is the peak.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.optimize import nnls

from pellucid.engine import probes
from pellucid.engine.probes import Setup, Shape
from pellucid.models import kernels

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

_BLOCKS, _PAIRS = (1, 2, 3), (3, 5, 8)  # places of the terms that count blocks, and pairs of tokens
_KEPT, _GRADIENTS = (2, 3), (7, 8, 9, 10)  # per token and pair of a block; per gradient that travels backward
SAVING = 0.03
_OUTSIDE = (5, 8)  # pairs of tokens outside of blocks
LONG_PROBE = {"cpu": (4, 64), "cuda": (32, 128)}  # rows and tokens: enough for products at their full speed


@dataclass(frozen=True)
class Fit:
    """The price of a batch: coefficients per term of `_terms`, blocks of the whole model, bytes of a token's gradient.

    `together` stands for `in_blocks` where several gradients travel backward together, through other kernels.
    `gradient` is 0 in a fit for forward passes. `setup` is what packing the weights for faster products takes.
    """

    blocks: int
    forward: np.ndarray
    backward: np.ndarray
    in_blocks: np.ndarray
    together: np.ndarray
    at_output: np.ndarray
    gradient: int
    setup: Setup

    def seconds(self, rows: int, tokens: int, targets: int = 1, gradients: int = 0) -> float:
        """Return the seconds of a batch forward, and of so many gradients of each row."""
        most = probes.TARGETS_AT_ONCE
        found = float(_terms(Shape(rows, tokens, targets, self.blocks), 0) @ self.forward)
        for at_once, times in ((most, gradients // most), (gradients % most, 1 if gradients % most else 0)):
            found += times * float(_terms(Shape(rows, tokens, targets, self.blocks), at_once) @ self.backward)
        return found

    def bytes(self, rows: int, tokens: int, targets: int = 1, gradients: int = 1) -> float:
        """Return the most bytes that a batch holds at once, its gradients and packed weights included."""
        shape = Shape(rows, tokens, targets, self.blocks, gradients if self.gradient else 0)
        terms = _terms(shape, shape.at_once)
        # On the way back through the blocks, their weights are packed a second time.
        in_blocks = terms @ (self.together if shape.at_once > 1 else self.in_blocks)
        in_blocks += self.setup.bytes + self.setup.back
        at_output = terms @ self.at_output + self.setup.bytes
        return float(max(in_blocks, at_output)) + self.gradient * rows * tokens * gradients

    def tokens_at_full_speed(self, tokens: int) -> float:
        """Return the tokens of a batch of such rows beyond which a row gets less than 3 % cheaper."""
        gradients = 1 if self.gradient else 0
        one, two = (self.seconds(rows, tokens, 1, gradients) for rows in (1, 2))
        row = max(two - one, 1e-9)
        return tokens * max(1.0, max(one - row, 0.0) / (SAVING * row))

    def rows(self, limit: float, tokens: int, targets: int = 1, gradients: int = 1) -> int:
        """Return how many rows fit into so many bytes, at least 1."""
        most = 1
        while most < 1 << 20 and self.bytes(2 * most, tokens, targets, gradients) <= limit:
            most *= 2
        step = most // 2
        while step:
            most += step if self.bytes(most + step, tokens, targets, gradients) <= limit else 0
            step //= 2
        return most


def fit(subject: Subject, graph: bool, tokens: int) -> Fit:
    """Return the fit for forward passes, or with a graph for differentiation; measured at the first call, then kept.

    Calls of the engine over many `tokens` may take faster products than those over few, so each kind has its own fit.
    """
    key = _key(subject, graph, tokens)
    if key not in subject.state.cache:
        with subject.lock, subject.uncounted():
            subject.state.cache[key] = _measured(subject.without_edits(), graph, tokens)
    found: Fit = subject.state.cache[key]
    return found


def known(subject: Subject, graph: bool, tokens: int) -> bool:
    """Return whether the model was measured already."""
    return _key(subject, graph, tokens) in subject.state.cache


def _key(subject: Subject, graph: bool, tokens: int) -> tuple[object, ...]:
    attention = getattr(subject.model.config, "_attn_implementation", "")
    packed = tokens >= kernels.LEAST_TOKENS and subject.device == "cpu" and subject.dtype == "float32"
    return (
        "fit",
        type(subject.model),
        subject.dtype,
        subject.device,
        attention,
        torch.get_num_threads(),
        graph,
        packed,
    )


def _measured(subject: Subject, graph: bool, tokens: int) -> Fit:
    parts = (1, 2) if subject.layers > 2 and probes.skippable(subject) else ()
    whole = subject.layers if parts else probes.depth_everywhere(subject)
    with kernels.session(subject, tokens):
        # Packed weights are not multiplied by few rows, so probes have more tokens there.
        least = max(16, kernels.LEAST_ROWS if kernels.packed_weights() else 0)
        timed = _shapes_for_time(subject, whole, parts, graph, least)
        probes.seconds(subject, timed[0])  # the first call prepares much that later ones do not
        times = [(shape, probes.seconds(subject, shape)) for shape in timed]
        kept = parts if graph else parts[:1]  # without a graph, a block leaves nothing for the next to add to
        more = () if graph else _BLOCKS
        shapes = _shapes_in_blocks(subject, whole, kept, graph, least)
        in_blocks = _counted(subject, [s for s in shapes if s.at_once <= 1], (*more, *_GRADIENTS))
        several = [s for s in shapes if s.at_once > 1]
        together = _counted(subject, several, (), in_blocks) if several else in_blocks
        shapes = _shapes_at_output(subject, whole, kept, graph, least)
        at_output = _counted(subject, shapes, (*more, *_PAIRS, *_GRADIENTS), in_blocks) if shapes else in_blocks
    return Fit(
        whole,
        _solved([(_terms(shape, 0), taken.forward) for shape, taken in times], _OUTSIDE),
        _solved([(_terms(shape, shape.at_once), taken.backward) for shape, taken in times if graph], _OUTSIDE),
        in_blocks,
        together,
        at_output,
        probes.embedded(subject).nbytes if graph else 0,
        probes.setup(subject, graph, tokens),
    )


def _counted(
    subject: Subject, shapes: list[Shape], without: tuple[int, ...] = (), in_blocks: np.ndarray | None = None
) -> np.ndarray:
    """Return the bytes per term; what blocks keep for the way back is known from `in_blocks`, if that is given."""
    found = [(_terms(shape, shape.at_once), float(probes.most_bytes(subject, shape).bytes)) for shape in shapes]
    if in_blocks is None:
        return _solved(found, without)
    kept = np.zeros_like(in_blocks)
    kept[list(_KEPT)] = in_blocks[list(_KEPT)]
    rest = [(terms, max(count - float(terms @ kept), 0.0)) for terms, count in found]
    return kept + _solved(rest, (*without, *_KEPT), [count for _, count in found])


def _shapes_for_time(subject: Subject, whole: int, parts: tuple[int, ...], graph: bool, least: int) -> list[Shape]:
    rows, tokens = LONG_PROBE.get(subject.input_device.type, LONG_PROBE["cpu"])
    limit, one, some = subject.max_length or 1 << 30, int(graph), parts or (whole,)
    tokens, long, short = min(tokens, limit), min(2 * rows * tokens, limit), min(max(32, least), limit)
    shapes = [Shape(1, min(8, limit), 1, whole, one), *(Shape(rows, tokens, 1, blocks, one) for blocks in some)]
    shapes.append(Shape(max(1, 2 * rows * tokens // long), long, 1, some[0], one))
    if not parts:
        shapes.append(Shape(2, min(8, limit), 1, whole, one))
    if subject.head == "causal-lm":
        shapes.append(Shape(rows, tokens, max(1, tokens // 2), some[0], one))
        if graph:
            shapes += [Shape(1, short, 8, blocks, 8) for blocks in some]
            shapes.append(Shape(1, short, min(16, short), some[0], 8))
    return shapes


def _shapes_in_blocks(subject: Subject, whole: int, parts: tuple[int, ...], graph: bool, least: int) -> list[Shape]:
    limit, one, some = subject.max_length or 1 << 30, int(graph), parts or (whole,)
    short, middle, long = (min(length, limit) for length in (least, 2 * least, 256 if parts else 128))
    shapes = [Shape(1, tokens, 1, blocks, one) for tokens in {short, middle, long} for blocks in some]
    shapes += [Shape(3, short, 1, some[0], one), Shape(1, short, 1, whole, one)]
    if graph and subject.head == "causal-lm":
        shapes += [Shape(1, tokens, 8, some[-1], 8) for tokens in {short, middle, min(160, long)}]
        shapes.append(Shape(3, short, 8, some[-1], 8))
        shapes.append(Shape(1, middle, 8, some[0], 8))  # gradients are held for one block, whatever their number
    return shapes


def _shapes_at_output(subject: Subject, whole: int, parts: tuple[int, ...], graph: bool, least: int) -> list[Shape]:
    """Return batches whose output is large beside their blocks; none where a row has one output.

    One gradient stands for any number, because one pass through the unembedding serves all.
    """
    if subject.head != "causal-lm":
        return []
    limit, some = subject.max_length or 1 << 30, parts or (whole,)
    few, more = min(least, limit), min(least + 24, limit)
    one, most = int(graph), max(1, 3 * few // 4)
    shapes = [Shape(1, few, most, some[-1], one), Shape(1, more, most, some[0], one), Shape(3, few, most, some[0], one)]
    shapes += [Shape(1, few, max(1, few // 4), some[0], one), Shape(1, more, few, some[0], one)]
    return shapes


def _terms(shape: Shape, at_once: int) -> np.ndarray:
    """Return what a price may grow with, for a forward (`at_once` 0) or for so many gradients that travel together."""
    size, pairs, outputs = shape.rows * shape.tokens, shape.rows * shape.tokens**2, shape.rows * shape.targets
    plain = [1.0, shape.blocks, shape.blocks * size, shape.blocks * pairs, size, pairs, outputs]
    return np.array([*plain, *(at_once * term for term in (size, pairs, outputs, shape.blocks * size))])


def _solved(
    found: list[tuple[np.ndarray, float]], without: tuple[int, ...] = (), wholes: list[float] | None = None
) -> np.ndarray:
    """Return the non-negative coefficients with the least errors relative to `wholes`; those of `without` are 0."""
    if not found:
        return np.zeros(len(_terms(Shape(1, 1, 1, 1), 0)))
    terms = np.stack([own for own, _ in found])
    terms[:, list(without)] = 0
    values = np.array([value for _, value in found])
    weights = np.maximum(values if wholes is None else np.array(wholes), 1e-12)
    scale = np.maximum(terms.max(0), 1e-30)  # so that no term is small beside others
    solution, _ = nnls(terms / scale / weights[:, None], values / weights)
    return solution / scale
