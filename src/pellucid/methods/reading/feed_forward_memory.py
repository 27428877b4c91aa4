"""Feed-forward layers as memories: what makes each key fire, and which next token its value holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pellucid.core.errors import InputError
from pellucid.core.metadata import method
from pellucid.core.params import Count, Positive
from pellucid.core.results import Evidence, Table
from pellucid.core.tokens import Tokens
from pellucid.engine.capture import capture
from pellucid.engine.head_patterns import chosen_layers, one_of
from pellucid.engine.head_weights import neuron_weights, unembedding
from pellucid.engine.targets import name_of
from pellucid.models.subject import Subject

LONGEST = 12


@method(
    rows=("TXB-3",),
    paper="arXiv:2012.14913",
    takes="corpus",
    produces="table",
    needs=("activations", "weights"),
    cost="prompts*F",
)
def feed_forward_memory(
    subject: Subject, prompts: Sequence[Any], *, layers: Sequence[int] | None = None,
    neurons: Sequence[int] | None = None, count: Positive = 5, tokens: Positive = 3, seed: Count = 0,
) -> Table:  # fmt: skip
    """List for each neuron the prefix that makes it fire most, and the tokens that its value vector promotes.

    The key of neuron i is its activation m_i at a prefix, its value v_i the row of the second matrix, read as v_i W_U
    with the final norm's gain. A memory cell agrees where the top token of its value is the token that follows its
    strongest prefix. Exact for the prompts given; whether agreement means anything shows beside the share for values of
    other neurons of the layer (Geva et al. 2021, arXiv:2012.14913).

    Args:
        subject: the model, from `pellucid.load`; a pre-norm causal language model.
        prompts: texts, chats or token ids, of two or more tokens.
        layers: layers; None means all.
        neurons: neurons of each layer; None takes those that fire most.
        count: neurons per layer where none are named.
        tokens: tokens per value.
        seed: of the values that agreement is compared with.

    Returns:
        Table with the columns layer, neuron, activation, prefix, next, value, agrees (1 or 0).

    Raises:
        InputError: no prompt with two tokens, or a layer or neuron that the model lacks.
        SiteError: a model whose experts are computed jointly.
    """
    numbers = chosen_layers(subject, layers)
    encoded = [subject.encode(prompt) for prompt in prompts]
    if not any(len(one) > 1 for one in encoded):
        raise InputError("Memories are read from prefixes and what follows them; give prompts of two or more tokens.")
    best = _strongest(subject, encoded, numbers)
    outputs, rng = unembedding(subject), np.random.default_rng(seed)
    rows: list[tuple[Any, ...]] = []
    chance: list[float] = []
    for layer in numbers:
        values, places = best[layer]
        order = values.argsort(descending=True, stable=True)[:count].tolist()
        chosen = order if neurons is None else [one_of(n, len(values), "neuron") for n in neurons]
        weights = neuron_weights(subject, layer)
        said = (weights[chosen] @ outputs.T).topk(min(tokens, len(outputs)), dim=1).indices.tolist()
        others = (weights[rng.integers(len(weights), size=len(chosen))] @ outputs.T).argmax(1).tolist()
        for neuron, top, other in zip(chosen, said, others, strict=True):
            which, position = places[neuron].tolist()
            here, after = encoded[which], encoded[which].ids[position + 1]
            words = ", ".join(name_of(subject, token) for token in top)
            agrees = int(top[0] == after)
            chance.append(float(other == after))
            rows.append(
                (layer, neuron, float(values[neuron]), _prefix(here, position), name_of(subject, after), words, agrees)
            )
    return Table(
        title=f"Feed-forward memories over {len(encoded)} prompts",
        columns=("layer", "neuron", "activation", "prefix", "next", "value", "agrees"),
        rows=tuple(rows),
    ).with_evidence(_agreement([row[-1] for row in rows], chance))


def _strongest(
    subject: Subject, encoded: Sequence[Tokens], layers: Sequence[int]
) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    """Return per layer the largest activation of each neuron, and where it was: [neuron, (prompt, position)]."""
    best: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    for number, tokens in enumerate(encoded):
        plain = [p for p in range(len(tokens) - 1) if not tokens.special[p]]
        if not plain:
            continue
        found = capture(subject, tokens, [f"blocks.{layer}.mlp.post" for layer in layers])
        for layer in layers:
            values, index = found[f"blocks.{layer}.mlp.post"][plain].float().cpu().max(0)
            places = torch.stack([torch.full_like(index, number), torch.tensor(plain)[index]], 1)
            if layer in best:
                more = values > best[layer][0]
                values = torch.where(more, values, best[layer][0])
                places = torch.where(more[:, None], places, best[layer][1])
            best[layer] = (values, places)
    if not best:
        raise InputError("The prompts hold only special tokens before their ends; give prompts with ordinary tokens.")
    return best


def _prefix(tokens: Tokens, position: int) -> str:
    pieces = [tokens.pieces[p] or f"⟨{tokens.ids[p]}⟩" for p in range(position + 1)]
    return ("…" if len(pieces) > LONGEST else "") + "".join(pieces[-LONGEST:])


def _agreement(agrees: Sequence[int], chance: Sequence[float]) -> Evidence:
    share, other = float(np.mean(agrees)), float(np.mean(chance))
    return Evidence(
        "agreement",
        f"The value's top token follows the strongest prefix for {100 * share:.0f} % of the {len(agrees)} neurons, and "
        f"for {100 * other:.0f} % where values are those of random neurons.",
        {"agreement": share, "random": other},
    )
