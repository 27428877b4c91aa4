"""Weights in embedding space: a head as a matrix of token pairs, read by its largest entries."""

from __future__ import annotations

from typing import Literal

from pellucid.core.metadata import method
from pellucid.core.params import Positive
from pellucid.core.results import Evidence, Table
from pellucid.engine.head_patterns import chosen_layers, one_of
from pellucid.engine.head_weights import embedding, head_weights, largest_pairs, neuron_weights, unembedding
from pellucid.engine.targets import name_of
from pellucid.models.subject import Subject


@method(
    rows=("MEL-3",),
    paper="arXiv:2209.02535",
    takes="models",
    produces="table",
    needs=("weights",),
    cost="0*F",
)
def embedding_space(
    subject: Subject, *, layer: int = -1, part: Literal["ov", "qk", "neurons"] = "ov", head: int = 0,
    neuron: int | None = None, count: Positive = 20,
) -> Table:  # fmt: skip
    """List the token pairs of the largest entries of a weight matrix that is projected onto the vocabulary.

    "ov" is E W_V W_O U^T (attending to the first token raises the second), "qk" E W_Q W_K^T E^T (the first attends to
    the second), "neurons" the value vectors of the feed-forward layer times U^T (the neuron raises the token); E is the
    token embedding, U the unembedding, and norms count as their gain. Exact: all pairs are searched, a few rows of the
    matrix at a time (Dar et al. 2022, arXiv:2209.02535).

    Args:
        subject: the model, from `pellucid.load`; a pre-norm causal language model.
        layer: the layer; negative ones from the last.
        part: what is read.
        head: the head of "ov" and "qk".
        neuron: one neuron of "neurons"; None means all.
        count: entries.

    Returns:
        Table with the columns from, to, value, largest first. `from` is a token or a neuron.

    Raises:
        InputError: a layer, head or neuron that the model lacks.
        CapabilityError: a model without one pre-norm stack or without a plain unembedding.
    """
    number = chosen_layers(subject, layer)[0]
    outputs = unembedding(subject)
    if part == "neurons":
        written = neuron_weights(subject, number)
        first = 0 if neuron is None else one_of(neuron, len(written), "neuron")
        written = written if neuron is None else written[first : first + 1]
        found = [(f"neuron {first + i}", j, value) for i, j, value in largest_pairs(written, outputs, count)]
        name = f"the neurons of layer {number}" if neuron is None else f"neuron {number}.{first}"
    else:
        weights = head_weights(subject, number)
        chosen, tokens = one_of(head, len(weights.query), "head"), embedding(subject)
        left = tokens @ (weights.value if part == "ov" else weights.query)[chosen]
        right = outputs @ weights.output[chosen].T if part == "ov" else tokens @ weights.key[chosen]
        found = [(name_of(subject, i), j, value) for i, j, value in largest_pairs(left, right, count)]
        name = f"the {part.upper()} circuit of head {number}.{chosen}"
    rows = tuple((source, name_of(subject, j), value) for source, j, value in found)
    same = sum(source == to for source, to, _ in rows)
    return Table(title=f"Largest entries of {name}", columns=("from", "to", "value"), rows=rows).with_evidence(
        Evidence(
            "same token",
            f"{same} of the {len(rows)} largest entries lead from a token to itself.",
            {"same": float(same), "entries": float(len(rows))},
        )
    )
