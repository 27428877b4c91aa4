"""Attention flow: how much could flow from the output to each unit, if attention weights were the widths of pipes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import maximum_flow

from pellucid.core.metadata import method
from pellucid.core.params import PromptLike, TargetLike, Unit
from pellucid.core.results import Scores
from pellucid.engine.capture import capture
from pellucid.engine.patterns import pattern_sites
from pellucid.engine.question import Question, ask, read_position
from pellucid.models.subject import Subject

WHOLE = 1 << 30  # scipy's capacities are 32-bit integers; this one stands for 1


@method(
    rows=("ATT-9",),
    paper="arXiv:2105.14652",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("attention",),
    cost="F",
)
def attention_flow(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, unit: Unit = "token"
) -> Scores:  # fmt: skip
    """Score each unit by the largest flow from the output position down to it through the layers.

    The graph has a node per layer and position; the edge from query i above to key j below has the capacity
    (mean over heads of attention + identity) / 2, and R_u is the maximum flow from the position that is read to the
    tokens of u. Between 0 and 1; each unit has its own flow, so the scores of all tokens sum to 1 or more. Exact to the
    rounding of capacities to 2^-30, but it does not depend on the target and ignores values and feed-forward layers
    (Abnar & Zuidema 2020, arXiv:2005.00928; Ethayarajh & Jurafsky 2021, arXiv:2105.14652, who read flows as Shapley
    values).

    Args:
        subject: the model, from `pellucid.load`; for encoder-decoders the encoder's self-attention is used, with an
            equal share of the flow entering at each of its positions.
        prompt: text, chat or token ids.
        target: only names the target in the result.
        unit: "token", "word", "sentence", "line", "message" or token ranges.

    Returns:
        Scores [unit].
    """
    question = ask(subject, prompt, target=target, unit=unit)
    captured = capture(subject, question.tokens, pattern_sites(subject))
    layers = [pattern.double().mean(0).cpu().numpy() for pattern in captured.values()]
    values = _flows(layers, _entry(question), question.units.spans)
    sign = "larger means more can flow from the unit to the output"
    return question.answer(values[:, None], "Attention flow", unit="flow", sign=sign)


def _entry(question: Question) -> np.ndarray:
    """Return the share of the flow that enters at each position of the top."""
    length = len(question.tokens)
    if question.subject.kind == "encoder-decoder" or question.subject.head == "none":
        return np.full(length, 1 / length)
    return np.eye(length)[read_position(question)]


def _flows(layers: Sequence[np.ndarray], entry: np.ndarray, spans: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return the maximum flow [spans] from the top to each span of the bottom.

    Nodes: the positions of level 0 (the input), of level 1, ..., then the source and the sink.
    """
    length = len(entry)
    source = (len(layers) + 1) * length
    edges = [(np.full(length, source), len(layers) * length + np.arange(length), entry)]
    for level, pattern in enumerate(layers):
        query, key = np.nonzero(pattern + np.eye(length))
        width = 0.5 * pattern[query, key] + 0.5 * (query == key)
        edges.append(((level + 1) * length + query, level * length + key, width))
    flows = []
    for start, end in spans:
        bottom = np.arange(start, end)
        last = (bottom, np.full(len(bottom), source + 1), np.ones(len(bottom)))
        graph = _capacities([*edges, last], source + 2)
        flows.append(maximum_flow(graph, source, source + 1).flow_value / WHOLE)
    return np.array(flows)


def _capacities(edges: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], size: int) -> csr_array:
    above, below, width = (np.concatenate(parts) for parts in zip(*edges, strict=True))
    widths = np.round(width * WHOLE).astype(np.int32)
    return csr_array(coo_array((widths, (above, below)), shape=(size, size)))
