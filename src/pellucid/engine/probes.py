"""Small runs of the model at hand, from which its time and memory are learned; nothing in them depends on a prompt."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from pellucid.engine import memory
from pellucid.engine.backward import TARGETS_AT_ONCE, backward, cut, frozen, through_all
from pellucid.engine.readout import log_probabilities
from pellucid.engine.variants import decoder_start, token_site
from pellucid.models import kernels
from pellucid.models.batch import Row
from pellucid.models.edits import Edit
from pellucid.models.forward import forward
from pellucid.models.hooks import Hook, bypassed, hooked, parts_of
from pellucid.models.layout import block_of, depth, main_stack
from pellucid.models.proofs import probe

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

REPEATS = 3
ENOUGH_SECONDS = 0.12


@dataclass(frozen=True)
class Shape:
    """One batch: rows, tokens of a row, targets read in each row, and how many blocks run (the others hand on).

    `gradients` is how many scores of a row are differentiated: none, one (of a target or of their sum), or several.
    """

    rows: int
    tokens: int
    targets: int
    blocks: int
    gradients: int = 0

    @property
    def at_once(self) -> int:
        """Return how many gradients travel backward together."""
        return min(self.gradients, TARGETS_AT_ONCE)


@dataclass(frozen=True)
class Taken:
    """What a batch took: seconds forward, seconds of one backward, most bytes held at once."""

    forward: float
    backward: float
    bytes: int


def skippable(subject: Subject) -> bool:
    """Return whether single blocks can be left out of a run, so that long rows are probed at the cost of one block."""
    layers = _blocks(subject)
    if len(layers) < 2 or len(set(layers)) < len(layers) or depth_everywhere(subject) != len(layers):
        return False
    try:
        with _only(subject, 1):
            forward(subject, [probe(subject, 4)])
    except Exception:  # whatever a model of unknown form raises, it means no
        return False
    return True


def depth_everywhere(subject: Subject) -> int:
    """Return the number of blocks of all stacks together."""
    layout = subject.need_layout()
    return sum(depth(subject.model, layout, name) for name in layout.stacks)


def seconds(subject: Subject, shape: Shape) -> Taken:
    """Time a batch forward, and backward once: the shortest of some repeats, because other work only adds."""
    found: list[tuple[float, float]] = []
    with _only(subject, shape.blocks):
        while len(found) < REPEATS and sum(sum(pair) for pair in found) < ENOUGH_SECONDS:
            found.append(_timed(_work(subject, shape)))
    return Taken(min(f for f, _ in found), min(b for _, b in found), 0)


def most_bytes(subject: Subject, shape: Shape) -> Taken:
    """Count the most bytes that a batch holds at once, besides the model."""
    with _only(subject, shape.blocks):
        return Taken(0.0, 0.0, memory.peak(lambda: all(_work(subject, shape))))


@dataclass(frozen=True)
class Setup:
    """What packing the weights takes in a call of the engine: seconds, bytes, and what comes on top of it.

    `back` are the bytes of packing those of the blocks again for the way back; `late` those of `bytes` that are packed
    only when `late_rows` rows have come.
    """

    seconds: float
    bytes: int
    back: int
    late: int
    late_rows: float


def setup(subject: Subject, graph: bool, tokens: int) -> Setup:
    """Measure what packing the weights takes in a call of the engine over so many tokens."""
    start = time.perf_counter()
    with kernels.session(subject, tokens):
        seconds = time.perf_counter() - start
        packed, late = kernels.packed_weights(), kernels.packed_late()
    output = getattr(subject.model.get_output_embeddings(), "weight", None)
    again = sum(weight.nbytes for weight in packed if weight is not output) if graph else 0
    size = sum(weight.nbytes for weight in packed)
    return Setup(
        seconds * (1 + again / max(size, 1)), size, again, sum(w.nbytes for w in late), max(late.values(), default=0.0)
    )


def _timed(steps: Iterator[object]) -> tuple[float, float]:
    marks = [time.perf_counter()]
    for _ in steps:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        marks.append(time.perf_counter())
    return marks[1] - marks[0], marks[2] - marks[1] if len(marks) > 2 else 0.0


def _work(subject: Subject, shape: Shape) -> Iterator[object]:
    """Do what scoring (or, with gradients, differentiating) does with a batch, and stop after each step."""
    ids = probe(subject, shape.tokens).ids
    decoder = (decoder_start(subject),) * shape.targets if subject.kind == "encoder-decoder" else ()
    graph = shape.gradients > 0
    leaves = _leaves(subject, shape) if graph else []
    where = {"position": tuple(range(len(ids)))}
    edits = [(Edit(token_site(subject), "set", leaf, where),) for leaf in leaves] or [()] * shape.rows
    rows = [Row(ids, decoder, edits=own) for own in edits]
    each = shape.gradients > 1 and subject.head == "causal-lm"
    with torch.set_grad_enabled(graph), frozen(subject.model), kernels.first_order():
        with cut(subject, each) as ends:
            logits = forward(subject, rows, grad=graph, wanted=_wanted(subject, shape, len(ids))).logits
        scores = logits[..., 0]
        if subject.head == "causal-lm":
            scores = log_probabilities(logits, torch.zeros(logits.shape[:-1], dtype=torch.long, device=logits.device))
        del logits
        yield True
        if graph:  # with more gradients, the same again
            columns = scores.reshape(shape.rows, -1)
            if ends:
                through_all(columns, ends, leaves, shape.at_once)
            else:
                backward(columns.sum(1, keepdim=True), leaves)
            yield True


def _leaves(subject: Subject, shape: Shape) -> list[torch.Tensor]:
    vector = embedded(subject)
    return [vector.expand(shape.tokens, -1).clone().requires_grad_() for _ in range(shape.rows)]


@torch.no_grad()
def embedded(subject: Subject) -> torch.Tensor:
    """Return the embedding of one token: its width, type and device are those of gradients."""
    found: torch.Tensor = subject.model.get_input_embeddings()(torch.tensor(0, device=subject.input_device))
    return found


def _wanted(subject: Subject, shape: Shape, length: int) -> torch.Tensor | None:
    if subject.head not in ("causal-lm", "masked-lm"):
        return None
    first = 0 if subject.kind != "decoder" else length - shape.targets
    return torch.arange(first, first + shape.targets)[None].expand(shape.rows, -1)


def _blocks(subject: Subject) -> Sequence[torch.nn.Module]:
    layout = subject.need_layout()
    name = main_stack(layout)
    return [
        block_of(subject.model, layout.stacks[name], layer)[0] for layer in range(depth(subject.model, layout, name))
    ]


@contextmanager
def _only(subject: Subject, blocks: int) -> Iterator[None]:
    """Let only the first blocks run, in evaluation of nobody else: the lock is held."""
    others = _blocks(subject)[blocks:]
    if not others:
        yield
        return
    with subject.lock, bypassed(others, _output_parts(subject)):
        yield


def _output_parts(subject: Subject) -> int:
    key = ("parts of a block's output", type(subject.model))
    if key not in subject.state.cache:
        kinds: list[int] = []

        def see(output: object) -> object:
            kinds.append(parts_of(output))
            return output

        with subject.uncounted(), torch.no_grad(), hooked([Hook(_blocks(subject)[0], "output", see)]):
            forward(subject, [probe(subject, 4)])
        subject.state.cache[key] = kinds[0] if kinds else 0
    return int(subject.state.cache[key])
